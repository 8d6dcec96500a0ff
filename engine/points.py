"""Points on their way to the store: the writer of a worker, fed from memory after each commit.

The commit has put the points into the partition's spool already, so a crash or an outage only means reading the spool
again, oldest first; the same points twice are the same points. One write is in flight, of what gathered meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass, field

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError

from engine import metrics
from engine.commit import Line
from engine.effects import DeadLetter
from engine.entries import encode
from engine.errors import PointsRefused, StoreUnavailable
from engine.leases import Owned
from engine.message import Message, Point, now_ms
from engine.redis_scripts import TRIM
from engine.stores.timeseries import Timeseries
from engine.wire import Argument, Reply, Wire, call, failed

log = logging.getLogger("rulemill.points")

WRITE_AT_MOST = 5000
"""Points in one write, unless a single commit made more."""
SMALL, GAP_S = 500, 0.005
"""After a write of fewer points, the pause before the next one."""
IN_MEMORY = 50_000
"""Points kept in memory for the writer; beyond them it reads the spool."""

_decode = msgspec.msgpack.Decoder(list[Point]).decode


@dataclass(slots=True)
class _Piece:
    """Points of one partition, up to one spool entry."""

    number: int
    last_id: bytes
    points: list[Point]
    after: list[Line]


@dataclass(slots=True)
class _Spool:
    """What the writer knows of a partition's spool."""

    owned: Owned
    written: bytes = b"0-0"
    """Everything up to this entry is in the store."""
    behind: bool = True
    """Memory does not have it all: read the spool from `written` on."""
    missed: int = 0
    """Commits whose points were not kept in memory since the last look into the spool."""
    after: deque[tuple[bytes, list[Line]]] = field(default_factory=deque)
    """Notices of such commits, to be sent when the spool has been written as far."""


