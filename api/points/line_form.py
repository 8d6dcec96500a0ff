"""Points as InfluxDB's line protocol, with times in milliseconds: what the InfluxDB store itself writes (G-16)."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Final

from api.points.reading import (
    MOST_BYTES,
    NO_TENANT,
    Read,
    bad,
    checked,
    double_of,
    is_double,
    is_long,
    json_of,
    long_of,
    physical_line,
)
from engine.errors import BadInput
from engine.message import Point
from engine.stores.line_protocol import MEASUREMENT, Encoder, shown_name

PRECISIONS: Final = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 1_000_000)}
"""Unit of times to what makes them milliseconds: multiply, then divide."""

HEADS_MOST: Final = 100_000
"""Series whose names are kept, so that they are not read again in each line."""

_HEAD: Final = re.compile(r"((?:[^\\ ]|\\.)*) +", re.DOTALL)
_HEAD_BYTES: Final = re.compile(rb"(?:[^\\ ]|\\.)* +", re.DOTALL)
_ESCAPED_BYTE: Final = re.compile(rb"\\.", re.DOTALL)
_TAG: Final = re.compile(r",((?:[^\\,=]|\\.)+)=((?:[^\\,=]|\\.)+)", re.DOTALL)
_FIELD: Final = re.compile(r'([A-Za-z]+)=("[^"\\]*(?:\\.[^"\\]*)*"|[^",= ]+)(,| +|$)', re.DOTALL)
_ESCAPED_TAG: Final = re.compile(r"\\([,= ])")
_ESCAPED_TEXT: Final = re.compile(r'\\(["\\])')
_TRUE: Final = frozenset({"t", "T", "true", "True", "TRUE"})
_FALSE: Final = frozenset({"f", "F", "false", "False", "FALSE"})


class Writer:
    """Writes points as lines."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._encoder = file, Encoder()

    def write(self, points: Sequence[Point]) -> list[tuple[int, str]]:
        """Write the points; those that no line can hold are returned as index and reason."""
        made = self._encoder.encode(points)
        if made.lines:
            self._file.write("\n".join(made.lines).encode() + b"\n")
        return made.refused

    def close(self) -> None:
        """Nothing is held back."""


def read(file: BinaryIO, tenant: str, precision: str = "ms") -> Iterator[Read]:
    """Points of lines; `tenant` is for those that name none."""
    multiply, divide = PRECISIONS[precision]
    heads: dict[str, tuple[str, str, str]] = {}
    for number, text in _records(file):
        if isinstance(text, BadInput):
            yield bad(number, text.reason)
            continue
        try:
            point = _number(text, tenant, heads) or _point(text, tenant)
        except BadInput as error:
            yield bad(number, error.reason)
            continue
        if (multiply, divide) != (1, 1):
            point = Point(
                point.tenant, point.device, point.key, point.ts_ms * multiply // divide, point.value,
                point.lat, point.lon,
            )  # fmt: skip
        yield checked(number, point)


def _number(text: str, tenant: str, heads: dict[str, tuple[str, str, str]]) -> Point | None:
    """The point of a line with nothing but a number in it, as most have and as we write them; None for any other."""
    if "\\" in text:
        return None
    head, _, rest = text.partition(" ")
    names = heads.get(head)
    fields, _, time = rest.partition(" ")
    if not is_long(time):
        return None
    if fields.startswith("d=") and fields.endswith(',t="d"'):
        value: Any = fields[2:-6]
        if not is_double(value):
            return None
        value = float(value)
    elif fields.startswith("l=") and fields.endswith('i,t="l"'):
        value = fields[2:-7]
        if not is_long(value):
            return None
        value = int(value)
    else:
        return None
    if names is None:
        tags = _tags(head)
        names = tags.get("tenant", tenant), tags.get("device", ""), tags.get("key", "")
        if not all(names):
            return None
        if len(heads) > HEADS_MOST or len(head) > 1000:
            heads.clear()
        heads[head] = names
    return Point(*names, int(time), value)


