"""The telemetry store itself, as verbs open it: with the server's settings, whether the server runs or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import click

from api.cli.client import Server
from api.cli.output import Failed
from engine.config import Settings, load
from engine.errors import StoreUnavailable, Unfit
from engine.stores.chosen import influx_store, sqlite_file, sqlite_store
from engine.stores.timeseries import Timeseries


def settings_of(config: str | None, data: str | None) -> Settings:
    """The settings that a server here has."""
    return load({"data": data}, file=config).settings


def settings_flags(command: Callable[..., None]) -> Callable[..., None]:
    """The flags that say which settings."""
    for option in (
        click.option("--data", metavar="FOLDER", help="The server's folder (or RULEMILL_DATA)."),
        click.option("--config", metavar="FILE", help="The server's TOML file of settings (or RULEMILL_CONFIG)."),
    ):
        command = option(command)
    return command


@asynccontextmanager
async def opened(store: Timeseries, where: str) -> AsyncIterator[Timeseries]:
    """The store, open; Failed when it cannot be opened."""
    try:
        try:
            await store.open()
        except (StoreUnavailable, Unfit) as error:
            raise Failed(f"{where}: {error.reason}") from error
        yield store
    finally:
        await store.close()


def running(settings: Settings, tenant: str | None = None) -> Server | None:
    """The server that runs on the folder of these settings; None if there is none."""
    try:
        ready: dict[str, Any] = json.loads((settings.folder() / "ready.json").read_bytes())
        return Server(str(ready["http"]), str(ready["operator_token"]), tenant)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stores_of(server: Server | None) -> set[str]:
    """The names of the stores that a server's workers write to; empty when it does not say."""
    if server is None:
        return set()
    try:
        return {str(one["store"]) for one in server.get("/status")["stores"]}
    except Failed:
        return set()


def check_same(store: Timeseries, server: Server | None) -> None:
    """Failed when the server that runs here has another store than these settings say."""
    others = stores_of(server)
    if others and store.name not in others:
        raise Failed(
            f"the server that runs here keeps its points in {', '.join(sorted(others))}, and these settings say "
            f"{store.name}: give the settings that it was started with (RULEMILL_INFLUX_URL, --config)"
        )


def store_of(settings: Settings, *, make: bool) -> Timeseries:
    """The store of the settings, not yet open. Failed when `make` is false and there is no file yet."""
    return influx_of(settings) if settings.influx_url else sqlite_of(settings, make=make)


def sqlite_of(settings: Settings, *, make: bool) -> Timeseries:
    """SQLite in the data folder, not yet open. Failed when `make` is false and there is no file yet."""
    file = sqlite_file(settings)
    if not make and not file.exists():
        raise Failed(
            f"there is no {file}: name the folder of the server with --data or RULEMILL_DATA, or its InfluxDB with "
            "RULEMILL_INFLUX_URL or --config"
        )
    return sqlite_store(settings)


def influx_of(settings: Settings) -> Timeseries:
    """The InfluxDB of the settings, not yet open. Failed when they name none."""
    if not settings.influx_url:
        raise Failed("no InfluxDB is set: RULEMILL_INFLUX_URL, and what goes with it (docs/settings.md)")
    return influx_store(settings)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run it to its end; what stops it becomes one line."""
    try:
        asyncio.run(main)
    except StoreUnavailable as error:
        raise Failed(f"the store is away: {error.reason}") from error
    except KeyboardInterrupt:
        raise click.Abort from None
