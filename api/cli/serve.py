"""`rulemill up`, `api`, `worker`: the verbs that serve."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import click

from engine.config import Loaded, load
from engine.errors import RulemillError

log = logging.getLogger("rulemill")


def _loop(main: Coroutine[Any, Any, None]) -> None:
    import uvloop

    uvloop.run(main)


def _logging(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr, force=True
    )
    for name in ("httpx", "hypercorn.error", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _flags(*options: Callable[..., Any]) -> Callable[..., Any]:
    """One decorator of several, their flags shown in this order."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


settings_options = _flags(
    click.option("--config", metavar="FILE", help="TOML file of settings (or RULEMILL_CONFIG)."),
    click.option("--data", metavar="FOLDER", help="Folder of everything that is kept (or RULEMILL_DATA)."),
    click.option("--redis-url", metavar="URL", help="A Redis of yours; without it, `rulemill up` starts one."),
    click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="How much is logged."),
)
"""The flags that every serving verb takes."""

door_options = _flags(
    click.option("--http", metavar="HOST:PORT", help="Where HTTP is served; 127.0.0.1:8080 by default."),
    click.option("--mqtt", metavar="HOST:PORT", help="Where MQTT is served; 127.0.0.1:1883 by default."),
    click.option("--bootstrap", metavar="FILE", help="JSON file of what shall exist: tenants, devices, chains …"),
)
"""The flags of those that devices and apps come to."""


def _loaded(config: str | None, **flags: Any) -> Loaded:
    return load(flags, file=config)


@click.command()
@settings_options
@door_options
@click.option("--workers", type=int, help="Worker processes; by default one less than there are cores.")
@click.option("--demo", is_flag=True,
              help="Make a demo tenant with a device of each dialect; let apps in without TLS.")  # fmt: skip
def up(demo: bool, bootstrap: str | None, **flags: Any) -> None:
    """Start a whole server: Redis, API, workers, telemetry store.

    \b
    Everything is kept in ./rulemill-data (RULEMILL_DATA names another folder).
    Stop it with Ctrl-C or SIGTERM: what was accepted is finished first.
    Examples:
      rulemill up --demo
      rulemill up --http 0.0.0.0:80 --data /var/lib/rulemill --bootstrap site.json
    """
    loaded = _loaded(**flags)
    _logging(loaded.settings.log_level)
    from api.up import run_up

    _loop(run_up(loaded, demo=demo, bootstrap=bootstrap))


@click.command()
@settings_options
@door_options
@click.option("--sockets", hidden=True, default="")
@click.option("--demo", is_flag=True, hidden=True)
def api(sockets: str, bootstrap: str | None, demo: bool, **flags: Any) -> None:
    """Serve devices and apps only; needs a Redis (RULEMILL_REDIS_URL), and workers beside it.

    \b
    Points are read from the workers' store: the SQLite file of the same folder,
    or InfluxDB.
    Example:
      rulemill api --redis-url redis://redis.example:6379
    """
    loaded = _loaded(**flags)
    _logging(loaded.settings.log_level)
    url = _redis_url(loaded)
    if sockets:
        from api.app import run_api
        from api.sockets import unpack

        _loop(run_api(loaded.settings, url, unpack(sockets), bootstrap=bootstrap, demo=demo))
    else:
        from api.apart import run_api_apart

        _loop(run_api_apart(loaded, bootstrap=bootstrap))


@click.command()
@settings_options
@click.option("--name", hidden=True, default="")
def worker(name: str, **flags: Any) -> None:
    """Run chains only; needs the Redis of the API processes (RULEMILL_REDIS_URL).

    \b
    Points go to the SQLite file of the folder, or to InfluxDB.
    Example:
      rulemill worker --redis-url redis://redis.example:6379
    """
    loaded = _loaded(**flags)
    _logging(loaded.settings.log_level)
    from api.app import run_worker

    url = _redis_url(loaded)
    if not name:
        # With a name it is the child of a parent that has looked at its Redis already.
        from api.embedded_redis import check_given

        for note in check_given(url, loaded.settings.durability):
            click.echo(f"note: {note}")
        click.echo(f"Rulemill's worker starts.  data {loaded.settings.folder()}")
    _loop(run_worker(loaded.settings, url, name))


def _redis_url(loaded: Loaded) -> str:
    if not loaded.settings.redis_url:
        raise RulemillError("this role needs a Redis: set RULEMILL_REDIS_URL, or start everything with `rulemill up`")
    return loaded.settings.redis_url
