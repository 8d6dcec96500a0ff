"""Points on their way to the store: the writer of a worker, fed from memory after each commit.

The commit has put the points into the partition's spool already, so a crash or an outage only means reading the spool
again, oldest first; the same points twice are the same points. One write is in flight, of what gathered meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from typing import Final

from redis.exceptions import ConnectionError as RedisConnectionError

from engine import metrics
from engine.commit import Awaiting
from engine.entries import id_order
from engine.failpoints import failpoint
from engine.feed import WRITE_AT_MOST, Feed, Put
from engine.leases import Owned
from engine.message import Point
from engine.refused_points import STORE_REFUSED, RefusedPoint, bury
from engine.service import end
from engine.spool import Piece, Spool, SpoolReader
from engine.stores.timeseries import Timeseries
from engine.wire import Argument, Wire, failed

log = logging.getLogger("rulemill.points")

WRITE_BYTES: Final = 4 << 20
"""Bytes of points in one write, unless a single entry of a spool has more."""
SMALL, GAP_S = 500, 0.005
"""After a write of fewer points, the pause before the next one."""
IN_MEMORY, IN_MEMORY_BYTES = 50_000, 32 << 20
"""What is kept in memory for the writer; beyond it, it reads the spool."""


class PointsWriter:
    """Writes the points of owned partitions into the store and trims their spools."""

    def __init__(self, wire: Wire, store: Timeseries) -> None:
        self._wire, self._name = wire, store.name
        self._reader = SpoolReader(wire)
        self._spools: dict[int, Spool] = {}
        self._queue: deque[Piece] = deque()
        self._held = self._held_bytes = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self.feed = Feed(store)

    async def open(self) -> None:
        """Open the store; one that is away is opened later, and the points wait. Raises Unfit."""
        await self.feed.open()

    def start(self) -> None:
        """Begin writing."""
        self._task = asyncio.create_task(self._run(), name="points")

    async def stop(self, finish_s: float = 5.0) -> None:
        """Write what is in memory, then end; the spool keeps what is left."""
        self._stopping.set()
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=finish_s)
            await end(self._task)
            self._task = None

    def own(self, owned: Owned) -> None:
        """Write a partition's points, those in its spool first."""
        self._spools[owned.keys.number] = Spool(owned)
        self._wake.set()

    def disown(self, number: int) -> None:
        """Forget a partition; its spool goes to the next owner."""
        if self._spools.pop(number, None) is not None:
            kept, self._queue = self._queue, deque()
            self._held = self._held_bytes = 0
            for piece in kept:
                self._append(piece)

    def add(self, owned: Owned, spooled_id: bytes, points: list[Point], size: int, after: list[Awaiting]) -> None:
        """Write what a commit has spooled (`size` bytes) under `spooled_id`, or under an id that it was not told.

        Then tell those in `after`.
        """
        spool = self._spools.get(owned.keys.number)
        if spool is None:
            return
        if spooled_id and id_order(spooled_id) <= id_order(spool.read):
            # The spool was read before we heard of the commit.
            self._append(Piece(spool, spool.read, [], 0, after))
        elif spool.behind or not spooled_id or self._held >= IN_MEMORY or self._held_bytes >= IN_MEMORY_BYTES:
            # Nothing of this partition may go past what the spool still holds: its trim would take it away unwritten.
            spool.fall_behind(spooled_id, after)
        else:
            spool.read = spooled_id
            self._append(Piece(spool, spooled_id, points, size, after))
        self._wake.set()

    def _append(self, piece: Piece) -> None:
        if self._is_ours(piece):
            self._queue.append(piece)
            self._held += len(piece.points)
            self._held_bytes += piece.size

    def _take(self) -> list[Piece]:
        """The head of the queue, as much as one write takes."""
        pieces: list[Piece] = []
        count = size = 0
        while self._queue and count < WRITE_AT_MOST and size < WRITE_BYTES:
            piece = self._queue.popleft()
            pieces.append(piece)
            count += len(piece.points)
            size += piece.size
        self._held -= count
        self._held_bytes -= size
        return pieces

    def _put_back(self, pieces: Sequence[Piece]) -> None:
        """What could not be written, or is not trimmed, is written again, before what came meanwhile."""
        for piece in reversed(pieces):
            if self._is_ours(piece):
                self._queue.appendleft(piece)
                self._held += len(piece.points)
                self._held_bytes += piece.size

    def _is_ours(self, piece: Piece) -> bool:
        """Whether its partition is still ours, and was not given away and taken back since."""
        return self._spools.get(piece.spool.owned.keys.number) is piece.spool

    # The task

    async def _run(self) -> None:
        while not self._stopping.is_set() or (self._queue and self.feed.breaker.state == "closed"):
            self._wake.clear()
            try:
                if not self._stopping.is_set():
                    await self._fill()
                pause_s = await self._some() if self._queue else 0.0
            except RedisConnectionError as error:
                log.warning("spool: %s", error)
                pause_s = 0.25
            except Exception as error:
                # Whatever it was, the points stand in the spool: nobody may stop writing for it.
                log.exception("spool: %s", type(error).__name__)
                pause_s = 1.0
            if pause_s:
                await self._pause(pause_s)
            elif not self._queue and not self._behind():
                await self._wake.wait()

    async def _pause(self, pause_s: float) -> None:
        if self._stopping.is_set():
            await asyncio.sleep(min(pause_s, 0.1))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._stopping.wait()

    def _behind(self) -> int:
        return sum(spool.behind and not spool.stuck for spool in self._spools.values())

    async def _fill(self) -> None:
        """Bring into memory what spools hold, as far as the next write can take it."""
        while self._held < WRITE_AT_MOST and self._held_bytes < WRITE_BYTES and self._behind():
            for piece in await self._reader.read(list(self._spools.values())):
                self._append(piece)
        metrics.POINTS_BEHIND.set(self._behind())

    async def _some(self) -> float:
        """Write the head of the queue, as much as one write takes; seconds to wait before the next one."""
        left = pieces = self._take()
        points = [point for piece in pieces for point in piece.points]
        try:
            count, refused = await self.feed.put(points) if points else Put(0)
            if points and not count:
                return self.feed.breaker.wait_s()
            left = await self._done(pieces, count, refused)
        finally:
            self._put_back(left)
        metrics.POINTS.labels(self._name).inc(count - len(refused))
        # Under a trickle, every write is a transaction and two changes of threads: let a few points gather.
        return GAP_S if len(points) < SMALL and not left else 0.0

    async def _done(self, pieces: list[Piece], count: int, refused: Sequence[tuple[int, str]]) -> list[Piece]:
        """After a write of the first `count` points: trim, and tell those who wait; the pieces that are left."""
        if refused:
            await self._bury(pieces, refused)
        whole = 0
        while whole < len(pieces) and len(pieces[whole].points) <= count:
            count -= len(pieces[whole].points)
            whole += 1
        failpoint("before-trim")
        await self._trim(pieces[:whole])
        left = pieces[whole:]
        if count:
            first = left[0]
            first.size -= first.size * count // len(first.points)
            first.points = first.points[count:]
        return left

    async def _trim(self, pieces: list[Piece]) -> None:
        """Take what is in the store out of the spools, and tell those who wait for it."""
        last = {piece.spool.owned.keys.number: piece for piece in pieces if self._is_ours(piece)}
        commands: list[tuple[Argument, ...]] = [piece.spool.trim_command(piece.last_id) for piece in last.values()]
        for piece in pieces:
            commands += [one.line(piece.refused.get((one.tenant, one.device), "")) for one in piece.after]
        for reply in await self._wire.execute(commands):
            if failed(reply):
                raise RedisConnectionError(str(reply))

    async def _bury(self, pieces: list[Piece], refused: Sequence[tuple[int, str]]) -> None:
        owners = [piece for piece in pieces for _ in piece.points]
        points = [point for piece in pieces for point in piece.points]
        for i, reason in refused:
            owners[i].refused[points[i].tenant, points[i].device] = STORE_REFUSED + reason
        await bury(
            self._wire,
            [
                RefusedPoint(owners[i].spool.owned.keys, points[i], reason)
                for i, reason in refused
                if self._is_ours(owners[i])
            ],
        )
        metrics.POINTS_REFUSED.labels(self._name).inc(len(refused))
