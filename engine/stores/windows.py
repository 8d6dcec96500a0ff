"""Windows of time for aggregates: so many seconds, minutes, hours, days, weeks or months, on the clock of a time zone.

A window begins when the zone's clock shows a multiple of its length, or jumps over one: hours at :00, 6 hours at 0, 6,
12 and 18, days at midnight, weeks on Monday, 3 months with a quarter. They follow each other without a gap. So the
window in which the clock changes is longer or shorter than the others, a day of 23 or 25 hours among them; hours and
less go on at their length where the clock changes by a whole number of them. What the clock shows a second time begins
no window a second time, unless it was set back by the length of a window or more (an hour when summer time ends).

Several are counted from 1970 (weeks from the first Monday of it), months from January.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import groupby, pairwise
from typing import Final, NamedTuple

import msgspec

from engine.errors import BadInput
from engine.stores.values import held_range
from engine.stores.zones import DAY_MS, check_zone, spans

MOST: Final = 20_000
"""Windows of one aggregate, for each series."""

_LONGEST_MS: Final = 36_525 * DAY_MS
_MONTH_MS: Final = 31 * DAY_MS
_UNITS_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS, "mo": _MONTH_MS}
_EVERY: Final = re.compile(r"([1-9][0-9]{0,9})(s|mo|m|h|d|w)", re.ASCII)
_MONDAY_MS: Final = 4 * DAY_MS
"""1970-01-05."""
_ORDINAL_1970: Final = date(1970, 1, 1).toordinal()
_MARGIN_MS: Final = 3 * DAY_MS
"""More than any clock was ever changed by, twice."""


class Window(msgspec.Struct, frozen=True):
    """A length such as `30s`, `5m`, `1h`, `1d`, `1w`, `1mo`, and an IANA time zone. `window` makes and checks it."""

    every: str
    zone: str = "UTC"


class Run(NamedTuple):
    """Windows of the same length, one behind the other."""

    start_ms: int
    every_ms: int
    windows: int

    @property
    def end_ms(self) -> int:
        """Where the last one ends."""
        return self.start_ms + self.every_ms * self.windows


def window(every: str, zone: str = "UTC") -> Window:
    """A window of a checked length and zone; BadInput for what is neither."""
    found = _EVERY.fullmatch(every)
    if found is None:
        raise BadInput(f"not a length of windows: {every[:40]!r}; say 30s, 5m, 1h, 1d, 1w or 1mo")
    if int(found[1]) * _UNITS_MS[found[2]] > _LONGEST_MS + 366 * DAY_MS:
        raise BadInput(f"a window of {every} is too long; the longest is 100 years")
    check_zone(zone)
    return Window(every, zone)


def edges(window: Window, start_ms: int, end_ms: int) -> list[int]:
    """Where the windows that start <= ts < end meets begin, and where the last one ends; empty for an empty range.

    Only times that a point can have count. BadInput for more than `MOST` windows, and for a window that is none.
    """
    start_ms, end_ms = held_range(start_ms, end_ms)
    if start_ms == end_ms:
        return []
    grid = _grid(window)
    check_zone(window.zone)
    if (end_ms - start_ms) // grid.every_ms > MOST * 1.25:  # months are counted as 31 days: look closer below
        raise _too_many(window)
    found: list[int] = []
    reach_ms = grid.every_ms + _MARGIN_MS
    stretches = _stretches(window.zone, grid, start_ms - reach_ms, end_ms + reach_ms)
    found.append(_begin(stretches, grid, start_ms))
    for stretch in stretches:
        if stretch.end_ms <= found[-1]:
            continue
        if stretch.jumped and stretch.start_ms > found[-1]:
            found.append(stretch.start_ms)
        shown = max(stretch.counts_from, found[-1] + stretch.offset_ms + 1)
        for edge in grid.between(shown, stretch.end_ms + stretch.offset_ms):
            if found[-1] >= end_ms:
                break
            found.append(edge - stretch.offset_ms)
        if found[-1] >= end_ms:
            break
    if len(found) > MOST + 1:
        raise _too_many(window)
    return found


def runs(edges: Sequence[int]) -> list[Run]:
    """The windows between edges, those of equal length together: what a store can group by arithmetic."""
    lengths = (end_ms - start_ms for start_ms, end_ms in pairwise(edges))
    found, start_ms = [], edges[0] if edges else 0
    for every_ms, same in groupby(lengths):
        found.append(Run(start_ms, every_ms, sum(1 for _ in same)))
        start_ms = found[-1].end_ms
    return found


def place(edges: Sequence[int], ts_ms: int) -> int:
    """Which of the windows between edges a time belongs to, counted from 0."""
    return bisect_right(edges, ts_ms) - 1


def _too_many(window: Window) -> BadInput:
    return BadInput(f"the range has more than {MOST} windows of {window.every}; ask for longer ones or for less time")


class _Stretch(NamedTuple):
    """A time of constant offset, and which of the edges that its clock shows count."""

    start_ms: int
    end_ms: int
    offset_ms: int
    counts_from: int
    """The first reading of the clock that was not shown before, or may be shown again."""
    jumped: bool
    """The clock came here by a jump over an edge."""


class _Clocked(NamedTuple):
    """Edges at the multiples of a length on a clock, counted from `first_ms`."""

    every_ms: int
    first_ms: int

    def last(self, shown_ms: int) -> int:
        return shown_ms - (shown_ms - self.first_ms) % self.every_ms

    def between(self, start_ms: int, end_ms: int) -> Iterator[int]:
        return iter(range(self.last(start_ms - 1) + self.every_ms, end_ms, self.every_ms))


class _Monthly(NamedTuple):
    """Edges at midnight of the first of every so many months."""

    months: int

    @property
    def every_ms(self) -> int:
        return self.months * _MONTH_MS

    def last(self, shown_ms: int) -> int:
        return self._first_of(self._number(shown_ms))

    def between(self, start_ms: int, end_ms: int) -> Iterator[int]:
        number = self._number(start_ms - 1) + self.months
        while (edge := self._first_of(number)) < end_ms:
            yield edge
            number += self.months

    def _number(self, shown_ms: int) -> int:
        day = date.fromordinal(shown_ms // DAY_MS + _ORDINAL_1970)
        number = (day.year - 1970) * 12 + day.month - 1
        return number - number % self.months

    def _first_of(self, number: int) -> int:
        return (date(1970 + number // 12, number % 12 + 1, 1).toordinal() - _ORDINAL_1970) * DAY_MS


def _grid(window: Window) -> _Clocked | _Monthly:
    found = _EVERY.fullmatch(window.every)
    if found is None:
        raise BadInput(f"not a length of windows: {window.every!r}")
    count, unit = int(found[1]), found[2]
    if unit == "mo":
        return _Monthly(count)
    return _Clocked(count * _UNITS_MS[unit], _MONDAY_MS if unit == "w" else 0)


def _stretches(zone: str, grid: _Clocked | _Monthly, start_ms: int, end_ms: int) -> list[_Stretch]:
    found: list[_Stretch] = []
    for start, end, offset in spans(zone, start_ms, end_ms):
        shown, was = start + offset, start + (found[-1].offset_ms if found else offset)
        set_back = was - shown
        counts_from = was if 0 < set_back < grid.every_ms else shown
        jumped = set_back < 0 and next(grid.between(was, shown), None) is not None
        found.append(_Stretch(start, end, offset, counts_from, jumped))
    return found


def _begin(stretches: Sequence[_Stretch], grid: _Clocked | _Monthly, ts_ms: int) -> int:
    """The last edge at or before a time."""
    for stretch in reversed(stretches):
        if stretch.start_ms > ts_ms:
            continue
        edge = grid.last(min(ts_ms, stretch.end_ms - 1) + stretch.offset_ms)
        if edge >= stretch.counts_from:
            return edge - stretch.offset_ms
        if stretch.jumped:
            return stretch.start_ms
    raise AssertionError("the stretches reach back further than one window")
