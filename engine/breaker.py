"""A circuit breaker: whether somebody outside who failed may be asked again, and when.

Closed: asked freely. Open: asked by nobody until the wait is over. Half-open: one probe is under way, and its end
closes or opens the circuit. One line is logged per change, not per attempt.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Final, Literal

from engine.message import now_ms

log = logging.getLogger("rulemill.breaker")

State = Literal["closed", "open", "half-open"]

TOLERATED: Final = 1
"""Failures in a row that open nothing: a kept connection may have been closed by the other end meanwhile."""
FIRST_WAIT_S: Final = 0.25
LONGEST_WAIT_S: Final = 5.0
LONGEST_ASKED_S: Final = 300.0
"""What `Retry-After` may ask of us; a proxy that says "tomorrow" is asked again all the same."""


class Breaker:
    """The circuit to `what`; nothing here waits. `consequence` is what the log says about an open circuit."""

    def __init__(self, what: str, consequence: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._consequence, self._clock = what, consequence, clock
        self._failures = 0
        self._due = 0.0
        self._opened = 0.0
        self.state: State = "closed"
        self.reason = ""
        """Why the last attempt failed; empty after one that did not."""
        self.since_ms = now_ms()
        """When the circuit was closed, or opened, last (wall clock)."""

    def wait_s(self) -> float:
        """Seconds until the next attempt may be made; 0: now."""
        return max(0.0, self._due - self._clock())

    def attempt(self) -> None:
        """An attempt begins."""
        if self.state == "open":
            self.state = "half-open"

    def succeeded(self) -> None:
        """It went well."""
        self._failures, self._due, self.reason = 0, 0.0, ""
        if self.state != "closed":
            self.state, self.since_ms = "closed", now_ms()
            log.warning("%s answers again after %.1f s", self._what, self._clock() - self._opened)

    def failed(self, reason: str, asked_s: float = 0.0, *, tolerable: bool = True) -> None:
        """It did not; the other end asked to be left alone for `asked_s`."""
        self._failures += 1
        self.reason = reason
        backoff_s = min(FIRST_WAIT_S * 2.0 ** min(self._failures - 1, 30), LONGEST_WAIT_S) * random.uniform(0.8, 1.2)
        wait_s = max(min(asked_s, LONGEST_ASKED_S), backoff_s)
        self._due = self._clock() + wait_s
        if self.state == "half-open":
            self.state = "open"
        elif self.state == "closed" and (self._failures > TOLERATED or not tolerable):
            self.state, self.since_ms, self._opened = "open", now_ms(), self._clock()
            log.warning("%s: %s; %s, tried again in %.1f s", self._what, reason, self._consequence, wait_s)
