"""Which telemetry store the settings choose: InfluxDB where they name one, else SQLite in the data folder."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

from engine.config import Settings
from engine.errors import StoreUnavailable, Unfit
from engine.service import end
from engine.stores.influx_access import access
from engine.stores.opening import open_soon
from engine.stores.timeseries import Timeseries

log = logging.getLogger("rulemill.store")

TRY_AGAIN_S: Final = 2.0


def chosen_store(settings: Settings) -> Timeseries:
    """The store of the settings, not yet open; loads nothing that the other one needs."""
    return influx_store(settings) if settings.influx_url else sqlite_store(settings)


def sqlite_file(settings: Settings) -> Path:
    """Where SQLite keeps the points."""
    return settings.folder() / "telemetry.db"


def sqlite_store(settings: Settings) -> Timeseries:
    """SQLite in the data folder, not yet open."""
    from engine.stores.sqlite import SqliteTimeseries

    return SqliteTimeseries(sqlite_file(settings))


def influx_store(settings: Settings) -> Timeseries:
    """The InfluxDB of the settings, which name one, not yet open."""
    from engine.stores.influx import InfluxTimeseries

    return InfluxTimeseries(
        settings.influx_url,
        token=settings.influx_token,
        org=settings.influx_org,
        bucket=settings.influx_bucket,
        username=settings.influx_username,
        password=settings.influx_password,
        ca=settings.influx_ca,
    )


def where_of(settings: Settings) -> str:
    """The store of the settings, for a person; without credentials."""
    if not settings.influx_url:
        return f"sqlite {sqlite_file(settings)}"
    found = access(settings.influx_url, bucket=settings.influx_bucket)
    return f"influxdb {found.base} {found.bucket}"


class Opening:
    """Opens a store; one that is away is tried again until it is there, and whoever asks it meanwhile hears why."""

    def __init__(self, store: Timeseries) -> None:
        self._store = store
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when the store is open or away; raises Unfit."""
        try:
            await open_soon(self._store)
        except StoreUnavailable as error:
            log.warning("store %s: %s; what reads points is answered 503 until then", self._store.name, error.reason)
            self._task = asyncio.create_task(self._again(), name="store-opening")

    async def stop(self) -> None:
        """Close the store."""
        if self._task is not None:
            await end(self._task)
            self._task = None
        await self._store.close()

    async def _again(self) -> None:
        said = ""
        while True:
            await asyncio.sleep(TRY_AGAIN_S)
            try:
                await self._store.open()
            except StoreUnavailable:
                continue
            except Unfit as error:
                if error.reason != said:
                    log.error("store %s: %s", self._store.name, error.reason)
                said = error.reason
            else:
                log.warning("store %s is there", self._store.name)
                return
