"""The protocol of telemetry stores, and what they return. SQLite is the embedded default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from engine.message import Point


class Page(msgspec.Struct, frozen=True):
    """A part of a range: points in the asked order, and the cursor of the next part (empty: there is none)."""

    points: list[Point]
    cursor: str = ""


class Timeseries(Protocol):
    """Where points live. The same point written twice is one point; the last value for a device, key and ms stands."""

    async def open(self) -> None:
        """Connect and make what is missing; raises StoreUnavailable."""
        ...

    async def close(self) -> None:
        """Finish what is under way and disconnect."""
        ...

    async def write(self, points: Sequence[Point]) -> None:
        """Return when all points are durable; raises StoreUnavailable (none counted as written) or PointsRefused."""
        ...

    async def latest(self, tenant: str, device: str, keys: Sequence[str] | None = None) -> list[Point]:
        """The newest point of each key (all keys when None), sorted by key."""
        ...

    async def range(
        self,
        tenant: str,
        device: str,
        keys: Sequence[str] | None,
        start_ms: int,
        end_ms: int,
        *,
        limit: int = 1000,
        newest_first: bool = False,
        cursor: str = "",
    ) -> Page:
        """Points with start_ms <= ts < end_ms ordered by time then key; BadInput for a cursor that is not ours."""
        ...

    async def delete_device(self, tenant: str, device: str) -> None:
        """Forget every point of a device."""
        ...
