"""Windows against a slow reference: a clock that is walked minute by minute, and datetime's own midnights."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BadInput
from engine.stores.values import INT64_MAX, INT64_MIN, MAX_TS_MS
from engine.stores.windows import MOST, Window, edges, place, runs, window
from engine.stores.zones import EPOCH

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000

ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "America/Havana", "America/Sao_Paulo", "Asia/Kolkata",
    "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca", "America/St_Johns", "Asia/Gaza",
]  # fmt: skip


def ms(zone: str, *when: int, fold: int = 0) -> int:
    """A local time as milliseconds."""
    return round(datetime(*when, tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1000)


def shown(zone: str, ts_ms: int) -> int:
    """What the clock of a zone shows, as milliseconds."""
    local = (EPOCH + timedelta(milliseconds=ts_ms)).astimezone(ZoneInfo(zone))
    return (local.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)


def local(zone: str, *found: int) -> list[str]:
    return [f"{(EPOCH + timedelta(milliseconds=each)).astimezone(ZoneInfo(zone)):%m-%d %H:%M%z}" for each in found]


@pytest.mark.parametrize("every", ["1s", "30s", "5m", "1h", "6h", "1d", "10d", "1w", "2w", "1mo", "3mo", "100000h"])
def test_a_length_and_a_zone(every: str) -> None:
    assert window(every) == Window(every, "UTC")
    assert window(every, "Europe/Berlin") == Window(every, "Europe/Berlin")


@pytest.mark.parametrize(
    "every",
    ["", "h", "0h", "-1h", "01h", "1", "1ms", "1y", "1H", "1 h", "1h ", "1.5h", "1h\n", "٣h", "1201mo", "9999999999d"],
)
def test_no_length(every: str) -> None:
    with pytest.raises(BadInput, match="window"):
        window(every)


@pytest.mark.parametrize(
    "zone",
    ["", "Mars/Olympus", "Europe", "../Berlin", "/etc/passwd", "Europe/Berlin\0", "a" * 5000, "localtime",
     "right/Europe/Berlin", "posix/UTC", "Europe/", "\ud800"],
)  # fmt: skip
def test_no_zone(zone: str) -> None:
    with pytest.raises(BadInput, match="time zone"):
        window("1h", zone)


def test_hours_go_on_through_the_change_of_the_clock() -> None:
    for day in ((2026, 3, 29), (2026, 10, 25)):
        found = edges(Window("1h", "Europe/Berlin"), ms("Europe/Berlin", *day), ms("Europe/Berlin", *day, 23, 59))
        assert {end - start for start, end in pairwise(found)} == {HOUR_MS}
        assert len(found) - 1 == {3: 23, 10: 25}[day[1]]


def test_six_hours_stay_on_the_clock() -> None:
    start, end = ms("Europe/Berlin", 2026, 10, 24, 13), ms("Europe/Berlin", 2026, 10, 26, 0)
    assert local("Europe/Berlin", *edges(Window("6h", "Europe/Berlin"), start, end)) == [
        "10-24 12:00+0200", "10-24 18:00+0200", "10-25 00:00+0200", "10-25 06:00+0100", "10-25 12:00+0100",
        "10-25 18:00+0100", "10-26 00:00+0100",
    ]  # fmt: skip


def test_half_an_hour_of_summer_time() -> None:
    zone = "Australia/Lord_Howe"
    spring = edges(Window("1h", zone), ms(zone, 2026, 10, 4, 0, 30), ms(zone, 2026, 10, 4, 4))
    assert local(zone, *spring) == [
        "10-04 00:00+1030", "10-04 01:00+1030", "10-04 02:30+1100", "10-04 03:00+1100", "10-04 04:00+1100"
    ]  # fmt: skip
    autumn = edges(Window("1h", zone), ms(zone, 2026, 4, 5, 0, 30), ms(zone, 2026, 4, 5, 3))
    assert [end - start for start, end in pairwise(autumn)] == [HOUR_MS, HOUR_MS * 3 // 2, HOUR_MS]
    # A quarter of an hour is shorter than the change: what was shown twice are windows of their own.
    quarters = edges(Window("15m", zone), ms(zone, 2026, 4, 5, 1, 30), ms(zone, 2026, 4, 5, 2, 30))
    assert {end - start for start, end in pairwise(quarters)} == {15 * MINUTE_MS}


def test_a_midnight_that_is_not_and_one_that_comes_twice() -> None:
    havana, paulo = "America/Havana", "America/Sao_Paulo"
    spring = edges(Window("1d", havana), ms(havana, 2026, 3, 7, 12), ms(havana, 2026, 3, 9, 12))
    assert local(havana, *spring) == ["03-07 00:00-0500", "03-08 01:00-0400", "03-09 00:00-0400", "03-10 00:00-0400"]
    autumn = edges(Window("1d", havana), ms(havana, 2026, 11, 1, 12), ms(havana, 2026, 11, 1, 13))
    assert local(havana, *autumn) == ["11-01 00:00-0400", "11-02 00:00-0500"]
    assert [end - start for start, end in pairwise(autumn)] == [25 * HOUR_MS]
    jumped = edges(Window("12h", paulo), ms(paulo, 2018, 11, 3, 13), ms(paulo, 2018, 11, 4, 13))
    assert local(paulo, *jumped) == ["11-03 12:00-0300", "11-04 01:00-0200", "11-04 12:00-0200", "11-05 00:00-0200"]


def test_a_day_that_never_was() -> None:
    found = edges(Window("1d", "Pacific/Apia"), ms("Pacific/Apia", 2011, 12, 29), ms("Pacific/Apia", 2012, 1, 1))
    assert local("Pacific/Apia", *found) == ["12-29 00:00-1000", "12-31 00:00+1400", "01-01 00:00+1400"]


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    start, end = ms("Asia/Kolkata", 2023, 12, 31), ms("Asia/Kolkata", 2024, 3, 1)
    weeks = edges(Window("1w", "Asia/Kolkata"), start, end)
    assert local("Asia/Kolkata", weeks[0], weeks[1]) == ["12-25 00:00+0530", "01-01 00:00+0530"]
    months = edges(Window("1mo", "Asia/Kolkata"), start, end)
    assert [text[:5] for text in local("Asia/Kolkata", *months)] == ["12-01", "01-01", "02-01", "03-01"]
    quarters = edges(Window("3mo"), ms("UTC", 1969, 12, 31), ms("UTC", 1970, 1, 2))
    assert quarters == [ms("UTC", 1969, 10, 1), 0, ms("UTC", 1970, 4, 1)]


def test_an_empty_range_has_no_windows() -> None:
    for start, end in ((5, 5), (6, 5), (MAX_TS_MS + 1, INT64_MAX), (INT64_MIN, -MAX_TS_MS)):
        assert edges(Window("1h"), start, end) == []


def test_as_far_as_points_go() -> None:
    found = edges(Window("1mo", "Europe/Berlin"), INT64_MIN, INT64_MAX)
    assert found[0] <= -MAX_TS_MS
    assert found[-1] > MAX_TS_MS
    assert len(found) == (2262 - 1677) * 12 - 8 + 4 + 1
    assert len(edges(Window("1200mo"), INT64_MIN, INT64_MAX)) == 7


@pytest.mark.parametrize("every", ["1s", "1m", "1h", "1d"])
def test_windows_are_counted(every: str) -> None:
    length = {"s": 1000, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}[every[-1]] * int(every[:-1])
    assert len(edges(Window(every), 0, MOST * length)) == MOST + 1
    for end in (MOST * length + 1, MOST * length * 2, INT64_MAX):
        with pytest.raises(BadInput, match="more than 20000 windows"):
            edges(Window(every), 0, end)


def test_runs_say_the_same_shorter() -> None:
    start, end = ms("Europe/Berlin", 2026, 1, 1), ms("Europe/Berlin", 2027, 1, 1)
    assert [run.windows for run in runs(edges(Window("1h", "Europe/Berlin"), start, end))] == [8760]
    days = runs(edges(Window("1d", "Europe/Berlin"), start, end))
    hours = [(run.every_ms // HOUR_MS, run.windows) for run in days]
    assert hours == [(24, 87), (23, 1), (24, 209), (25, 1), (24, 67)]
    assert runs([]) == []


def walked(length_ms: int, zone: str, start_ms: int, end_ms: int) -> list[int]:
    """Edges after start_ms and before end_ms, as the module's text has it, by a look at the clock each minute."""
    found: list[int] = []
    back: list[tuple[int, int]] = []
    was = shown(zone, start_ms)
    for ts_ms in range(start_ms + MINUTE_MS, end_ms, MINUTE_MS):
        now = shown(zone, ts_ms)
        step = now - was
        if step < 0 and MINUTE_MS - step < length_ms:
            back.append((now, was + MINUTE_MS))  # readings that are shown a second time
        again = any(low <= now < high for low, high in back)
        on_it = now % length_ms == 0 and not again
        over_it = step > MINUTE_MS and -(-(was + MINUTE_MS) // length_ms) * length_ms < now
        if on_it or over_it:
            found.append(ts_ms)
        if not again:
            back.clear()
        was = now
    return found


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.sampled_from(["10m", "15m", "30m", "1h", "2h", "6h", "12h", "1d", "2d", "7h", "50m", "1440m"]),
    st.integers(1980, 2040),
    st.integers(0, 365),
)
def test_the_clock_walked(zone: str, every: str, year: int, day: int) -> None:
    # Three days around a change of the clock, if the days after that one have any.
    start = ms("UTC", year, 1, 1) + day * DAY_MS
    offsets = [shown(zone, at) - at for at in range(start, start + 200 * DAY_MS, DAY_MS)]
    change = next((i for i, (one, other) in enumerate(pairwise(offsets)) if one != other), 0)
    start += change * DAY_MS - DAY_MS
    end = start + 3 * DAY_MS
    unit = {"m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}[every[-1]]
    wanted = walked(int(every[:-1]) * unit, zone, start, end)
    found = edges(Window(every, zone), start, end)
    assert [edge for edge in found if start < edge < end] == wanted


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.sampled_from(["1d", "1w", "1mo", "3mo", "12mo", "5mo"]),
    st.dates(date(1700, 1, 1), date(2240, 1, 1)),
    st.integers(1, 400),
)
def test_midnights_are_datetimes(zone: str, every: str, first: date, days: int) -> None:
    def midnight(day: date) -> int:
        return round(datetime.combine(day, time(), ZoneInfo(zone)).timestamp() * 1000)

    def begins(day: date) -> bool:
        months = (day.year - 1970) * 12 + day.month - 1
        return {
            "1d": True, "1w": day.weekday() == 0, "1mo": day.day == 1, "3mo": day.day == 1 and months % 3 == 0,
            "12mo": day.day == day.month == 1, "5mo": day.day == 1 and months % 5 == 0,
        }[every]  # fmt: skip

    start, end = midnight(first), midnight(first + timedelta(days=days))
    inside = [first + timedelta(days=i) for i in range(1, days)]
    wanted = sorted({midnight(day) for day in inside if begins(day)})
    found = edges(Window(every, zone), start, end)
    assert [edge for edge in found if start < edge < end] == [edge for edge in wanted if start < edge < end]


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.sampled_from(["1s", "7s", "1m", "45m", "1h", "25h", "1d", "3d", "2w", "1mo", "7mo"]),
    st.integers(-MAX_TS_MS, MAX_TS_MS),
    st.integers(1, 30_000_000),
)
def test_windows_follow_each_other_and_hold_the_range(zone: str, every: str, start: int, length: int) -> None:
    end = start + length
    try:
        found = edges(Window(every, zone), start, end)
    except BadInput:
        return
    assert all(one < other for one, other in pairwise(found))
    assert found[0] <= start < found[1]
    assert found[-2] < min(end, MAX_TS_MS + 1) <= found[-1]
    assert place(found, start) == 0
    assert place(found, min(end, MAX_TS_MS + 1) - 1) == len(found) - 2
    assert [run.start_ms + i * run.every_ms for run in runs(found) for i in range(run.windows)] == found[:-1]
    # The same windows whatever range asks for them.
    middle = (start + min(end, MAX_TS_MS + 1)) // 2
    part = edges(Window(every, zone), middle, end)
    assert part == found[place(found, middle) :]
