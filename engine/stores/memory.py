"""Telemetry in memory, for chain tests and dry runs: the same answers as a real store, nothing kept."""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import BadInput, PointsRefused, StoreUnavailable
from engine.message import Point
from engine.stores import cursor as cursors
from engine.stores.timeseries import Page
from engine.stores.values import point_problem


class MemoryTimeseries:
    """A `Timeseries` whose points live as long as the object."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], dict[str, dict[int, Point]]] = {}
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
            keys = self._series.setdefault((point.tenant, point.device), {})
            keys.setdefault(point.key, {})[point.ts_ms] = point
        if refused:
            raise PointsRefused(refused)

    async def latest(self, tenant: str, device: str, keys: Sequence[str] | None = None) -> list[Point]:
        """The newest point of each key, sorted by key."""
        self._check_open()
        found = self._series.get((tenant, device), {})
        wanted = found.keys() if keys is None else found.keys() & set(keys)
        return [found[key][max(found[key])] for key in sorted(wanted)]

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
        """Points with start_ms <= ts < end_ms by time, then by ascending key in either direction."""
        self._check_open()
        if limit < 1:
            raise BadInput("limit must be at least 1")
        behind = cursors.decode(tenant, device, newest_first, cursor) if cursor else None
        found = self._series.get((tenant, device), {})
        wanted = found.keys() if keys is None else found.keys() & set(keys)
        sign = -1 if newest_first else 1
        rows = sorted((sign * ts_ms, key) for key in wanted for ts_ms in found[key] if start_ms <= ts_ms < end_ms)
        if behind is not None:
            rows = [row for row in rows if row > (sign * behind.ts_ms, behind.key)]
        points = [found[key][sign * ts_ms] for ts_ms, key in rows[:limit]]
        more = len(rows) > limit
        last = cursors.Position(points[-1].ts_ms, points[-1].key) if more else None
        return Page(points, cursors.encode(tenant, device, newest_first, last) if last else "")

    async def delete_device(self, tenant: str, device: str) -> None:
        """Forget every point of a device."""
        self._check_open()
        self._series.pop((tenant, device), None)

    def _check_open(self) -> None:
        if not self._opened:
            raise StoreUnavailable("the memory store is not open")
