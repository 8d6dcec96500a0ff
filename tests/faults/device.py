"""A device over MQTT 3.1.1 that loses nothing: it sends again, in order, what was not acknowledged before a break."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

TOPIC = b"v1/devices/me/telemetry"
BASE_MS = 1_700_000_000_000
WINDOW = 20
SILENT_S = 8.0


def _packet(kind: int, body: bytes) -> bytes:
    length, digits = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([kind]) + bytes(digits) + body


def _text(text: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + text


class Device:
    """Sends `count` numbered messages, one every `every_s`. What was acknowledged is in `acked`."""

    def __init__(self, name: str, where: Callable[[], tuple[str, int]], count: int, every_s: float) -> None:
        self.name, self._where = name, where
        self._count, self._every_s = count, every_s
        self.sent: set[int] = set()
        self.acked: set[int] = set()
        self.connects = 0
        self._unacked: OrderedDict[int, int] = OrderedDict()
        """Packet id to sequence number, in the order of sending."""
        self._next = 0

    async def run(self) -> None:
        """Return when everything is acknowledged."""
        while len(self.acked) < self._count:
            with suppress(OSError, EOFError, TimeoutError, asyncio.IncompleteReadError):
                await self._session()
            await asyncio.sleep(0.1)

    async def _session(self) -> None:
        reader, writer = await asyncio.open_connection(*self._where())
        try:
            async with asyncio.timeout(SILENT_S):
                flags = 0x82  # clean session, user name
                client, user = _text(self.name.encode()), _text(f"token-{self.name}".encode())
                writer.write(_packet(0x10, _text(b"MQTT") + bytes([4, flags, 0, 60]) + client + user))
                connack = await reader.readexactly(4)
            if connack[3] != 0:
                raise ConnectionError(f"refused with {connack[3]}")
            self.connects += 1
            for id, seq in self._unacked.items():
                writer.write(self._publish(id, seq, again=True))
            sending = asyncio.create_task(self._send(writer))
            try:
                while len(self.acked) < self._count:
                    async with asyncio.timeout(SILENT_S):
                        head = await reader.readexactly(4)
                    if head[0] == 0x40:
                        seq = self._unacked.pop(int.from_bytes(head[2:], "big"), None)
                        if seq is not None:
                            self.acked.add(seq)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        finally:
            writer.transport.abort()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        while self._next < self._count:
            await asyncio.sleep(self._every_s)
            if len(self._unacked) >= WINDOW:
                continue
            seq, self._next = self._next, self._next + 1
            id = seq % 65535 + 1
            self._unacked[id] = seq
            self.sent.add(seq)
            writer.write(self._publish(id, seq, again=False))

    def _publish(self, id: int, seq: int, again: bool) -> bytes:
        payload = json.dumps({"ts": BASE_MS + seq, "values": {"seq": seq}}).encode()
        return _packet(0x3A if again else 0x32, _text(TOPIC) + id.to_bytes(2, "big") + payload)