def _records(file: BinaryIO) -> Iterator[tuple[int, str | BadInput]]:
    """Lines that say something, with their number. Texts may have line ends in them: such lines are put together."""
    back: deque[bytes] = deque()
    number = 0
    while True:
        number += 1
        try:
            line = back.popleft() if back else physical_line(file)
        except BadInput as error:
            yield number, error
            continue
        if not line:
            return
        if not line.strip() or line.startswith(b"#"):
            continue
        parts = [line]
        if _ends_in_text(line):
            parts += _rest_of_text(file, back, len(line))
        text = _decoded(parts)
        if len(parts) > 1 and not _parses(text):
            # One line is broken, and not those behind it.
            back.extendleft(reversed(parts[1:]))
            parts = parts[:1]
            text = _decoded(parts)
        yield number, text
        number += len(parts) - 1


def _rest_of_text(file: BinaryIO, back: deque[bytes], size: int) -> Iterator[bytes]:
    """Lines up to the one in which a text ends."""
    while size < MOST_BYTES:
        try:
            line = back.popleft() if back else physical_line(file)
        except BadInput:
            return
        if not line:
            return
        yield line
        size += len(line)
        if _quotes(line) % 2:
            return


def _ends_in_text(line: bytes) -> bool:
    """Whether a text of the line's fields goes on behind it; in names, quotes mean nothing."""
    if b"\\" not in line:
        return line.partition(b" ")[2].count(b'"') % 2 == 1
    head = _HEAD_BYTES.match(line)
    return head is not None and _quotes(line[head.end() :]) % 2 == 1


def _quotes(part: bytes) -> int:
    return (_ESCAPED_BYTE.sub(b"", part) if b"\\" in part else part).count(b'"')


def _decoded(parts: Sequence[bytes]) -> str:
    return b"".join(parts).decode(errors="surrogateescape").removesuffix("\n").removesuffix("\r")


def _parses(text: str) -> bool:
    try:
        _point(text, "-")
    except BadInput:
        return False
    return True


def _point(text: str, tenant: str) -> Point:
    head = _HEAD.match(text)
    if head is None:
        raise BadInput("is no line protocol: no fields")
    tags = _tags(head[1])
    fields, time = _fields(text, head.end())
    tenant = tags.get("tenant", tenant)
    if not tenant:
        raise BadInput(NO_TENANT)
    for name in ("device", "key"):
        if name not in tags:
            raise BadInput(f"has no tag {name}")
    if not time:
        raise BadInput("has no time")
    lat, lon = (double_of(fields[name]) if name in fields else None for name in ("lat", "lon"))
    return Point(tenant, tags["device"], tags["key"], long_of(time), _value(fields), lat, lon)


def _tags(head: str) -> dict[str, str]:
    measurement, _, _ = head.partition(",")
    if measurement != MEASUREMENT:
        raise BadInput(f"is of the measurement {measurement[:40]!r}; points are those of {MEASUREMENT}")
    found = {}
    at = len(measurement)
    while at < len(head):
        tag = _TAG.match(head, at)
        if tag is None:
            raise BadInput(f"is no line protocol at column {at + 1}: no tag")
        found[_ESCAPED_TAG.sub(r"\1", tag[1])] = shown_name(_ESCAPED_TAG.sub(r"\1", tag[2]))
        at = tag.end()
    return found


def _fields(text: str, at: int) -> tuple[dict[str, str], str]:
    """Fields as they stand, and what comes behind them."""
    found = {}
    while True:
        field = _FIELD.match(text, at)
        if field is None:
            raise BadInput(f"is no line protocol at column {at + 1}: no field")
        found[field[1]] = field[2]
        at = field.end()
        if field[3] != ",":
            return found, text[at:].strip()


def _value(fields: dict[str, str]) -> Any:
    kind = _unquoted(fields["t"])[:1] if "t" in fields else next((name for name in "ldbsj" if name in fields), "")
    given = fields.get(kind or " ")
    if given is None:
        raise BadInput("has no value: one of the fields l, d, b, s and j")
    match kind:
        case "l":
            return long_of(given.removesuffix("i"))
        case "d":
            return double_of(given)
        case "b" if given in _TRUE or given in _FALSE:
            return given in _TRUE
        case "s":
            return _unquoted(given)
        case "j":
            return json_of(_unquoted(given))
    raise BadInput(f"the field {kind} cannot be {given[:40]}")


def _unquoted(given: str) -> str:
    if not given.startswith('"'):
        raise BadInput(f"{given[:40]} is no text")
    return _ESCAPED_TEXT.sub(r"\1", given[1:-1])
