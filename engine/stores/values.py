"""What a point's or an attribute's value may be, with its type letter. Every store holds to this, so that none lies."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any, Final

from engine.errors import BadInput
from engine.message import Point

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1

MAX_TS_MS: Final = 9_223_372_036_853
"""The latest time of a point, and negated the earliest: what a store that counts nanoseconds in 64 bits can hold."""

MAX_NAME_BYTES: Final = 4096
"""Of a tenant's, a device's or a key's name as UTF-8."""

LETTERS: Final[dict[type, str]] = {bool: "b", int: "l", float: "d", str: "s", dict: "j", list: "j"}
"""Python type to type letter: boolean, long, double, string, JSON. 42.0 stays double, 73 long (`G-16`, `TB-4`)."""

_dump = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def letter(value: Any) -> str:
    """The type letter of a value that a store can hold; raises BadInput for any other value."""
    reason = problem(value)
    if reason is not None:
        raise BadInput(reason)
    return LETTERS[type(value)]


def json_text(value: Any) -> str:
    """A dict or list as JSON text; raises BadInput for what JSON cannot say, NaN and infinity among it."""
    try:
        text = _dump(value)
    except (TypeError, ValueError) as error:
        raise BadInput(f"not JSON: {error}") from error
    except RecursionError as error:
        raise BadInput("not JSON: nested too deeply") from error
    if not encodes(text):
        raise BadInput("not JSON: holds half a surrogate pair")
    return text


def problem(value: Any) -> str | None:
    """Why no store can hold the value; None when they can."""
    kind = type(value)
    if kind is float:
        return None if isfinite(value) else f"{value} is not a finite number"
    if kind is bool:
        return None
    if kind is int:
        return None if INT64_MIN <= value <= INT64_MAX else "integer does not fit into 64 bits"
    if kind is str:
        return None if encodes(value) else "text holds half a surrogate pair"
    if kind is dict or kind is list:
        try:
            json_text(value)
        except BadInput as error:
            return error.reason
        return None
    return f"a value cannot be of type {kind.__name__}"


def point_problem(point: Point) -> str | None:
    """Why no store can hold the point; None when they can."""
    for what, name in (("tenant", point.tenant), ("device", point.device), ("key", point.key)):
        if not is_name(name):
            return f"{what} is not a name of 1 to {MAX_NAME_BYTES} bytes: {ascii(name)[:60]}"
    if type(point.ts_ms) is not int or not -MAX_TS_MS <= point.ts_ms <= MAX_TS_MS:
        return f"timestamp is not a whole number of milliseconds within {MAX_TS_MS} of 1970: {_shown(point.ts_ms)}"
    for what, degrees in (("lat", point.lat), ("lon", point.lon)):
        if degrees is not None and not is_degrees(degrees):
            return f"{what} is not a finite number: {_shown(degrees)}"
    reason = problem(point.value)
    return None if reason is None else f"key {point.key!r}: {reason}"


def is_name(text: Any) -> bool:
    """Whether a tenant, a device or a key can be called so: text of 1 to `MAX_NAME_BYTES` bytes of UTF-8."""
    if type(text) is not str or not text or len(text) > MAX_NAME_BYTES:
        return False
    return text.isascii() or (encodes(text) and len(text.encode()) <= MAX_NAME_BYTES)


def held_range(start_ms: int, end_ms: int) -> tuple[int, int]:
    """The part of start <= ts < end that points can be in; (0, 0) for none."""
    start_ms, end_ms = max(start_ms, -MAX_TS_MS), min(end_ms, MAX_TS_MS + 1)
    return (start_ms, end_ms) if start_ms < end_ms else (0, 0)


def is_degrees(value: Any) -> bool:
    """Whether a latitude or longitude is a number that a double can hold."""
    try:
        return type(value) in (float, int) and isfinite(value)
    except OverflowError:
        return False


def encodes(text: str) -> bool:
    """Whether text can be written as UTF-8: it holds no half of a surrogate pair."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: Any) -> str:
    """A value for a message; an integer of thousands of digits has no text."""
    return "a huge integer" if type(value) is int and not INT64_MIN <= value <= INT64_MAX else repr(value)
