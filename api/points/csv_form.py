"""Points as CSV: a line of titles, then a line for each point, values with their types.

A text that a spreadsheet would take for a formula gets an apostrophe in front; so does one that begins with an
apostrophe, so that what was there is known again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
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
    time_of,
)
from engine.errors import BadInput
from engine.message import Point
from engine.stores.values import LETTERS, json_text

TYPES: Final = {"b": "boolean", "l": "long", "d": "double", "s": "string", "j": "json"}
"""Type letter to how files name it."""
LETTER: Final = {name: letter for letter, name in TYPES.items()}

_FORMULA: Final = frozenset("=+-@\t\r\n'＝＋－＠")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def guarded(text: str) -> str:
    """The text as a cell that no spreadsheet runs."""
    return "'" + text if text[:1] in _FORMULA else text


def unguarded(cell: str) -> str:
    """The text that a cell was made from; one that nobody has guarded is taken as it is."""
    return cell[1:] if cell[:1] == "'" and cell[1:2] in _FORMULA else cell


def value_text(value: Any) -> tuple[str, str]:
    """Type and value of a point, as cells."""
    letter = LETTERS[type(value)]
    if letter == "s":
        text = guarded(value)
    elif letter == "b":
        text = "true" if value else "false"
    elif letter == "j":
        text = json_text(value)
    else:
        text = repr(value)
    return TYPES[letter], text


def iso(ts_ms: int) -> str:
    """The time in ISO 8601, UTC; empty for what lies beyond the years 1 to 9999."""
    try:
        return (_EPOCH + timedelta(milliseconds=ts_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError:
        return ""


def lines(rows: Iterable[Iterable[Any]]) -> bytes:
    """Rows as lines that end in CRLF (RFC 4180)."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def tenant_rows(points: Iterable[Point], names: Mapping[str, str]) -> Iterable[tuple[Any, ...]]:
    """Cells under STREAM_TITLES: points of one tenant, with the names of their devices by id."""
    for point in points:
        kind, value = value_text(point.value)
        yield (
            guarded(point.device), guarded(names.get(point.device, "")), guarded(point.key),
            point.ts_ms, iso(point.ts_ms), kind, value, point.lat, point.lon,
        )  # fmt: skip


STREAM_TITLES: Final = ("device", "name", "key", "ts_ms", "time", "type", "value", "lat", "lon")
FILE_TITLES: Final = ("tenant", "device", "key", "ts_ms", "time", "type", "value", "lat", "lon")


class Writer:
    """Writes points as lines, a line of titles before them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.write(lines([FILE_TITLES]))

    def write(self, points: Sequence[Point]) -> list[tuple[int, str]]:
        """Write the points; every one can be written."""
        rows = []
        for point in points:
            kind, value = value_text(point.value)
            rows.append(
                (guarded(point.tenant), guarded(point.device), guarded(point.key),
                 point.ts_ms, iso(point.ts_ms), kind, value, point.lat, point.lon)
            )  # fmt: skip
        self._file.write(lines(rows))
        return []

    def close(self) -> None:
        """Nothing is held back."""


def read(file: BinaryIO, tenant: str) -> Iterator[Read]:
    """Points of lines; `tenant` is for those that name none. BadInput where the titles do not tell what is needed.

    Needed are `device`, `key`, `value`, and `ts_ms` or `time` (ISO 8601 with an offset). Without `type`, values are
    what they look like. Other columns are left alone. Semicolons may stand for commas.
    """
    csv.field_size_limit(MOST_BYTES)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    first = text.readline(MOST_BYTES)
    titles = next(csv.reader([first], delimiter=_delimiter(first)), [])
    missing = [name for name in ("device", "key", "value") if name not in titles]
    missing += [] if "ts_ms" in titles or "time" in titles else ["ts_ms"]
    if missing:
        raise BadInput(
            f"the first line has no title {' and no title '.join(missing)}; it has {', '.join(titles)[:200]}"
        )
    rows = csv.reader(text, delimiter=_delimiter(first))
    at = {name: titles.index(name) for name in (*FILE_TITLES,) if name in titles}
    while True:
        number = rows.line_num + 2
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield bad(number, f"is no CSV: {error}")
            continue
        if row is None:
            return
        if not row:
            continue
        if len(row) != len(titles):
            yield bad(number, f"has {len(row)} cells, and the first line {len(titles)}")
            continue
        try:
            yield checked(number, _point({name: row[i] for name, i in at.items()}, tenant))
        except BadInput as error:
            yield bad(number, error.reason)


def _delimiter(first: str) -> str:
    return ";" if "," not in first and ";" in first else ","


def _point(cells: dict[str, str], tenant: str) -> Point:
    tenant = unguarded(cells.get("tenant", "")) or tenant
    if not tenant:
        raise BadInput(NO_TENANT)
    ts_ms = cells.get("ts_ms", "")
    lat, lon = (double_of(cells[name]) if cells.get(name) else None for name in ("lat", "lon"))
    at_ms = long_of(ts_ms) if ts_ms else time_of(cells.get("time", ""))
    value = _value(cells.get("type", ""), cells["value"])
    return Point(tenant, unguarded(cells["device"]), unguarded(cells["key"]), at_ms, value, lat, lon)


def _value(kind: str, cell: str) -> Any:
    if kind == "string":
        return unguarded(cell)
    if not cell:
        raise BadInput("has no value")
    lower = cell.lower()
    match kind:
        case "double":
            return double_of(cell)
        case "long":
            return long_of(cell)
        case "boolean" if lower in ("true", "false"):
            return lower == "true"
        case "json":
            return json_of(cell)
        case "":
            return _looks_like(cell, lower)
        case "boolean":
            raise BadInput(f"{cell[:40]!r} is neither true nor false")
    raise BadInput(f"{kind[:40]!r} is no type; there are {', '.join(LETTER)}")


def _looks_like(cell: str, lower: str) -> Any:
    if lower in ("true", "false"):
        return lower == "true"
    if is_long(cell):
        return long_of(cell)
    if is_double(cell):
        return double_of(cell)
    if cell[0] in "[{":
        try:
            return json_of(cell)
        except BadInput:
            return cell
    return unguarded(cell)