class PointsWriter:
    """Writes the points of owned partitions into the store and trims their spools."""

    def __init__(self, wire: Wire, store: Timeseries) -> None:
        self._wire, self._store, self._name = wire, store, store.name
        self._spools: dict[int, _Spool] = {}
        self._queue: deque[_Piece] = deque()
        self._held = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._idle = asyncio.Event()

    def start(self) -> None:
        """Begin writing."""
        self._task = asyncio.create_task(self._run(), name="points")

    async def stop(self, finish_s: float = 5.0) -> None:
        """Write what is in memory, then end; the spool keeps what is left."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=finish_s)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def own(self, owned: Owned) -> None:
        """Write a partition's points, those in its spool first."""
        self._spools[owned.keys.number] = _Spool(owned)
        self._wake.set()

    def disown(self, number: int) -> None:
        """Forget a partition; its spool goes to the next owner."""
        self._spools.pop(number, None)
        self._queue = deque(piece for piece in self._queue if piece.number != number)
        self._held = sum(len(piece.points) for piece in self._queue)

    def add(self, owned: Owned, spooled_id: bytes, points: list[Point], after: list[Line]) -> None:
        """Write what a commit has spooled under `spooled_id`; then send the notices in `after`."""
        spool = self._spools.get(owned.keys.number)
        if spool is None:
            return
        if spool.behind or self._held >= IN_MEMORY:
            # Nothing of this partition may go past what the spool still holds: its trim would take it away unwritten.
            spool.behind = True
            spool.missed += 1
            if after:
                spool.after.append((spooled_id, after))
        else:
            self._queue.append(_Piece(owned.keys.number, spooled_id, points, after))
            self._held += len(points)
        self._wake.set()

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while await self._some():
                    failures = 0
            except StoreUnavailable as error:
                failures += 1
                metrics.STORE_FAILED.labels(self._name).inc()
                log.warning("store: %s; points wait in the spool", error.reason)
                await asyncio.sleep(max(error.retry_after_s, min(0.1 * 2**failures, 5.0)))
                self._wake.set()
            except RedisConnectionError as error:
                log.warning("spool: %s", error)
                await asyncio.sleep(0.25)
                self._wake.set()
            except Exception as error:
                # Whatever it was, the points stand in the spool: nobody may stop writing for it.
                failures += 1
                metrics.STORE_FAILED.labels(self._name).inc()
                log.exception("store: %s: %s; points wait in the spool", type(error).__name__, error)
                await asyncio.sleep(min(0.1 * 2**failures, 5.0))
                self._wake.set()
            if self._stopping and not self._queue:
                return

    async def _some(self) -> bool:
        """Write up to WRITE_AT_MOST points; False when there is nothing to write."""
        if not self._queue:
            for spool in list(self._spools.values()):
                if spool.behind and await self._catch_up(spool):
                    return True
            return False
        pieces: list[_Piece] = []
        count = 0
        while self._queue and (not pieces or count + len(self._queue[0].points) <= WRITE_AT_MOST):
            piece = self._queue.popleft()
            pieces.append(piece)
            count += len(piece.points)
        try:
            await self._write(pieces)
        except Exception:
            self._queue.extendleft(reversed(pieces))
            raise
        self._held = max(0, self._held - count)
        if count < SMALL:
            # Under a trickle, every write is a transaction and two changes of threads: let a few points gather.
            await asyncio.sleep(GAP_S)
        return True

    async def _catch_up(self, spool: _Spool) -> bool:
        """Write the next part of a spool; False when memory has all that is left."""
        keys = spool.owned.keys
        spool.missed = 0
        told = len(spool.after)
        read: list[tuple[Argument, ...]] = [("XRANGE", keys.points, b"(" + spool.written, "+", "COUNT", 50)]
        reply = (await self._wire.execute(read))[0]
        if failed(reply):
            raise RedisConnectionError(str(reply))
        if not reply:
            # Whatever was spooled before the look is in the store, also what nobody had told us of then.
            await self._send([line for _ in range(told) for line in spool.after.popleft()[1]])
            spool.behind = spool.missed > 0
            return spool.behind
        pieces: list[_Piece] = []
        count = 0
        for id, fields in reply:
            points = _decode(fields[1])
            count += len(points)
            if pieces and count > WRITE_AT_MOST:
                break
            pieces.append(_Piece(keys.number, id, points, []))
        reached = _order(pieces[-1].last_id)
        while spool.after and _order(spool.after[0][0]) <= reached:
            pieces[-1].after += spool.after.popleft()[1]
        await self._write(pieces)
        return True

    async def _write(self, pieces: list[_Piece]) -> None:
        points = [point for piece in pieces for point in piece.points]
        numbers = [piece.number for piece in pieces for _ in piece.points]
        started = time.perf_counter()
        try:
            await self._store.write(points)
        except PointsRefused as error:
            await self._bury([(numbers[i], points[i], reason) for i, reason in error.refused])
        metrics.STORE_S.observe(time.perf_counter() - started)
        metrics.POINTS.labels(self._name).inc(len(points))
        await self._trim(pieces)

    async def _trim(self, pieces: list[_Piece]) -> None:
        """Take what is in the store out of the spools, and tell those who wait for it."""
        upto: dict[int, bytes] = {}
        commands: list[tuple[Argument, ...]] = []
        for piece in pieces:
            if piece.number in self._spools:
                upto[piece.number] = piece.last_id
        for number, last_id in upto.items():
            spool = self._spools[number]
            spool.written = last_id
            keys = spool.owned.keys
            commands.append(call(TRIM, (keys.points, keys.spooled), last_id, following(last_id)))
        commands += [line for piece in pieces for line in piece.after]
        await self._send(commands)

    async def _send(self, commands: list[tuple[Argument, ...]]) -> list[Reply]:
        return await self._wire.execute(commands) if commands else []

    async def _bury(self, refused: list[tuple[int, Point, str]]) -> None:
        """Points that the store will never take become dead letters with its reason."""
        commands: list[tuple[Argument, ...]] = []
        for number, point, reason in refused:
            spool = self._spools.get(number)
            if spool is None:
                continue
            id = f"{point.device}:{point.key}:{point.ts_ms}"
            message = Message(
                id=id, ts_ms=point.ts_ms, tenant=point.tenant, type="POST_TELEMETRY_REQUEST",
                originator=point.device, data={point.key: _shown(point.value)},
            )  # fmt: skip
            letter = encode(DeadLetter(id, message, "", "", 0, f"store refused the point: {reason}", now_ms()))
            keys = spool.owned.keys
            commands += [
                ("HSET", keys.dead, id, letter),
                ("ZADD", keys.index("dead", point.tenant), now_ms(), id),
                ("INCRBY", keys.dead_bytes, len(letter)),
            ]
        for reply in await self._send(commands):
            if failed(reply):
                # Without a letter the point must stay in the spool.
                raise RedisConnectionError(str(reply))
        metrics.DEAD.labels("store").inc(len(commands) // 3)


def _shown(value: object) -> object:
    """A value that msgpack can hold, for the dead letter."""
    return str(value) if isinstance(value, int) and not -(2**63) <= value < 2**64 else value


def _order(id: bytes) -> tuple[int, int]:
    ms, _, sequence = id.partition(b"-")
    return int(ms), int(sequence)


def following(id: bytes) -> bytes:
    """The stream id right after `id`."""
    ms, _, sequence = id.partition(b"-")
    return b"%s-%d" % (ms, int(sequence) + 1)
