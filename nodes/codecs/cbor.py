"""CBOR (RFC 8949) to JSON values: data types only, nothing that builds objects."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import cbor2

from engine.errors import BadInput
from nodes.codecs.values import MAX_DEPTH, check_value

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BUILT_IN_TAGS: Final = (4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000)
"""Tags for which cbor2 makes objects, shares them, or computes: all refused (28 and 29 can make a list hold itself)."""


def decode_cbor(body: bytes) -> Any:
    """The JSON value that the one CBOR item in `body` stands for; everything in it passed `check_value`.

    Byte strings become base64 text, `undefined` null. Of tags only these are taken: 2 and 3 (big integers, which must
    fit 64 bits after all), 0 (a time as text, kept as it is), 1 (a time as seconds: RFC 3339 text, so that it cannot be
    taken for a difference) and 55799 (says that this is CBOR). Map keys must be text and must not repeat; nothing may
    follow the item. Raises BadInput, and nothing else, for any bytes.
    """
    stream = io.BytesIO(body)
    try:
        # A decoder holds what its message shared, so each message gets its own.
        value = cbor2.CBORDecoder(
            stream,
            tag_hook=_refuse_unknown,
            semantic_decoders=_TAGS,
            max_depth=MAX_DEPTH,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        ).decode()
    except cbor2.CBORDecodeError as error:
        raise BadInput(f"not CBOR: {error.__cause__ if isinstance(error.__cause__, _Refused) else error}") from None
    except (ValueError, OverflowError, MemoryError, RecursionError) as error:
        raise BadInput(f"not CBOR: {error or type(error).__name__}") from None
    if stream.tell() != len(body):
        raise BadInput(f"not CBOR: {len(body) - stream.tell()} bytes after the end of the item")
    value = _as_json(value)
    check_value(value)
    return value


class _Refused(ValueError):
    """Why a tag is not taken; cbor2 carries it as the cause of its own error."""


def _as_json(value: Any) -> Any:
    """The same with byte strings and `undefined` in their JSON form; containers are changed in place."""
    kind = type(value)
    if kind is dict:
        for key, member in value.items():
            if type(member) in _CHANGED:
                value[key] = _as_json(member)
    elif kind is list:
        for index, member in enumerate(value):
            if type(member) in _CHANGED:
                value[index] = _as_json(member)
    elif kind is bytes:
        return base64.b64encode(value).decode("ascii")
    elif value is cbor2.undefined:
        return None
    return value


_CHANGED: Final = frozenset({dict, list, bytes, type(cbor2.undefined)})


def _refuse(tag: int) -> Callable[[Any, bool], Any]:
    def decode(value: Any, immutable: bool) -> Any:
        raise _Refused(f"tag {tag} is not taken")

    return decode


def _refuse_unknown(tag: cbor2.CBORTag, immutable: bool) -> Any:
    raise _Refused(f"tag {tag.tag} is not taken")


def _time_text(value: Any, immutable: bool) -> Any:
    if type(value) is not str:
        raise _Refused("tag 0 must hold text")
    return value


def _time_number(value: Any, immutable: bool) -> Any:
    if type(value) not in (int, float):
        raise _Refused("tag 1 must hold a number")
    try:
        return (_EPOCH + timedelta(seconds=value)).isoformat().replace("+00:00", "Z")
    except (OverflowError, ValueError):
        raise _Refused("tag 1 holds a time outside the years 1 to 9999") from None


def _integer(value: Any, immutable: bool) -> Any:
    # Longer ones are refused by their length; those that fit 64 bits without the sign are left to the common check.
    if type(value) is not bytes or len(value.lstrip(b"\0")) > 8:
        raise _Refused("big integer does not fit 64 bits")
    return int.from_bytes(value, "big")


def _negative(value: Any, immutable: bool) -> Any:
    return -1 - _integer(value, immutable)


def _itself(value: Any, immutable: bool) -> Any:
    return value


_TAGS: Final[dict[int, Any]] = {
    **{tag: _refuse(tag) for tag in _BUILT_IN_TAGS},
    0: _time_text,
    1: _time_number,
    2: _integer,
    3: _negative,
    55799: _itself,
}
