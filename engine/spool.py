"""Spools: what a worker knows of its partitions' points in Redis, and how it reads them back."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from redis.exceptions import ConnectionError as RedisConnectionError

from engine.commit import Awaiting
from engine.entries import UnknownEntryError, following, id_order, unpack_points
from engine.leases import Owned
from engine.message import Point
from engine.redis_scripts import READ, TRIM
from engine.wire import Argument, Reply, Wire, call, failed

log = logging.getLogger("rulemill.spool")

READ_POINTS: Final = 20_000
"""Points that one read is to bring, over all spools."""
READ_BYTES: Final = 4 << 20
READ_AT_LEAST, READ_AT_MOST = 64, 4096
"""Entries asked of all spools."""

_NO_ID: Final = b"18446744073709551615-18446744073709551615"


@dataclass(slots=True)
class Spool:
    """What the writer knows of a partition's spool."""

    owned: Owned
    read: bytes = b"0-0"
    """Everything up to this entry is in memory, or in the store."""
    behind: bool = True
    """Memory does not have what comes after `read`."""
    missed: int = 0
    """Commits whose points were not kept in memory since the last look into the spool."""
    waiting: deque[tuple[bytes, list[Awaiting]]] = field(default_factory=deque)
    """Who waits for the points of such commits, by their entry."""
    stuck: bool = False
    """It holds an entry that this release cannot read: left alone, for one that can."""

    def fall_behind(self, spooled_id: bytes, after: list[Awaiting]) -> None:
        """Leave a commit's points in the spool; `spooled_id` is empty if it was not told."""
        self.behind = self.owned.store_behind = True
        self.missed += 1
        if after:
            self.waiting.append((spooled_id or _NO_ID, after))

    def caught_up(self) -> None:
        """Memory has it all."""
        self.behind = self.owned.store_behind = False

    def trim_command(self, last_id: bytes) -> tuple[Argument, ...]:
        """The command that takes what is in the store out of the spool."""
        keys = self.owned.keys
        return call(TRIM, (keys.points, keys.spooled), last_id, following(last_id))


@dataclass(slots=True)
class Piece:
    """Points of one partition that are in memory, up to one entry of its spool."""

    spool: Spool
    last_id: bytes
    points: list[Point]
    size: int
    """Bytes they take in the spool, or took."""
    after: list[Awaiting] = field(default_factory=list)
    refused: dict[tuple[str, str], str] = field(default_factory=dict)
    """Tenant and device of points that the store refused, and why."""


class SpoolReader:
    """Reads spools back into memory: the head of every one that is behind, in one round trip.

    Their pieces are not mixed: the fewer series stand in a write, the less it costs InfluxDB (a tenth of its time).
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._count = READ_AT_LEAST

    async def read(self, spools: Iterable[Spool]) -> list[Piece]:
        """The next points of spools that are behind; those of which memory then has all are so no more."""
        behind = [spool for spool in spools if spool.behind and not spool.stuck]
        if not behind:
            return []
        told, commands = [], []
        for spool in behind:
            spool.missed = 0
            told.append(len(spool.waiting))
            bounds = (max(1, self._count // len(behind)), READ_BYTES // len(behind))
            commands.append(call(READ, (spool.owned.keys.points,), spool.read, *bounds))
        replies = await self._wire.execute(commands)
        for reply in replies:
            if failed(reply):
                raise RedisConnectionError(str(reply))
        pieces: list[Piece] = []
        for spool, (rows, ended), waited in zip(behind, replies, told, strict=True):
            pieces += _pieces(spool, rows, bool(ended), waited, READ_POINTS // len(behind), READ_BYTES // len(behind))
        if pieces:
            points = sum(len(piece.points) for piece in pieces)
            fitting = READ_POINTS * len(pieces) // max(points, 1)
            self._count = max(READ_AT_LEAST, min(2 * self._count, fitting, READ_AT_MOST))
        return pieces


def _pieces(spool: Spool, rows: Reply, ended: bool, told: int, most: int, most_bytes: int) -> list[Piece]:
    """What a read of one spool gave, up to `most` points and unzipped bytes: a few zipped bytes may be very many.

    `told` is how many waited for the spool's points when the read was sent.
    """
    pieces: list[Piece] = []
    for id, fields in rows:
        if most <= 0 or most_bytes <= 0:
            ended = False
            break
        try:
            points, size = unpack_points(fields[1])
        except UnknownEntryError as error:
            log.error("partition %d: the spool stops at entry %s: %s", spool.owned.keys.number, id.decode(), error)
            spool.stuck, ended = True, False
            break
        pieces.append(Piece(spool, id, points, size))
        most, most_bytes = most - len(points), most_bytes - size
    if pieces:
        spool.read = pieces[-1].last_id
    ready: list[Awaiting] = []
    while spool.waiting and (id_order(spool.waiting[0][0]) <= id_order(spool.read) or (ended and told > 0)):
        # Whatever was spooled before the read was sent is in memory now, also what nobody had told us the id of.
        ready += spool.waiting.popleft()[1]
        told -= 1
    if ready:
        pieces.append(Piece(spool, spool.read, [], 0, ready))
    if ended and not spool.missed:
        spool.caught_up()
    return pieces
