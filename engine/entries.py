"""Stream entries: how messages travel. Pure.

An entry of new messages has one field `m`: msgpack [version, groups], a group being [tenant, count, bytes]; the bytes
are a msgpack array of messages, so that a tenant's part is a slice which nobody has to decode to set it aside.
An entry that brings a parked message back has the fields `p` (Parked) and `r` (Resumed).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from engine.errors import RulemillError
from engine.message import WIRE_VERSION, Message
from engine.node import Resumed

MAX_MESSAGES = 100
MAX_BYTES = 1 << 20

_encoder = msgspec.msgpack.Encoder()
_messages = msgspec.msgpack.Decoder(list[Message])
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
    except msgspec.DecodeError as error:
        raise UnknownEntryError(f"entry cannot be read: {error}") from error
    raise UnknownEntryError(f"entry with a field {fields[0]!r}")


def decode_parked(blob: bytes) -> Parked:
    """A parked message as it stands in Redis; UnknownEntryError if this release cannot read it."""
    try:
        return _parked.decode(blob)
    except msgspec.DecodeError as error:
        raise UnknownEntryError(f"parked message cannot be read: {error}") from error
