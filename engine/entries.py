"""Stream entries: how messages travel. Pure.

An entry of new messages has one field `m`: msgpack [version, groups], a group being [tenant, count, bytes]; the bytes
are a msgpack array of messages, so that a tenant's part is a slice which nobody has to decode to set it aside.
An entry that brings a parked message back has the fields `p` (Parked) and `r` (Resumed).
An entry of the spool has one field `b`: a msgpack array of points, or its zlib stream (which begins with another byte).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from engine.errors import RulemillError
from engine.message import WIRE_VERSION, Message, Point
from engine.node import Resumed

MAX_MESSAGES = 100
MAX_BYTES = 1 << 20
MAX_POINTS: Final = 2000
"""Points in one entry of a spool."""
MAX_POINTS_BYTES: Final = 256 << 10
"""Their bytes before zipping, unless a single point has more: who reads a few entries knows what may come."""
ZIP_FROM_BYTES: Final = 256
_ZLIB: Final = b"\x78"
"""How a zlib stream begins; no msgpack array does."""
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)
"""What msgspec says of bytes that are no such thing; the second of text in them that is not UTF-8."""

_encoder = msgspec.msgpack.Encoder()
_messages = msgspec.msgpack.Decoder(list[Message])
_points = msgspec.msgpack.Decoder(list[Point])
_entry = msgspec.msgpack.Decoder(tuple[int, list[tuple[str, int, bytes]]])


class Parked(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message that waits durably. `kind`: "call" (outbox), "timer", or "answer" (an answer may beat the timer)."""

    id: str
    message: Message
    kind: str
    due_ms: int
    order: int
    """Grows with every parking of the partition: what waits for one outward node goes in this order."""
    attempts: int = 0
    since_ms: int = 0


class LaneItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message in a lane, with what it is to be run as."""

    message: Message
    resumed: Resumed | None = None
    attempts: int = 0
    since_ms: int = 0


class UnknownEntryError(RulemillError):
    """Something stored that this release cannot read; it stays where it is until one that can takes over."""


_parked = msgspec.msgpack.Decoder(Parked)
_resumed = msgspec.msgpack.Decoder(Resumed)


class Item(NamedTuple):
    """One thing to run: a message, new or come back."""

    message: Message
    resumed: Resumed | None = None
    attempts: int = 0
    since_ms: int = 0


def encode(value: object) -> bytes:
    """Any of the structs above, or plain data, as msgpack."""
    return _encoder.encode(value)


def pack_entry(groups: Iterable[tuple[str, Sequence[bytes]]]) -> bytes:
    """An entry's `m` field from encoded messages grouped by tenant."""
    return _encoder.encode(
        (WIRE_VERSION, [(tenant, len(messages), _array(messages)) for tenant, messages in groups]),
    )


def pack_messages(messages: Sequence[Message]) -> bytes:
    """An entry's `m` field from messages of one tenant."""
    return pack_entry([(messages[0].tenant, [_encoder.encode(message) for message in messages])])


def _array(parts: Sequence[bytes]) -> bytes:
    return b"\xdd" + len(parts).to_bytes(4, "big") + b"".join(parts)


def unpack_entry(fields: Sequence[bytes]) -> list[Item]:
    """What an entry holds, from its flat field list; UnknownEntryError if it is not of this version."""
    try:
        if fields[0] == b"m":
            version, groups = _entry.decode(fields[1])
            if version != WIRE_VERSION:
                raise UnknownEntryError(f"entry of version {version}, this release reads {WIRE_VERSION}")
            return [Item(message) for _, _, blob in groups for message in _messages.decode(blob)]
        if fields[0] == b"p":
            parked = _parked.decode(fields[1])
            return [Item(parked.message, _resumed.decode(fields[3]), parked.attempts, parked.since_ms)]
    except _UNREADABLE as error:
        raise UnknownEntryError(f"entry cannot be read: {error}") from error
    raise UnknownEntryError(f"entry with a field {fields[0]!r}")


def decode_parked(blob: bytes) -> Parked:
    """A parked message as it stands in Redis; UnknownEntryError if this release cannot read it."""
    try:
        return _parked.decode(blob)
    except _UNREADABLE as error:
        raise UnknownEntryError(f"parked message cannot be read: {error}") from error


def pack_points(points: Sequence[Point], *, zipped: bool = False) -> list[bytes]:
    """Entries of a spool. Zipped they take a fifth to a seventh, for some 0.15 µs a point (from 100 points on)."""
    blobs = [blob for i in range(0, len(points), MAX_POINTS) for blob in _cut(points[i : i + MAX_POINTS])]
    return [zlib.compress(blob, 1) if len(blob) >= ZIP_FROM_BYTES else blob for blob in blobs] if zipped else blobs


def _cut(points: Sequence[Point]) -> list[bytes]:
    blob = _encoder.encode(points)
    if len(blob) <= MAX_POINTS_BYTES or len(points) == 1:
        return [blob]
    half = len(points) // 2
    return _cut(points[:half]) + _cut(points[half:])


def unpack_points(blob: bytes) -> tuple[list[Point], int]:
    """The points of a spool's entry, and their bytes unzipped; UnknownEntryError if this release cannot read it."""
    try:
        plain = zlib.decompress(blob) if blob[:1] == _ZLIB else blob
        return _points.decode(plain), len(plain)
    except (*_UNREADABLE, zlib.error) as error:
        raise UnknownEntryError(f"points cannot be read: {error}") from error


def id_order(id: bytes) -> tuple[int, int]:
    """What sorts stream ids."""
    ms, _, sequence = id.partition(b"-")
    return int(ms), int(sequence)


def following(id: bytes) -> bytes:
    """The stream id right after `id`."""
    ms, _, sequence = id.partition(b"-")
    return b"%s-%d" % (ms, int(sequence) + 1)
