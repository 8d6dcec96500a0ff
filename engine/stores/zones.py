"""Time zones as what windows need of them: when the offset from UTC changes. The database is zoneinfo's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from engine.errors import BadInput

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
DAY_MS: Final = 86_400_000

_STEP_MS: Final = 3 * DAY_MS
"""No two changes of any zone are nearer than this (the nearest: four days, Freetown 1939)."""
_MACHINES_OWN: Final = ("localtime", "posixrules", "Factory")
"""Files beside the zones that mean something else on every machine."""


class Span(NamedTuple):
    """A time of constant offset: start <= ts < end, the local clock shows ts + offset."""

    start_ms: int
    end_ms: int
    offset_ms: int


def check_zone(name: str) -> None:
    """BadInput for what is no IANA time zone."""
    if name in _MACHINES_OWN or name.startswith(("posix/", "right/")):
        raise BadInput(f"not a time zone: {name[:80]!r}")
    try:
        _zone(name)
    except (OSError, ValueError, LookupError) as error:  # a folder, `../x`, a name that nobody has
        raise BadInput(f"not a time zone: {name[:80]!r}") from error


def spans(zone: str, start_ms: int, end_ms: int) -> list[Span]:
    """The times of constant offset that start <= ts < end meets, cut to it."""
    found = []
    begun, offset = start_ms, _offset_ms(zone, start_ms)
    for year in range(_year(start_ms), _year(end_ms) + 1):
        for change_ms, after in _changes(zone, year):
            if begun < change_ms < end_ms:
                found.append(Span(begun, change_ms, offset))
                begun = change_ms
            if change_ms <= begun:
                offset = after
    found.append(Span(begun, end_ms, offset))
    return found


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _year(ts_ms: int) -> int:
    return (EPOCH + timedelta(milliseconds=ts_ms)).year


def _offset_ms(zone: str, ts_ms: int) -> int:
    offset = (EPOCH + timedelta(milliseconds=ts_ms)).astimezone(_zone(zone)).utcoffset()
    assert offset is not None
    return offset // timedelta(milliseconds=1)


@lru_cache(maxsize=4096)
def _changes(zone: str, year: int) -> tuple[tuple[int, int], ...]:
    """When the offset changes in a year (UTC), and to what."""
    found = []
    at_ms = (datetime(year, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
    last_ms = (datetime(year + 1, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
    # The millisecond before the year is looked at too: a change may be at its first.
    at_ms -= 1
    offset = _offset_ms(zone, at_ms)
    while at_ms < last_ms - 1:
        next_ms = min(at_ms + _STEP_MS, last_ms - 1)
        after = _offset_ms(zone, next_ms)
        if after != offset:
            before_ms, changed_ms = at_ms, next_ms
            while changed_ms - before_ms > 1:
                middle_ms = (before_ms + changed_ms) // 2
                if _offset_ms(zone, middle_ms) == offset:
                    before_ms = middle_ms
                else:
                    changed_ms = middle_ms
            found.append((changed_ms, after))
            offset = after
        at_ms = next_ms
    return tuple(found)
