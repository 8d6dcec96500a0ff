"""How verbs print: aligned tables, fields, JSON, local time; nothing a device sent can steer the terminal."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final, TypeVar

import click

T = TypeVar("T")

SHORT: Final = 100
"""Characters of data in a line of a list."""

_CONTROLS: Final = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
"""What JSON leaves as it is although terminals obey it."""


class Failed(click.ClickException):
    """The verb cannot do what was asked: one line for each reason on stderr, exit code 1."""

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines

    def show(self, file: Any = None) -> None:
        """Print the lines."""
        for line in self.lines:
            click.echo(f"rulemill: {plain(line)}", err=True)


def plain(text: str) -> str:
    """The text with control characters shown, not obeyed."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON that a terminal shows as it is."""
    return json.dumps(value, ensure_ascii=False, indent=indent).translate(_CONTROLS)


def print_json(value: Any) -> None:
    """One JSON document."""
    click.echo(as_json(value, indent=2))


def short(value: Any, most: int = SHORT) -> str:
    """A value as JSON on one line, cut with `…` when it is longer than `most` characters."""
    text = plain(as_json(value))
    return text if len(text) <= most else text[: most - 1] + "…"


def local_time(ts_ms: int, timespec: str = "seconds") -> str:
    """Local ISO time with its offset; empty for 0, which stands for: has not happened."""
    if not ts_ms:
        return ""
    try:
        return datetime.fromtimestamp(ts_ms / 1000).astimezone().isoformat(timespec=timespec)
    except (OverflowError, OSError, ValueError):
        return f"{ts_ms} ms"


def size(count: int) -> str:
    """Bytes as people read them."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def seconds(duration_ms: int) -> str:
    """A duration as people read it."""
    whole = duration_ms // 1000
    if whole < 60:
        return f"{duration_ms / 1000:.1f} s"
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole} s"


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """A table with a line of titles; columns named in `right` are aligned there."""
    lines = [list(titles), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            _padding(cell, width) + cell if title in right else cell + _padding(cell, width)
            for title, cell, width in zip(titles, line, widths, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def print_fields(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values of one thing, those without a value left out."""
    given = [(name, value) for name, value in pairs if value]
    left = max((len(name) for name, _ in given), default=0)
    for name, value in given:
        click.echo(f"{name.ljust(left)}  {plain(value)}")


def take(items: Iterator[T], limit: int) -> tuple[list[T], bool]:
    """The first items, and whether there are more."""
    found = list(islice(items, limit))
    return found, next(items, None) is not None


def more(there_are: bool, limit: int) -> None:
    """Say on stderr that a list was cut."""
    if there_are:
        click.echo(f"There are more than {limit}: --limit says how many are shown.", err=True)


def note(text: str) -> None:
    """Something besides the result: stderr, so that a result can go into a pipe."""
    click.echo(text, err=True)


class Progress:
    """A count on stderr while a long work goes on, when a person looks on; nothing otherwise."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._shown = sys.stderr.isatty() and total > 1

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        if self._shown:
            click.echo(f"\r{self._what} {self._done} of {self._total}", err=True, nl=self._done == self._total)


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else not unicodedata.combining(char) for char in text)


def _padding(text: str, width: int) -> str:
    return " " * (width - _width(text))
