"""The stores that the suite runs against. A store takes part by an entry in STORES; what it cannot do stands there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.message import Point
from engine.stores.influx import InfluxTimeseries
from engine.stores.memory import MemoryTimeseries
from engine.stores.sqlite import SqliteTimeseries
from engine.stores.timeseries import Timeseries
from tests.services import influx_bucket, influx_deletes, shared_influx

T, D = "acme", "dev 1"
NOW = 1451649600512


@dataclass(frozen=True)
class Kind:
    """One store of the suite."""

    opened: Callable[[Path], AbstractAsyncContextManager[Timeseries]]
    """An open, empty store within a folder of its own; it calls pytest.skip (`tests.services.require`) if it cannot."""
    deletes: bool = True
    """`delete` and `delete_device` work; else both raise Unsupported."""
    examples: int = 40
    """How many random histories it is compared with the store in memory by: fewer where a call takes longer."""


@asynccontextmanager
async def memory(_: Path) -> AsyncIterator[Timeseries]:
    store = MemoryTimeseries()
    await store.open()
    yield store
    await store.close()


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncIterator[Timeseries]:
    store = SqliteTimeseries(folder / "points.db")
    await store.open()
    yield store
    await store.close()


@asynccontextmanager
async def influxdb(_: Path) -> AsyncIterator[Timeseries]:
    with influx_bucket(shared_influx()) as server:
        store = InfluxTimeseries(server.url, token=server.token, org=server.org, bucket=server.bucket)
        await store.open()
        yield store
        await store.close()


STORES: dict[str, Kind] = {
    "influxdb": Kind(influxdb, deletes=influx_deletes(), examples=12),
    "memory": Kind(memory),
    "sqlite": Kind(sqlite),
}


def series(key: str, *ts_ms: int, device: str = D, tenant: str = T) -> list[Point]:
    """Points whose value is their time, as doubles."""
    return [Point(tenant, device, key, ts, float(ts)) for ts in ts_ms]


def places(points: list[Point]) -> list[tuple[int, str, str]]:
    """Where points are: time, device, key."""
    return [(point.ts_ms, point.device, point.key) for point in points]
