"""A tenant's list over all partitions: one sorted set in each, read as one, the newest first, a page at a time."""

from __future__ import annotations

import base64
import binascii
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError

from engine.errors import BadInput
from engine.wire import Argument, Wire, failed

AT_ONCE: Final = 200
"""Members read of one partition in one go."""


class Entry(NamedTuple):
    """A member of the list: its score (milliseconds), its name, and the number of the partial index it stands in."""

    score: float
    member: bytes
    part: int

    def cursor(self) -> str:
        """Text from which the list goes on behind this entry."""
        packed = msgspec.msgpack.encode((self.score, self.member))
        return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


_cursor: Final = msgspec.msgpack.Decoder(tuple[float, bytes])


def read_cursor(text: str) -> tuple[float, bytes]:
    """Score and member that a cursor stands behind; BadInput for text that is none."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return _cursor.decode(raw)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise BadInput("not a cursor") from error


@dataclass(slots=True)
class _Part:
    """One index, read as far as it was needed."""

    key: str
    number: int
    offset: int = 0
    ended: bool = False
    read: deque[Entry] = field(default_factory=deque)


class MergedIndex:
    """One walk over the list, from the newest entry or from behind a cursor. Equal scores go by name, Z to A."""

    def __init__(self, wire: Wire, keys: Sequence[str], cursor: str = "") -> None:
        self._wire = wire
        self._parts = [_Part(key, number) for number, key in enumerate(keys)]
        self._behind = read_cursor(cursor) if cursor else None

    async def next(self, count: int) -> list[Entry]:
        """The next entries, at most `count`; fewer only at the end. One round trip per 200 entries of a partition."""
        taken: list[Entry] = []
        while len(taken) < count:
            await self._fill()
            heads = [part for part in self._parts if part.read]
            if not heads:
                break
            newest = max(heads, key=lambda part: part.read[0][:2])
            taken.append(newest.read.popleft())
        return taken

    async def _fill(self) -> None:
        """Read on wherever nothing is at hand: without a head of every part nobody knows which entry is next."""
        while hungry := [part for part in self._parts if not part.read and not part.ended]:
            high: Argument = "+inf" if self._behind is None else self._behind[0]
            replies = await self._wire.execute(
                [
                    ("ZREVRANGEBYSCORE", part.key, high, "-inf", "WITHSCORES", "LIMIT", part.offset, AT_ONCE)
                    for part in hungry
                ]
            )
            for part, flat in zip(hungry, replies, strict=True):
                if failed(flat):
                    raise RedisConnectionError(str(flat))
                part.offset += len(flat) // 2
                part.ended = len(flat) < 2 * AT_ONCE
                for i in range(0, len(flat), 2):
                    entry = Entry(float(flat[i + 1]), flat[i], part.number)
                    if self._behind is None or entry[:2] < self._behind:
                        part.read.append(entry)
