"""The circuit breaker: asked freely, left alone, probed; told once per change."""

from __future__ import annotations

import logging

import pytest

from engine.breaker import FIRST_WAIT_S, LONGEST_ASKED_S, LONGEST_WAIT_S, TOLERATED, Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("store toy", "points wait", clock)


def opened(breaker: Breaker) -> None:
    for _ in range(TOLERATED + 1):
        breaker.attempt()
        breaker.failed("down")


def test_a_single_failure_opens_nothing_but_is_waited_for(breaker: Breaker) -> None:
    breaker.attempt()
    breaker.failed("connection closed")
    assert (breaker.state, breaker.reason) == ("closed", "connection closed")
    assert 0.7 * FIRST_WAIT_S < breaker.wait_s() < 1.3 * FIRST_WAIT_S
    breaker.attempt()
    breaker.succeeded()
    assert (breaker.state, breaker.reason, breaker.wait_s()) == ("closed", "", 0.0)


def test_what_is_no_accident_opens_at_once(breaker: Breaker) -> None:
    breaker.attempt()
    breaker.failed("no answer in time", tolerable=False)
    assert breaker.state == "open"


def test_a_probe_closes_or_opens(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    assert breaker.state == "open"
    clock.now += breaker.wait_s()
    assert breaker.wait_s() == 0
    breaker.attempt()
    assert breaker.state == "half-open"
    breaker.failed("still down")
    assert (breaker.state, breaker.reason) == ("open", "still down")
    breaker.attempt()
    breaker.succeeded()
    assert (breaker.state, breaker.wait_s()) == ("closed", 0.0)


def test_waits_grow_to_a_bound(breaker: Breaker, clock: Clock) -> None:
    waits = []
    for _ in range(2000):  # 2.0 ** 2000 is no float
        breaker.attempt()
        breaker.failed("down")
        waits.append(breaker.wait_s())
        clock.now += waits[-1]
    assert waits[4] > 4 * waits[0]
    assert 0.7 * LONGEST_WAIT_S < min(waits[10:]) <= max(waits) < 1.3 * LONGEST_WAIT_S
    assert max(waits[10:]) - min(waits[10:]) > 0.1 * LONGEST_WAIT_S, "workers would all come at once"


def test_what_the_other_end_asks_for_is_obeyed_within_reason(breaker: Breaker, clock: Clock) -> None:
    breaker.attempt()
    breaker.failed("503", asked_s=30.0)
    assert breaker.wait_s() == 30.0
    clock.now += 29.0
    assert breaker.wait_s() == 1.0
    breaker.failed("503", asked_s=86_400.0)
    assert breaker.wait_s() == LONGEST_ASKED_S


def test_one_line_per_change(breaker: Breaker, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(50):
            breaker.attempt()
            breaker.failed("connection refused")
            clock.now += 10
        breaker.attempt()
        breaker.succeeded()
        for _ in range(50):
            breaker.attempt()
            breaker.succeeded()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("store toy: connection refused; points wait, tried again in ")
    assert lines[1] == "store toy answers again after 490.0 s"


def test_since_tells_when_it_changed_last(breaker: Breaker) -> None:
    began = breaker.since_ms
    breaker.attempt()
    breaker.succeeded()
    assert breaker.since_ms == began
    opened(breaker)
    since = breaker.since_ms
    assert since >= began
    breaker.attempt()
    breaker.failed("down")
    assert breaker.since_ms == since
