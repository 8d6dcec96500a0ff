"""The protocol of telemetry stores, and what they return. SQLite is the embedded default, InfluxDB the large one.

A *series* is one key of one device. Every time is in milliseconds since 1970 UTC, every range is start <= ts < end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

from engine.message import Point
from engine.stores.values import INT64_MAX, INT64_MIN
from engine.stores.windows import Window

FUNCTIONS: Final = ("count", "min", "max", "sum", "mean", "first", "last")
"""What an aggregate may ask for, besides `p` and a number from 0 to 100 (`p95`, `p99.9`): a percentile.

`count`, `first` and `last` take values of every type. The others take numbers, and nothing else: a series whose type
changed is aggregated over its numbers, and a window without one has None. min, max and percentiles are values that
were measured, with their type (percentile: nearest rank, p0 is the smallest; of a long and a double of the same value
the long is the smaller one; -0.0 shows as 0.0); sum is a long while all are longs and it fits, else a double; mean is
a double. Neither is there (None) where it would be beyond every double. `aggregates` has the arithmetic.
"""

MOST_BUCKETS: Final = 500_000
"""Buckets that one aggregate gives, all series together."""


class Page(msgspec.Struct, frozen=True):
    """A part of a range: points in the asked order, and the cursor of the next part (empty: there is none)."""

    points: list[Point]
    cursor: str = ""


class Bucket(msgspec.Struct, frozen=True):
    """What one series gave in one window: `values` has every function that was asked for, None where it has nothing."""

    device: str
    key: str
    start_ms: int
    end_ms: int
    values: dict[str, Any]


class Timeseries(Protocol):
    """Where points live. The same point written twice is one point; the last value for a device, key and ms stands.

    Names are free text: no tenant, device or key can reach what is another's, whatever it is called. Every read takes
    several devices and keys at once and asks the store once (`keys` None: all there are); unknown ones give nothing.
    Reads and deletions raise StoreUnavailable.
    """

    name: str
    """What metrics and messages call it: `sqlite`, `influxdb`, `memory`."""

    async def open(self) -> None:
        """Connect and make what is missing; raises StoreUnavailable, or Unfit for a store that can never serve."""
        ...

    async def close(self) -> None:
        """Finish what is under way and disconnect."""
        ...

    async def write(self, points: Sequence[Point]) -> None:
        """Return when all points are durable; raises StoreUnavailable (none counted as written) or PointsRefused."""
        ...

    async def latest(
        self,
        tenant: str,
        devices: Sequence[str],
        keys: Sequence[str] | None = None,
        *,
        count: int = 1,
        start_ms: int = INT64_MIN,
        end_ms: int = INT64_MAX,
    ) -> list[Point]:
        """The newest `count` points of each series within the range, by device, then key, then the newest first."""
        ...

    async def range(
        self,
        tenant: str,
        devices: Sequence[str],
        keys: Sequence[str] | None,
        start_ms: int,
        end_ms: int,
        *,
        limit: int = 1000,
        newest_first: bool = False,
        cursor: str = "",
    ) -> Page:
        """At most `limit` points by time, then by device and key ascending in either direction.

        A cursor goes on where its page ended, whatever was written meanwhile; BadInput for one that is not ours.
        """
        ...

    async def aggregate(
        self,
        tenant: str,
        devices: Sequence[str],
        keys: Sequence[str] | None,
        start_ms: int,
        end_ms: int,
        functions: Sequence[str],
        window: Window | None = None,
    ) -> list[Bucket]:
        """What each series gives in each window that has a point in the range, by device, key and time.

        Points outside the range count nowhere, also where a window reaches beyond it; its bucket has the edges of the
        whole window. Without a window the range as it was asked is one. BadInput for no or an unknown function, for a
        range of more than `windows.MOST` windows, and for more than `MOST_BUCKETS` in all.
        """
        ...

    async def keys(self, tenant: str, device: str) -> list[str]:
        """The keys a device has points of, sorted."""
        ...

    async def tenants(self) -> list[str]:
        """The tenants that have points, sorted."""
        ...

    async def devices(self, tenant: str) -> list[str]:
        """The devices of a tenant that have points, sorted."""
        ...

    async def delete(
        self, tenant: str, devices: Sequence[str], keys: Sequence[str] | None, start_ms: int, end_ms: int
    ) -> None:
        """Forget the points of a range; raises Unsupported where the store cannot."""
        ...

    async def delete_device(self, tenant: str, device: str) -> None:
        """Forget every point of a device; raises Unsupported where the store cannot."""
        ...

    def told(self) -> list[str]:
        """What somebody who runs the store should know: limits that it will hit, rights it lacks; found at `open`."""
        ...
