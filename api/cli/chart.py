"""Lines of numbers over time, drawn with braille dots: eight to a character."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, tzinfo
from itertools import pairwise
from typing import Final, NamedTuple

import click

from api.cli.output import plain

COLOURS: Final = ("cyan", "yellow", "magenta", "green", "red", "blue", "white")
_EMPTY: Final = 0x2800
_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Of the dot in a row and a column of a character: its bit."""
_LARGEST: Final = sys.float_info.max
_HOUR_MS, _DAY_MS, _YEAR_MS = 3_600_000, 86_400_000, 366 * 86_400_000


class Line(NamedTuple):
    """A name, and numbers by the time in milliseconds."""

    name: str
    points: Sequence[tuple[int, float]]


class Frame(NamedTuple):
    """What a chart shows: start <= ts < end on the clock of a zone, that many characters wide and high.

    Two points are joined when they are no further apart than `join_ms`.
    """

    start_ms: int
    end_ms: int
    join_ms: int
    width: int
    height: int
    zone: tzinfo


def chart(lines: Sequence[Line], frame: Frame, *, coloured: bool) -> list[str]:
    """Rows of text: the lines with their axes, then what they are. Without colours, several come one below another."""
    # Doubles all: beyond 2^53 two numbers that differ may be one on the scale.
    values = [float(value) for line in lines for _, value in line.points]
    scale = _Scale.of(min(values), max(values), frame.height)
    if coloured or len(lines) == 1:
        made = _drawn(lines, frame, scale, coloured)
        return [*made, *(_legend(i, line, coloured) for i, line in enumerate(lines))]
    return [
        row for i, line in enumerate(lines) for row in (*_drawn([line], frame, scale, False), _legend(i, line, False))
    ]


class _Scale(NamedTuple):
    """The range of values shown, and those that are written at the side, by character row from the top."""

    low: float
    high: float
    labels: dict[int, str]

    @staticmethod
    def of(low: float, high: float, height: int) -> _Scale:
        if low == high:
            around = abs(low) * 0.1 or 1.0
            low, high = max(low - around, -_LARGEST), min(high + around, _LARGEST)
        span = high - low
        # As many as fit three rows apart, but more than one.
        step = _nice(span / max(2, height // 3))
        step = step if span >= step * 2 else _nice(span / max(2, height // 2))
        if not (math.isfinite(span) and 0 < step < math.inf and span / step < 1000):
            return _Scale(low, high, {0: f"{high:.4g}", height - 1: f"{low:.4g}"})
        decimals = max(0, -math.floor(math.log10(step)))
        labels = {}
        for n in range(math.ceil(low / step), math.floor(high / step) + 1):
            row = round((high - n * step) / span * (height - 1))
            labels[row] = f"{n * step:.{decimals}f}" if decimals < 8 and abs(n * step) < 1e9 else f"{n * step:.4g}"
        return _Scale(low, high, labels)

    def part(self, value: float) -> float:
        """Where a value lies: 0 at the top, 1 at the bottom."""
        if math.isfinite(span := self.high - self.low):
            return (self.high - value) / span
        # The range is more than a double holds.
        return (self.high / 2 - value / 2) / (self.high / 2 - self.low / 2)


def _nice(step: float) -> float:
    """The next larger number of 1, 2 and 5 times a power of ten."""
    if not (math.isfinite(step) and step > 0):
        return step
    power = 10.0 ** math.floor(math.log10(step))
    return next((power * factor for factor in (1, 2, 5, 10) if power * factor >= step), step)


def _drawn(lines: Sequence[Line], frame: Frame, scale: _Scale, coloured: bool) -> list[str]:
    side = max((len(label) for label in scale.labels.values()), default=0)
    width = max(10, frame.width - side - 2)
    cells = [[0] * width for _ in range(frame.height)]
    owner = [[0] * width for _ in range(frame.height)]
    for i, line in enumerate(lines):
        for x, y in _dots(line, frame, scale, width * 2, frame.height * 4):
            cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
            owner[y // 4][x // 2] = i
    rows = []
    for y, row in enumerate(cells):
        text = "".join(
            click.style(chr(_EMPTY + bits), fg=COLOURS[owner[y][x] % len(COLOURS)])
            if coloured and bits
            else (chr(_EMPTY + bits) if bits else " ")
            for x, bits in enumerate(row)
        )
        label = scale.labels.get(y, "")
        rows.append(f"{label.rjust(side)} {'┤' if label else '│'}{text}".rstrip())
    axis, times = _times(frame, width)
    return [*rows, " " * (side + 1) + "└" + axis, " " * (side + 2) + times]


def _dots(line: Line, frame: Frame, scale: _Scale, width: int, height: int) -> Iterator[tuple[int, int]]:
    span = max(1, frame.end_ms - frame.start_ms)

    def place(point: tuple[int, float]) -> tuple[int, int]:
        x = (point[0] - frame.start_ms) * width // span
        return min(width - 1, max(0, x)), min(height - 1, max(0, round(scale.part(point[1]) * (height - 1))))

    if line.points:
        yield place(line.points[0])
    for before, point in pairwise(line.points):
        (x0, y0), (x1, y1) = place(before), place(point)
        if point[0] - before[0] > frame.join_ms:
            yield x1, y1
            continue
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for n in range(1, steps + 1):
            yield x0 + round((x1 - x0) * n / steps), y0 + round((y1 - y0) * n / steps)


def _times(frame: Frame, width: int) -> tuple[str, str]:
    """The axis with its marks, and the times below them."""
    shape = _shape(frame)
    span = frame.end_ms - frame.start_ms
    wide = len(_at(frame.start_ms, frame.zone, shape))
    count = max(1, min(6, width // (wide + 4)))
    axis, below = ["─"] * width, [" "] * (width + wide)
    for n in range(count + 1):
        x = min(width - 1, n * width // count)
        text = _at(frame.start_ms + span * n // count, frame.zone, shape)
        at = min(max(0, x - len(text) // 2), width - len(text))
        if at < 0 or any(char != " " for char in below[max(0, at - 1) : at + len(text) + 1]):
            continue
        axis[x] = "┬"
        below[at : at + len(text)] = text
    return "".join(axis), "".join(below).rstrip()


def _shape(frame: Frame) -> str:
    span = frame.end_ms - frame.start_ms
    if span <= _HOUR_MS / 4:
        return "%H:%M:%S"
    if span <= _DAY_MS:
        return "%H:%M"
    if span <= 4 * _DAY_MS:
        return "%d %b %H:%M"
    return "%d %b" if span <= _YEAR_MS else "%b %Y"


def _at(ts_ms: int, zone: tzinfo, shape: str) -> str:
    try:
        return datetime.fromtimestamp(ts_ms / 1000, zone).strftime(shape)
    except (OverflowError, OSError, ValueError):
        return f"{ts_ms}"


def _legend(i: int, line: Line, coloured: bool) -> str:
    values = [value for _, value in line.points]
    mark = click.style("━━", fg=COLOURS[i % len(COLOURS)]) if coloured else "━━"
    return f"{mark} {plain(line.name)}  min {min(values):.6g}  max {max(values):.6g}  last {values[-1]:.6g}"
