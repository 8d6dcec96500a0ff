"""Feeding the store: one write at a time, as many points as it takes well, and never stuck at a single one.

After a failure writes become small, down to one point, and after each success twice as large again; so a store that
has just come back, or is slow, is not met with all that waits. A point with which every write fails, while the store
takes others, is refused in the end: it must not hold up the rest for ever.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Final, NamedTuple

from engine import metrics
from engine.breaker import Breaker
from engine.errors import PointsRefused, StoreUnavailable, Unfit
from engine.message import Point
from engine.stores.opening import open_soon
from engine.stores.timeseries import Timeseries

log = logging.getLogger("rulemill.store")

WRITE_AT_MOST: Final = 5000
"""Points in one write."""
WRITE_WITHIN_S = 15.0
"""A write that takes longer is given up; whether it was made, nobody knows, and the same points are the same points."""
DOUBT_EVERY = 4
"""After so many failures of one point alone, the next probe asks whether the store takes another one."""
STRIKES = 5
"""Times that a point must fail right after the store took another one, before it is refused.

With the failures before each of them that makes 20 in a row: a store that fails every other time loses no good point.
"""

_LEVELS: Final = {"closed": 0, "half-open": 1, "open": 2}


class Put(NamedTuple):
    """What became of points: the first `done` are done with, all in the store but those `refused` (index, reason)."""

    done: int
    refused: Sequence[tuple[int, str]] = ()


class Feed:
    """Puts points into a store that may be away. Used by one task."""

    def __init__(self, store: Timeseries) -> None:
        self._store = store
        self.name = store.name
        self._opened = False
        self._most = WRITE_AT_MOST
        self._alone: Point | None = None
        """The point that failed alone last, how often it did, and how often right after another one was taken."""
        self._failures = self._strikes = 0
        self._taken: Point | None = None
        """The last point that the store took."""
        self.breaker = Breaker(f"store {self.name}", "points wait in the spool")
        self._tell()

    async def open(self) -> None:
        """Open the store, or leave that to the first write if it is away; raises Unfit if it can never serve."""
        try:
            await open_soon(self._store)
            self._opened = True
        except Unfit:
            await self._store.close()
            raise
        except Exception as error:
            self._failed(error)

    def told(self) -> list[str]:
        """What the store wants to be known, once it is open."""
        return self._store.told() if self._opened else []

    async def put(self, points: Sequence[Point]) -> Put:
        """Try once to put some of the first points into the store; if none are done, wait `breaker.wait_s()`."""
        count = min(len(points), self._most)
        self.breaker.attempt()
        self._tell()
        try:
            if self._in_doubt(points[0]) and (other := self._other(points)) is not None:
                if not await self._write([other]):
                    self._taken = other
                self.breaker.succeeded()
                return await self._confront(points[0])
            refused = await self._write(points[:count])
        except Exception as error:
            # Whatever it was, the points stand in the spool: nobody may stop writing for it.
            self._failed(error)
            self._most = max(1, count // 4)
            if count == 1:
                if points[0] is not self._alone:
                    self._alone, self._failures, self._strikes = points[0], 0, 0
                self._failures += 1
            return Put(0)
        return self._went_well(points[:count], refused)

    def _in_doubt(self, point: Point) -> bool:
        return point is self._alone and self._failures % DOUBT_EVERY == 0

    async def _confront(self, suspect: Point) -> Put:
        """The store takes points: try the one with which it failed."""
        try:
            refused = await self._write([suspect])
        except Exception as error:
            self._strikes += 1
            self._failures += 1
            self._failed(error)
            if self._strikes < STRIKES:
                return Put(0)
            reason = f"the store fails on it and takes others: {_said(error)}"
            log.error("store %s: %s: %s of %s at %d", self.name, reason, suspect.key, suspect.device, suspect.ts_ms)
            refused = [(0, reason)]
        return self._went_well([suspect], refused)

    def _other(self, points: Sequence[Point]) -> Point | None:
        """A point that shows whether the store takes any: the last that it took, else the next of another series.

        Chance chooses the series, since another point may be as bad.
        """
        if self._taken is not None:
            return self._taken
        heads: dict[tuple[str, str, str], Point] = {}
        for point in points:
            heads.setdefault((point.tenant, point.device, point.key), point)
        others = list(heads.values())[1:]
        return random.choice(others) if others else None

    def _went_well(self, points: Sequence[Point], refused: Sequence[tuple[int, str]]) -> Put:
        self.breaker.succeeded()
        self._tell()
        self._alone = None
        if not refused:
            self._taken = points[-1]
        self._most = min(WRITE_AT_MOST, 2 * self._most)
        return Put(len(points), refused)

    async def _open(self) -> None:
        if not self._opened:
            await self._store.open()
            self._opened = True

    async def _write(self, points: Sequence[Point]) -> Sequence[tuple[int, str]]:
        async with asyncio.timeout(WRITE_WITHIN_S):
            await self._open()
            try:
                with metrics.STORE_S.time():
                    await self._store.write(points)
            except PointsRefused as error:
                return error.refused
        return ()

    def _failed(self, error: Exception) -> None:
        metrics.STORE_FAILED.labels(self.name).inc()
        reason = _said(error)
        if not isinstance(error, StoreUnavailable | TimeoutError | Unfit) and reason != self.breaker.reason:
            log.error("store %s: nobody foresaw this", self.name, exc_info=error)
        asked_s = error.retry_after_s if isinstance(error, StoreUnavailable) else 0.0
        self.breaker.failed(reason, asked_s, tolerable=not isinstance(error, TimeoutError))
        self._tell()

    def _tell(self) -> None:
        metrics.STORE_CIRCUIT.labels(self.name).set(_LEVELS[self.breaker.state])


def _said(error: Exception) -> str:
    if isinstance(error, StoreUnavailable | Unfit):
        return error.reason
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return f"{type(error).__name__}: {error}"
