"""Telemetry in memory, for chain tests and dry runs: the same answers as a real store, nothing kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from engine.errors import BadInput, PointsRefused, StoreUnavailable
from engine.message import Point
from engine.stores import cursor as cursors
from engine.stores.aggregates import check_functions, of_values, too_many_buckets
from engine.stores.timeseries import MOST_BUCKETS, Bucket, Page
from engine.stores.values import INT64_MAX, INT64_MIN, point_problem
from engine.stores.windows import Window, edges, place

Series = dict[int, Point]
"""The points of one key of one device, by time."""


class MemoryTimeseries:
    """A `Timeseries` whose points live as long as the object. It is what the other stores are compared with."""

    name = "memory"

    def __init__(self) -> None:
        self._devices: dict[tuple[str, str], dict[str, Series]] = {}
        self._opened = False

    async def open(self) -> None:
        """Take calls from now on."""
        self._opened = True

    async def close(self) -> None:
        """Take no more calls; the points stay."""
        self._opened = False

    async def write(self, points: Sequence[Point]) -> None:
        """Keep all points that can be kept; raises PointsRefused naming the others."""
        self._check_open()
        refused: list[tuple[int, str]] = []
        for i, point in enumerate(points):
            reason = point_problem(point)
            if reason is not None:
                refused.append((i, reason))
                continue
            keys = self._devices.setdefault((point.tenant, point.device), {})
            keys.setdefault(point.key, {})[point.ts_ms] = point
        if refused:
            raise PointsRefused(refused)

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
        self._check_open()
        if count < 1:
            raise BadInput("count must be at least 1")
        return [
            point
            for _, _, series in self._series(tenant, devices, keys)
            for point in _within(series, start_ms, end_ms)[: -count - 1 : -1]
        ]

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
        """At most `limit` points by time, then by device and key ascending in either direction."""
        self._check_open()
        if limit < 1:
            raise BadInput("limit must be at least 1")
        mark = cursors.mark(tenant, devices, keys, newest_first)
        sign = -1 if newest_first else 1
        rows = sorted(
            ((sign * point.ts_ms, device, key), point)
            for device, key, series in self._series(tenant, devices, keys)
            for point in _within(series, start_ms, end_ms)
        )
        if cursor:
            ts_ms, device, key = cursors.decode(mark, cursor)
            rows = [row for row in rows if row[0] > (sign * ts_ms, device, key)]
        points = [point for _, point in rows[:limit]]
        if len(rows) <= limit:
            return Page(points)
        last = points[-1]
        return Page(points, cursors.encode(mark, cursors.Position(last.ts_ms, last.device, last.key)))

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
        """What each series gives in each window that has a point in the range, by device, key and time."""
        self._check_open()
        asked = check_functions(functions)
        bounds = [start_ms, end_ms] if window is None else edges(window, start_ms, end_ms)
        buckets: list[Bucket] = []
        for device, key, series in self._series(tenant, devices, keys):
            points = _within(series, start_ms, end_ms)
            for i, found in groupby(points, lambda point: place(bounds, point.ts_ms)):
                some = list(found)
                values = of_values(asked, [point.value for point in some])
                buckets.append(Bucket(device, key, bounds[i], bounds[i + 1], values))
            if len(buckets) > MOST_BUCKETS:
                raise too_many_buckets()
        return buckets

    async def keys(self, tenant: str, device: str) -> list[str]:
        """The keys a device has points of, sorted."""
        self._check_open()
        return [key for _, key, _ in self._series(tenant, [device], None)]

    async def tenants(self) -> list[str]:
        """The tenants that have points, sorted."""
        self._check_open()
        return sorted({tenant for (tenant, _), keys in self._devices.items() if any(keys.values())})

    async def devices(self, tenant: str) -> list[str]:
        """The devices of a tenant that have points, sorted."""
        self._check_open()
        return sorted(
            device for (owner, device), keys in self._devices.items() if owner == tenant and any(keys.values())
        )

    async def delete(
        self, tenant: str, devices: Sequence[str], keys: Sequence[str] | None, start_ms: int, end_ms: int
    ) -> None:
        """Forget the points of a range."""
        self._check_open()
        for device, key, series in list(self._series(tenant, devices, keys)):
            for point in _within(series, start_ms, end_ms):
                del series[point.ts_ms]
            if not series:
                del self._devices[tenant, device][key]

    async def delete_device(self, tenant: str, device: str) -> None:
        """Forget every point of a device."""
        self._check_open()
        self._devices.pop((tenant, device), None)

    def told(self) -> list[str]:
        """One thing: that nothing is kept."""
        return ["points are kept in memory only, and are gone when the process ends"]

    def _series(
        self, tenant: str, devices: Sequence[str], keys: Sequence[str] | None
    ) -> Iterator[tuple[str, str, Series]]:
        for device in sorted(set(devices)):
            found = self._devices.get((tenant, device), {})
            for key in sorted(found.keys() if keys is None else found.keys() & set(keys)):
                yield device, key, found[key]

    def _check_open(self) -> None:
        if not self._opened:
            raise StoreUnavailable("the memory store is not open")


def _within(series: Series, start_ms: int, end_ms: int) -> list[Point]:
    """The points of start <= ts < end, by time."""
    return [series[ts_ms] for ts_ms in sorted(series) if start_ms <= ts_ms < end_ms]
