"""The format of attribute state: which field an attribute stands in, and what stands there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, get_args

import msgspec

from engine.errors import BadInput
from engine.stores.values import problem

TABLE: Final = "attr"

Scope = Literal["CLIENT", "SHARED", "SERVER"]
"""Who writes: the device itself, the server for the device to see, the server for itself."""

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

MAX_KEY: Final = 255
"""Longest attribute or telemetry key in characters (`TB-S10`)."""

_NAMED: Final[dict[str, Scope]] = {scope: scope for scope in SCOPES} | {f"{scope}_SCOPE": scope for scope in SCOPES}


class Attribute(NamedTuple):
    """A value and when it was set, in milliseconds."""

    value: Any
    ts_ms: int


class _Wire(msgspec.Struct, array_like=True):
    value: Any
    ts_ms: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Wire)


def scope_named(name: str) -> Scope:
    """`SHARED` for both `SHARED` and `SHARED_SCOPE`, and so on; raises BadInput for any other name."""
    found = _NAMED.get(name)
    if found is None:
        raise BadInput(f"no attribute scope {name!r}: it is one of {', '.join(f'{scope}_SCOPE' for scope in SCOPES)}")
    return found


def field(scope: Scope, key: str) -> str:
    """Name of the state field of an attribute; raises BadInput for an empty or too long key."""
    if not key or len(key) > MAX_KEY:
        raise BadInput(f"an attribute key has 1 to {MAX_KEY} characters, {key[:40]!r} has {len(key)}")
    return f"{scope}/{key}"


def split(name: str) -> tuple[Scope, str]:
    """Scope and key of a field name; raises BadInput for a name that `field` does not make."""
    scope, slash, key = name.partition("/")
    if not slash or not key or scope not in SCOPES:
        raise BadInput(f"not an attribute field: {name!r}")
    return _NAMED[scope], key


def encode(value: Any, ts_ms: int) -> bytes:
    """What stands in the field: msgpack of [value, ts_ms]. Raises BadInput for what is no attribute value."""
    reason = problem(value)
    if reason is None:
        try:
            return _encoder.encode((value, ts_ms))
        except OverflowError:
            reason = "an integer inside does not fit into 64 bits"
    raise BadInput(reason)


def decode(raw: bytes) -> Attribute:
    """What `encode` made, with its types."""
    wire = _decoder.decode(raw)
    return Attribute(wire.value, wire.ts_ms)


def by_scope(fields: Mapping[bytes, bytes] | Mapping[str, bytes]) -> dict[Scope, dict[str, Attribute]]:
    """A device's whole hash as scope to key to value and time; every scope is there."""
    found: dict[Scope, dict[str, Attribute]] = {scope: {} for scope in SCOPES}
    for name, raw in fields.items():
        scope, key = split(name.decode() if isinstance(name, bytes) else name)
        found[scope][key] = decode(raw)
    return found
