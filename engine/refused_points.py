"""Points that the store will never take become dead letters with its reason."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from redis.exceptions import ConnectionError as RedisConnectionError

from engine import metrics
from engine.commit import letter_lines
from engine.effects import DeadLetter
from engine.message import Message, Point, now_ms
from engine.partitions import Keys
from engine.wire import Argument, Reply, Wire, failed

STORE_REFUSED: Final = "store refused the point: "
"""How the reason begins, before the store's own."""


class RefusedPoint(NamedTuple):
    """A point, the keys of its partition, and why the store does not take it."""

    keys: Keys
    point: Point
    reason: str


async def bury(wire: Wire, refused: Sequence[RefusedPoint]) -> None:
    """Keep them as dead letters, the same point in one; RedisConnectionError if one of them is not kept."""
    ids = [_id_of(one.point) for one in refused]
    lengths = await _told(wire, [("HSTRLEN", one.keys.dead, id) for one, id in zip(refused, ids, strict=True)])
    lines: list[tuple[Argument, ...]] = []
    seen: set[tuple[int, str]] = set()
    for one, id, length in zip(refused, ids, lengths, strict=True):
        if (one.keys.number, id) not in seen:
            seen.add((one.keys.number, id))
            lines += letter_lines(one.keys, _letter(id, one), length)
    await _told(wire, lines)
    metrics.DEAD.labels("store").inc(len(seen))


def _letter(id: str, refused: RefusedPoint) -> DeadLetter:
    point = refused.point
    message = Message(
        id=id, ts_ms=point.ts_ms, tenant=point.tenant, type="POST_TELEMETRY_REQUEST", originator=point.device,
        data={point.key: _shown(point.value)},
    )  # fmt: skip
    return DeadLetter(id, message, "", "", 0, STORE_REFUSED + refused.reason, now_ms())


def _id_of(point: Point) -> str:
    """The same for the same point, another for any other; fit for a URL, whatever the key is called."""
    place = "\0".join((point.tenant, point.device, point.key, str(point.ts_ms)))
    return "point-" + hashlib.blake2b(place.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _shown(value: object) -> object:
    """A value that msgpack can hold."""
    return str(value) if isinstance(value, int) and not -(2**63) <= value < 2**64 else value


async def _told(wire: Wire, commands: Sequence[tuple[Argument, ...]]) -> list[Reply]:
    replies = await wire.execute(commands)
    for reply in replies:
        if failed(reply):
            raise RedisConnectionError(str(reply))
    return replies
