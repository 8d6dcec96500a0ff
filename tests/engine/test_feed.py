"""Feeding a store: whatever it does, every good point gets there in order, and a bad one holds up nobody for ever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import breaker, feed
from engine.errors import PointsRefused, StoreUnavailable, Unfit
from engine.feed import DOUBT_EVERY, STRIKES, WRITE_AT_MOST, Feed
from engine.message import Point
from engine.stores import opening
from engine.stores.memory import MemoryTimeseries


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "FIRST_WAIT_S", 0.0)


class Scripted(MemoryTimeseries):
    """Before each write, `happen(points)` may raise; what was written is in `log`."""

    def __init__(self, happen: Callable[[Sequence[Point]], Any] = lambda points: None) -> None:
        super().__init__()
        self.happen = happen
        self.log: list[Point] = []
        self.sizes: list[int] = []
        self.opened = 0

    async def open(self) -> None:
        self.opened += 1
        await super().open()

    async def write(self, points: Sequence[Point]) -> None:
        self.sizes.append(len(points))
        made = self.happen(points)
        if asyncio.iscoroutine(made):
            await made
        self.log += points

    def first_written(self) -> list[Any]:
        return list(dict.fromkeys(point.value for point in self.log))


def points(count: int, devices: int = 3) -> list[Point]:
    return [Point("acme", f"d{n % devices}", "n", n, n) for n in range(count)]


async def drain(one: Feed, waiting: list[Point], rounds: int = 1000) -> dict[int, str]:
    """Put until all are done, without waiting; reasons of those refused, by value."""
    refused: dict[int, str] = {}
    for _ in range(rounds):
        if not waiting:
            return refused
        put = await one.put(waiting[:WRITE_AT_MOST])
        refused.update((waiting[i].value, reason) for i, reason in put.refused)
        waiting = waiting[put.done :]
    raise AssertionError(f"{len(waiting)} points are left")


def unavailable(_: Any) -> None:
    raise StoreUnavailable("down", 0.0)


@pytest.mark.asyncio
async def test_a_write_has_so_many_points_at_most() -> None:
    store = Scripted()
    await drain(Feed(store), points(2 * WRITE_AT_MOST + 1))
    assert store.sizes == [WRITE_AT_MOST, WRITE_AT_MOST, 1]


@pytest.mark.asyncio
async def test_a_store_that_fails_is_met_with_less_and_then_with_more() -> None:
    store, waiting = Scripted(unavailable), points(20_000)
    one = Feed(store)
    for _ in range(8):
        assert (await one.put(waiting[:WRITE_AT_MOST])).done == 0
    assert store.sizes[:7] == [5000, 1250, 312, 78, 19, 4, 1]
    assert (one.breaker.state, one.breaker.reason) == ("open", "down")
    store.happen = lambda points: None
    store.sizes.clear()
    assert await drain(one, waiting) == {}
    assert one.breaker.state == "closed"
    assert store.sizes[:4] == [1, 2, 4, 8]
    assert max(store.sizes) == WRITE_AT_MOST
    assert store.first_written() == [point.value for point in waiting]


@pytest.mark.asyncio
async def test_retry_after_is_obeyed() -> None:
    def busy(_: Any) -> None:
        raise StoreUnavailable("503", 7.0)

    one = Feed(Scripted(busy))
    await one.put(points(1))
    assert 6.9 < one.breaker.wait_s() <= 7.0


@pytest.mark.asyncio
async def test_a_store_that_hangs_is_given_up_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "WRITE_WITHIN_S", 0.02)
    cancelled: list[int] = []

    async def hang(given: Sequence[Point]) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(len(given))
            raise

    store, waiting = Scripted(hang), points(100)
    one = Feed(store)
    assert (await one.put(waiting)).done == 0
    assert (one.breaker.state, one.breaker.reason) == ("open", "no answer in time")
    assert cancelled == [100]
    store.happen = lambda points: None
    assert await drain(one, waiting) == {}
    assert store.first_written() == list(range(100))


@pytest.mark.asyncio
async def test_a_store_that_is_away_at_the_start_is_opened_by_the_first_write_that_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Away(Scripted):
        away = True

        async def open(self) -> None:
            await super().open()
            if self.opened == 1:
                await asyncio.sleep(60)
            if self.away:
                raise StoreUnavailable("connection refused", 0.0)

    monkeypatch.setattr(opening, "OPEN_WITHIN_S", 0.02)
    store = Away()
    one = Feed(store)
    await one.open()
    assert (store.opened, one.breaker.reason) == (1, "no answer within 0.02 s")
    waiting = points(3)
    assert (await one.put(waiting)).done == 0
    assert one.breaker.reason == "connection refused"
    assert one.told() == []
    store.away = False
    await drain(one, waiting)
    assert store.opened == 3
    assert store.first_written() == [0, 1, 2]


@pytest.mark.asyncio
async def test_a_store_that_can_never_serve_says_so_at_the_start() -> None:
    class Never(Scripted):
        async def open(self) -> None:
            raise Unfit("made by a newer version")

    one = Feed(Never())
    with pytest.raises(Unfit, match="newer"):
        await one.open()
    assert (await one.put(points(1))).done == 0
    assert one.breaker.reason == "made by a newer version"


@pytest.mark.asyncio
async def test_what_the_store_refuses_is_done_with() -> None:
    def odd(given: Sequence[Point]) -> None:
        refused = [(i, "odd") for i, point in enumerate(given) if point.value % 2]
        if refused:
            raise PointsRefused(refused)

    store = Scripted(odd)
    assert await drain(Feed(store), points(9)) == dict.fromkeys(range(1, 9, 2), "odd")


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [StoreUnavailable("500 panic", 0.0), ValueError("a bug"), TimeoutError()])
@pytest.mark.parametrize("poison", [{0}, {4999}, {17, 18, 19}, {700, 3000}])
async def test_points_with_which_every_write_fails_are_refused_and_all_others_stored(
    error: Exception, poison: set[int]
) -> None:
    def fails(given: Sequence[Point]) -> None:
        if any(point.value in poison for point in given):
            raise error

    store, waiting = Scripted(fails), points(5000)
    refused = await drain(Feed(store), waiting)
    assert set(refused) == poison
    assert all(reason.startswith("the store fails on it and takes others: ") for reason in refused.values())
    assert sorted(set(store.first_written())) == [n for n in range(5000) if n not in poison]
    assert len(store.sizes) < 400, "that is no bisecting any more"


@pytest.mark.asyncio
async def test_a_poisonous_point_of_the_only_series_there_is() -> None:
    def fails(given: Sequence[Point]) -> None:
        if any(point.value == 1 for point in given):
            raise StoreUnavailable("500", 0.0)

    store = Scripted(fails)
    assert set(await drain(Feed(store), points(10, devices=1))) == {1}
    assert store.first_written() == [0, *range(2, 10)]


@pytest.mark.asyncio
async def test_a_point_that_is_alone_in_the_world_may_wait_and_is_not_refused() -> None:
    store = Scripted(unavailable)
    one, waiting = Feed(store), points(1)
    for _ in range(5 * DOUBT_EVERY * STRIKES):
        assert (await one.put(waiting)).done == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("failures", range(5 * DOUBT_EVERY * STRIKES, 5 * DOUBT_EVERY * STRIKES + DOUBT_EVERY))
async def test_a_long_outage_refuses_nothing_and_overtakes_nothing(failures: int) -> None:
    store, waiting = Scripted(unavailable), points(50)
    one = Feed(store)
    for _ in range(failures):
        assert (await one.put(waiting)).done == 0
    store.happen = lambda points: None
    assert await drain(one, waiting) == {}
    for device in ("d0", "d1", "d2"):
        first = list(dict.fromkeys(point.value for point in store.log if point.device == device))
        assert first == sorted(first)


@given(st.integers(0, 2**32), st.floats(0.05, 0.6))
def test_a_store_that_fails_now_and_then_loses_no_good_point(seed: int, share: float) -> None:
    dice = random.Random(seed)

    def flaps(_: Any) -> None:
        if dice.random() < share:
            raise StoreUnavailable("flaps", 0.0)

    store, waiting = Scripted(flaps), points(300)
    assert asyncio.run(drain(Feed(store), waiting, 20_000)) == {}
    assert store.first_written()[-1] == 299
    assert set(store.first_written()) == set(range(300))
