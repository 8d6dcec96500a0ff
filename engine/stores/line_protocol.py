"""Points as lines of InfluxDB's line protocol: `ts_kv,device=…,key=…,tenant=… d=21.5,t="d" 1451649600512` (G-16).

A value stands in the field of its type, and `t` names that field: when a point is sent again with another type,
InfluxDB keeps the fields of both, and only `t` says which was last. So it does with the place: `t` has one more letter
where the point has one (`g`: lat and lon, `a`: lat alone, `o`: lon alone).

Tag values can hold neither a line feed nor a backslash at their end, and InfluxQL no text with a NUL or a carriage
return. So names are stored with their control characters and backslashes as `%` and two hex digits a byte, and with
`%25` for a `%` before two such digits. Any other name is stored as it is, `%` or not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isfinite
from typing import Final, NamedTuple

from engine.errors import BadInput
from engine.message import Point
from engine.stores.values import INT64_MAX, INT64_MIN, MAX_TS_MS, encodes, is_degrees, is_name, json_text, point_problem

MEASUREMENT: Final = "ts_kv"

PLACES: Final = {(True, True): "g", (True, False): "a", (False, True): "o"}
"""What is behind the type letter in `t`, by whether the point has a lat and a lon."""

_HEADS_KEPT: Final = 100_000
_KEPT_LENGTH: Final = 500

_UNSTORABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\\]|%(?=[0-9A-F]{2})")
_STORED: Final = re.compile(r"(?:%[0-9A-F]{2})+")
_TAG_ESCAPES: Final = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})
_TEXT_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\""})


class Lines(NamedTuple):
    """Encoded points: `of[i]` is the index of the point that `lines[i]` came of; `refused` pairs index and reason."""

    lines: list[str]
    of: list[int]
    refused: list[tuple[int, str]]


def last_only(points: Sequence[Point], lines: Lines) -> Lines:
    """Of lines for the same point the last one: for servers that promise no order within a request."""
    last = {(points[i].tenant, points[i].device, points[i].key, points[i].ts_ms): n for n, i in enumerate(lines.of)}
    if len(last) == len(lines.of):
        return lines
    kept = sorted(last.values())
    return Lines([lines.lines[n] for n in kept], [lines.of[n] for n in kept], lines.refused)


def stored_name(name: str) -> str:
    """A tenant's, device's or key's name as it stands in InfluxDB."""
    return _UNSTORABLE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), name)


def shown_name(stored: str) -> str:
    """The name that `stored_name` was given."""
    return _STORED.sub(_unescaped, stored) if "%" in stored else stored


class Encoder:
    """Encodes points; keeps the heads of the last lines, by name."""

    def __init__(self) -> None:
        self._heads: dict[tuple[str, str, str], str] = {}

    def encode(self, points: Sequence[Point]) -> Lines:
        """The lines of points in their order; one that no line can hold is refused with the reason."""
        if len(self._heads) > _HEADS_KEPT:
            self._heads.clear()
        heads, texts = self._heads, _text
        lines: list[str] = []
        of: list[int] = []
        refused: list[tuple[int, str]] = []
        for i, point in enumerate(points):
            value, ts_ms = point.value, point.ts_ms
            kind = type(value)
            names = (point.tenant, point.device, point.key)
            try:
                head = heads[names]
            except KeyError:
                head = _head(*names)
                if len(head) <= _KEPT_LENGTH:
                    heads[names] = head
            except TypeError:  # a list for a name
                head = ""
            if kind is float and isfinite(value):
                field = f'd={value!r},t="d'
            elif kind is int and INT64_MIN <= value <= INT64_MAX:
                field = f'l={value}i,t="l'
            else:
                field = texts(value)
            if not head or not field or type(ts_ms) is not int or not -MAX_TS_MS <= ts_ms <= MAX_TS_MS:
                refused.append((i, _reason(point)))
            elif point.lat is None and point.lon is None:
                lines.append(f'{head}{field}" {ts_ms}')
                of.append(i)
            elif place := _place(point):
                lines.append(f"{head}{field}{place} {ts_ms}")
                of.append(i)
            else:
                refused.append((i, _reason(point)))
        return Lines(lines, of, refused)


def _head(tenant: str, device: str, key: str) -> str:
    """Measurement and tags; empty when the names cannot be.

    The longest names, with every byte of them escaped, stay below the 65,535 bytes that InfluxDB has for them.
    """
    if not (is_name(tenant) and is_name(device) and is_name(key)):
        return ""
    return f"{MEASUREMENT},device={_tag(device)},key={_tag(key)},tenant={_tag(tenant)} "


def _tag(name: str) -> str:
    return stored_name(name).translate(_TAG_ESCAPES)


def _text(value: object) -> str:
    """The fields of a value that is not a number, up to the letter of `t`; empty when it cannot be."""
    if value is True:
        return 'b=true,t="b'
    if value is False:
        return 'b=false,t="b'
    if type(value) is str:
        return f's="{value.translate(_TEXT_ESCAPES)}",t="s' if encodes(value) else ""
    if type(value) is dict or type(value) is list:
        try:
            return f'j="{json_text(value).translate(_TEXT_ESCAPES)}",t="j'
        except BadInput:
            return ""
    return ""


def _place(point: Point) -> str:
    """The rest of `t`, then the place; empty when it cannot be."""
    fields = ""
    for what, degrees in (("lat", point.lat), ("lon", point.lon)):
        if degrees is None:
            continue
        if not is_degrees(degrees):
            return ""
        fields += f",{what}={float(degrees)!r}"
    return f'{PLACES[point.lat is not None, point.lon is not None]}"{fields}'


def _reason(point: Point) -> str:
    return point_problem(point) or "no line can hold the point"


def _unescaped(found: re.Match[str]) -> str:
    raw = bytes.fromhex(found[0].replace("%", ""))
    try:
        return raw.decode()
    except UnicodeDecodeError:  # not written by us
        return found[0]
