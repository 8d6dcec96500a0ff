"""How much one device may ask of a process: so many messages in so many seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple

PATTERN: Final = r"^([1-9]\d{0,8}:[1-9]\d{0,5}(,[1-9]\d{0,8}:[1-9]\d{0,5})*)?$"
"""How limits are written: `count:seconds`, several with commas between."""
FORGET_AT: Final = 10_000
"""Devices that are remembered before those are forgotten that have not been heard of for the longest limit's time."""


class _Limit(NamedTuple):
    most: int
    seconds: int


class _Device:
    """What a device has left of each limit, as of `at`."""

    __slots__ = ("at", "left")

    def __init__(self, at: float, left: list[float]) -> None:
        self.at, self.left = at, left


class RateLimits:
    """A bucket for each device and limit, which is full at first and fills evenly. `limits` as PATTERN has it.

    Each process counts for itself. False where there is no limit.
    """

    def __init__(self, limits: str, clock: Callable[[], float] = time.monotonic) -> None:
        pairs = (each.split(":") for each in limits.split(",") if each)
        self._limits = [_Limit(int(count), int(seconds)) for count, seconds in pairs]
        self._longest_s = max((each.seconds for each in self._limits), default=0)
        self._clock = clock
        self._devices: dict[str, _Device] = {}
        self._forget_at = FORGET_AT

    def __bool__(self) -> bool:
        return bool(self._limits)

    def take(self, device: str) -> float:
        """Count a message of a device: 0.0. In how many seconds it may have it, if not now; then nothing is counted."""
        if not self._limits:
            return 0.0
        now = self._clock()
        known = self._devices.get(device)
        if known is None:
            self._make_room(now)
            known = self._devices[device] = _Device(now, [float(each.most) for each in self._limits])
        passed, known.at = now - known.at, now
        known.left = [
            min(left + passed * each.most / each.seconds, each.most)
            for left, each in zip(known.left, self._limits, strict=True)
        ]
        wait_s = max((1 - left) * each.seconds / each.most for left, each in zip(known.left, self._limits, strict=True))
        if wait_s > 0:
            return wait_s
        known.left = [left - 1 for left in known.left]
        return 0.0

    def _make_room(self, now: float) -> None:
        """Forget devices whose buckets are full again."""
        if len(self._devices) < self._forget_at:
            return
        self._devices = {id: each for id, each in self._devices.items() if now - each.at < self._longest_s}
        self._forget_at = max(FORGET_AT, 2 * len(self._devices))
