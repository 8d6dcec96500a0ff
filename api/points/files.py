"""Files of points: which forms there are, and how a file that somebody gives is known."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import BinaryIO, Final, Protocol, cast

from api.points import csv_form, line_form, ndjson_form, parquet_form
from api.points.reading import Read
from engine.errors import BadInput
from engine.message import Point

LINES, CSV, NDJSON, PARQUET = "lines", "csv", "ndjson", "parquet"
FORMS: Final = (LINES, CSV, NDJSON, PARQUET)
SUFFIXES: Final = {".lp": LINES, ".line": LINES, ".txt": LINES, ".csv": CSV, ".ndjson": NDJSON, ".jsonl": NDJSON,
                   ".parquet": PARQUET}  # fmt: skip

_GZIP: Final = b"\x1f\x8b"
_PARQUET: Final = b"PAR1"
_LOOK_BYTES: Final = 4096


class Writer(Protocol):
    """Writes points in one form."""

    def write(self, points: Sequence[Point]) -> list[tuple[int, str]]:
        """Write the points; those that the form cannot hold are returned as index and reason."""

    def close(self) -> None:
        """Write what is held back."""


WRITERS: Final[dict[str, Callable[[BinaryIO], Writer]]] = {
    LINES: line_form.Writer,
    CSV: csv_form.Writer,
    NDJSON: ndjson_form.Writer,
    PARQUET: parquet_form.Writer,
}


def form_of_name(name: str) -> str:
    """The form that a file's name tells, empty for none; a `.gz` at its end is looked past."""
    path = PurePath(name)
    if path.suffix == ".gz":
        path = path.with_suffix("")
    return SUFFIXES.get(path.suffix.lower(), "")


def reader(file: BinaryIO, tenant: str, form: str = "", precision: str = "ms") -> Iterator[Read]:
    """Points of a file, whose form is known by how it begins unless it is given; zipped ones are unzipped.

    `tenant` is for points that name none. BadInput for a file that cannot be read at all, or not to its end.
    """
    try:
        yield from _reads(file, tenant, form, precision)
    except (EOFError, OSError, zlib.error) as error:
        raise BadInput(f"is damaged, or not whole: {error}") from error


def _reads(file: BinaryIO, tenant: str, form: str, precision: str) -> Iterator[Read]:
    looked = file if isinstance(file, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, file), 1 << 16)
    if looked.peek(2)[:2] == _GZIP:
        looked = io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=looked)), 1 << 16)
    form = form or _looks_like(looked.peek(_LOOK_BYTES)[:_LOOK_BYTES])
    if form == PARQUET and not looked.seekable():
        raise BadInput("Parquet is read from its end: give a file, not a pipe")
    opened = cast(BinaryIO, looked)
    match form:
        case "csv":
            return csv_form.read(opened, tenant)
        case "ndjson":
            return ndjson_form.read(opened, tenant)
        case "parquet":
            return parquet_form.read(opened, tenant)
    return line_form.read(opened, tenant, precision)


def _looks_like(begin: bytes) -> str:
    if begin.startswith(_PARQUET):
        return PARQUET
    if begin.lstrip().startswith(b"{"):
        return NDJSON
    first = begin.removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0]
    return CSV if b"=" not in first and b"device" in first else LINES
