"""Downloads of firmware and software over MQTT: one answer at a time where it is large, and few of those in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from api.dialects.thingsboard.ota import NotAssigned, Part, assigned, part_of, read
from api.dialects.thingsboard.settings import MAX_MQTT_BYTES
from engine.errors import NotFound
from engine.service import end_all
from engine.stores.firmware import MAX_BYTES, PREFIXES, Image, Kind

if TYPE_CHECKING:
    from api.dialects.thingsboard.session import DeviceLogin

LARGE_BYTES: Final = MAX_MQTT_BYTES
"""Longer answers wait for each other."""
IN_MEMORY_BYTES: Final = 4 * MAX_BYTES
"""Bytes of large answers of one process that have not left yet."""
REQUESTS: Final = 8
"""Downloads that one session may have going on: each keeps to the image that it began with."""
LOOK_EVERY_S: Final = 0.05


class Downloads:
    """Those of one process. `stop` ends what waits."""

    def __init__(self) -> None:
        self._free = IN_MEMORY_BYTES
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._leaving: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Wait for no client any more."""
        await end_all(self._leaving)

    async def answer(self, session: DeviceLogin, kind: Kind, request: int, chunk: int, size: int) -> None:
        """Send a chunk, or the reason why there is none. Raises redis errors."""
        prefix = PREFIXES[kind]
        try:
            image = await self._image(session, kind, request, chunk)
            part = part_of(image, size, chunk)
            length = part.stop - part.start
            topic = f"v2/{prefix}/response/{request}/chunk/{chunk}"
            if length <= LARGE_BYTES:
                sent = session.answer(topic, await read(session.parts, session.device, part))
            else:
                sent = await self._send_large(session, topic, part)
            if not sent:
                # The client has said how long a packet it takes.
                session.answer(f"v2/{prefix}/error", b"PAYLOAD_TOO_LARGE")
        except (NotAssigned, NotFound):
            session.answer(f"v2/{prefix}/error", b"NOT_FOUND")

    async def _send_large(self, session: DeviceLogin, topic: str, part: Part) -> bool:
        length = part.stop - part.start
        if session.download is not None:
            await asyncio.wait([session.download])
        await self._take(length)
        sent = False
        try:
            acked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            body = await read(session.parts, session.device, part)
            sent = session.answer(topic, body, lambda: acked.set_result(None))
        finally:
            if not sent:
                self._give(length)
        if sent:
            session.download = task = asyncio.create_task(self._leave(session, acked, length))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        return sent

    async def _image(self, session: DeviceLogin, kind: Kind, request: int, chunk: int) -> Image:
        """The image of a download: the one that was assigned when its first chunk was asked for."""
        known = session.images
        image = None if chunk == 0 else known.get((kind, request))
        if image is None:
            image = known[kind, request] = await assigned(session.parts, session.device, kind)
            if len(known) > REQUESTS:
                del known[next(iter(known))]
        return image

    async def _leave(self, session: DeviceLogin, acked: asyncio.Future[None], length: int) -> None:
        """Wait until the client has a large answer, or is gone."""
        try:
            while session.alive and (session.unsent_bytes or not acked.done()):
                await asyncio.wait([acked], timeout=LOOK_EVERY_S)
                if acked.done() and session.unsent_bytes:
                    await asyncio.sleep(LOOK_EVERY_S)
        finally:
            self._give(length)

    async def _take(self, count: int) -> None:
        """Wait until so many bytes may be in memory; who came first is served first."""
        if not self._waiting and count <= self._free:
            self._free -= count
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (count, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give(count)
            else:
                self._waiting.remove(entry)
            raise

    def _give(self, count: int) -> None:
        self._free += count
        while self._waiting and self._waiting[0][0] <= self._free:
            wanted, turn = self._waiting.popleft()
            self._free -= wanted
            turn.set_result(None)
