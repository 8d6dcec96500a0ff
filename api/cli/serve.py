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


def settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """The flags that every serving verb takes."""
    for option in reversed(
        (
            click.option("--config", metavar="FILE", help="TOML file of settings (or RULEMILL_CONFIG)."),
            click.option("--data", metavar="FOLDER", help="Folder of everything that is kept."),
            click.option("--redis-url", metavar="URL", help="Redis to use instead of the embedded one."),
            click.option("--http", metavar="HOST:PORT", help="Where HTTP is served."),
            click.option("--mqtt", metavar="HOST:PORT", help="Where MQTT is served."),
            click.option(
                "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="How much is logged."
            ),
        )
    ):
        command = option(command)
    return command


def _loaded(config: str | None, **flags: Any) -> Loaded:
    return load(flags, file=config)


@click.command()
@settings_options
@click.option("--workers", type=int, help="Worker processes; 0: one less than there are cores.")
@click.option("--demo", is_flag=True, help="Make a demo tenant with devices of every dialect, fresh credentials.")
@click.option("--bootstrap", metavar="FILE", help="JSON file of tenants, products, devices and chains to make.")
def up(demo: bool, bootstrap: str | None, **flags: Any) -> None:
    """Start a whole server: Redis, API, workers, telemetry store.

    \b
    Everything is kept in ./rulemill-data (RULEMILL_DATA names another folder).
    Stop it with Ctrl-C or SIGTERM: what was accepted is finished first.
    """
    loaded = _loaded(**flags)
    _logging(loaded.settings.log_level)
    from api.up import run_up

    _loop(run_up(loaded, demo=demo, bootstrap=bootstrap))


@click.command()
@settings_options
@click.option("--sockets", hidden=True, default="")
@click.option("--bootstrap", metavar="FILE", help="JSON file of tenants, products, devices and chains to make.")
@click.option("--demo", is_flag=True, hidden=True)
def api(sockets: str, bootstrap: str | None, demo: bool, **flags: Any) -> None:
    """Serve devices and apps only; needs a Redis (RULEMILL_REDIS_URL), and workers elsewhere."""
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
    """Run chains only; needs a Redis (RULEMILL_REDIS_URL) that API processes share."""
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
