"""So many messages of a device in so many seconds."""

from __future__ import annotations

import re

import pytest

from api import rate_limits
from api.rate_limits import PATTERN, RateLimits

pytestmark = pytest.mark.spec("TB-S40", "G-12")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_empties_and_fills_evenly() -> None:
    clock = Clock()
    limits = RateLimits("3:6", clock)
    assert [limits.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 2.0]
    clock.now += 1.5
    assert limits.take("a") == 0.5
    clock.now += 0.5
    assert [limits.take("a"), limits.take("a")] == [0.0, 2.0]
    assert limits.take("b") == 0.0, "every device has its own"
    clock.now += 1000
    assert [limits.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 2.0]


def test_the_strictest_of_several_limits_counts_and_what_is_refused_costs_nothing() -> None:
    clock = Clock()
    limits = RateLimits("2:1,3:60", clock)
    assert [limits.take("a") for _ in range(3)] == [0.0, 0.0, 0.5]
    clock.now += 1
    assert limits.take("a") == 0.0
    assert limits.take("a") > 10
    clock.now += 60
    assert [limits.take("a"), limits.take("a")] == [0.0, 0.0]


def test_no_limit_costs_nothing_and_remembers_nobody() -> None:
    limits = RateLimits("")
    assert (bool(limits), limits.take("a"), limits._devices) == (False, 0.0, {})


def test_devices_that_are_silent_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "FORGET_AT", 10)
    clock = Clock()
    limits = RateLimits("1:5", clock)
    for i in range(1000):
        limits.take(f"d{i}")
        clock.now += 1
        assert len(limits._devices) <= 20
    assert limits.take("d999") > 0


@pytest.mark.parametrize("text", ["", "1:1", "100:1,2000:60", "999999999:999999"])
def test_how_limits_are_written(text: str) -> None:
    assert re.search(PATTERN, text)
    RateLimits(text)


@pytest.mark.parametrize("text", ["0:1", "1:0", "1", "1:1,", ",1:1", "a:b", "1.5:1", "-1:1", " 1:1"])
def test_what_is_no_limit(text: str) -> None:
    assert not re.search(PATTERN, text)
