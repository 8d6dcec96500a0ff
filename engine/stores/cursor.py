"""Where a range goes on: an opaque text that holds for the tenant, devices, keys and direction it was made for."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from engine.errors import BadInput
from engine.stores.values import INT64_MAX, INT64_MIN


class Position(NamedTuple):
    """The last point that was given out; the range goes on behind it."""

    ts_ms: int
    device: str
    key: str


class _Wire(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    mark: int
    ts_ms: int
    device: str
    key: str


_decoder = msgspec.msgpack.Decoder(_Wire)


def mark(tenant: str, devices: Sequence[str], keys: Sequence[str] | None, newest_first: bool) -> int:
    """What a cursor is bound to: the query without its times and its limit, names in any order and number."""
    # A checksum guards against mix-ups, not against forgery: a forged position shows nothing but what was asked for.
    query = (tenant, sorted(set(devices)), None if keys is None else sorted(set(keys)), newest_first)
    return zlib.crc32(json.dumps(query).encode())  # as ASCII, whatever the names hold


def encode(mark: int, position: Position) -> str:
    """The cursor behind `position`, as URL-safe text."""
    wire = msgspec.msgpack.encode(_Wire(mark, *position))
    return base64.urlsafe_b64encode(wire).rstrip(b"=").decode()


def decode(mark: int, cursor: str) -> Position:
    """The position of a cursor; BadInput for text that is none, or one of another query."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        wire = _decoder.decode(raw)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise BadInput("not a cursor") from error
    if wire.mark != mark:
        raise BadInput("the cursor belongs to another query: other devices, other keys or another direction")
    if not INT64_MIN <= wire.ts_ms < INT64_MAX:
        raise BadInput("not a cursor")
    return Position(wire.ts_ms, wire.device, wire.key)
