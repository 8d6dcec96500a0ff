"""Where a range goes on: an opaque text that holds for one device of one tenant and one direction."""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import NamedTuple

import msgspec

from engine.errors import BadInput
from engine.stores.values import INT64_MAX, INT64_MIN


class Position(NamedTuple):
    """The last point that was given out; the range goes on behind it."""

    ts_ms: int
    key: str


class _Wire(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    mark: int
    ts_ms: int
    key: str


_decoder = msgspec.msgpack.Decoder(_Wire)


def encode(tenant: str, device: str, newest_first: bool, position: Position) -> str:
    """The cursor behind `position`, as URL-safe text."""
    wire = msgspec.msgpack.encode(_Wire(_mark(tenant, device, newest_first), position.ts_ms, position.key))
    return base64.urlsafe_b64encode(wire).rstrip(b"=").decode()


def decode(tenant: str, device: str, newest_first: bool, cursor: str) -> Position:
    """The position of a cursor; BadInput for text that is none, or one of another device or direction."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        wire = _decoder.decode(raw)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise BadInput("not a cursor") from error
    if wire.mark != _mark(tenant, device, newest_first):
        raise BadInput("the cursor belongs to another device or another direction")
    if not INT64_MIN <= wire.ts_ms < INT64_MAX:
        raise BadInput("not a cursor")
    return Position(wire.ts_ms, wire.key)


def _mark(tenant: str, device: str, newest_first: bool) -> int:
    # A checksum guards against mix-ups, not against forgery: a forged position shows nothing but this device's points.
    return zlib.crc32(msgspec.msgpack.encode((tenant, device, newest_first)))
