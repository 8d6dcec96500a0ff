"""What every form of points in a file is read into: points with the number of their line, or why there is none."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, Final, NamedTuple

from engine.errors import BadInput
from engine.message import Point
from engine.stores.values import point_problem

MOST_BYTES: Final = 64 << 20
"""Of one line, or one value."""
NO_TENANT: Final = "has no tenant, and none was named"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LONG: Final = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
_DOUBLE: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)


class Read(NamedTuple):
    """One point of a file, or a line that is none."""

    line: int
    """Its first line, counted from 1; in Parquet the row."""
    point: Point | None
    problem: str = ""


def checked(line: int, point: Point) -> Read:
    """The point, if a store can hold it."""
    problem = point_problem(point)
    return Read(line, point) if problem is None else Read(line, None, problem)


def bad(line: int, problem: str) -> Read:
    """A line that is no point, and why."""
    return Read(line, None, problem)


def physical_line(file: BinaryIO) -> bytes:
    """The next line with its end, empty at the end of the file; BadInput for one of more than MOST_BYTES."""
    line = file.readline(MOST_BYTES + 1)
    if len(line) > MOST_BYTES:
        while line and not line.endswith(b"\n"):
            line = file.readline(MOST_BYTES)
        raise BadInput(f"is longer than {MOST_BYTES >> 20} MiB")
    return line


def long_of(text: str) -> int:
    """A whole number; BadInput for anything else."""
    if not _LONG.fullmatch(text):
        raise BadInput(f"{text[:40]!r} is no whole number")
    return int(text)


def double_of(text: str) -> float:
    """A decimal number; BadInput for anything else, NaN and infinity among it."""
    if not _DOUBLE.fullmatch(text):
        raise BadInput(f"{text[:40]!r} is no number")
    return float(text)


def is_long(text: str) -> bool:
    """Whether the text is a whole number."""
    return _LONG.fullmatch(text) is not None


def is_double(text: str) -> bool:
    """Whether the text is a number."""
    return _DOUBLE.fullmatch(text) is not None


def json_of(text: str) -> Any:
    """The JSON value of a text; BadInput for what is none, NaN and infinity among it."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"is no JSON: {error}") from error


def time_of(text: str) -> int:
    """The milliseconds of an ISO 8601 time with an offset; BadInput for anything else."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{text[:40]!r} is no time such as 2026-01-31T12:00:00Z") from None
    if when.tzinfo is None:
        raise BadInput(f"the time {text!r} has no offset: write {text}Z if it is UTC")
    return (when - _EPOCH) // timedelta(milliseconds=1)


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")
