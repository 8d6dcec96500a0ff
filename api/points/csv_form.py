"""Points as CSV: a line of titles, then a line for each point, values with their types.

A text that a spreadsheet would take for a formula gets an apostrophe in front; so does one that begins with an
apostrophe, so that what was there is known again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

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
            point.device, guarded(names.get(point.device, "")), guarded(point.key), point.ts_ms, iso(point.ts_ms),
            kind, value, point.lat, point.lon,
        )  # fmt: skip


STREAM_TITLES: Final = ("device", "name", "key", "ts_ms", "time", "type", "value", "lat", "lon")
