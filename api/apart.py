"""`rulemill api` by itself: the checks of its Redis, the operator's token, and word of where it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from api.app import run_api
from api.certificate import check_certificate
from api.embedded_redis import FolderTakenError, check_given, lock
from api.private_file import write_private
from api.sockets import addresses, bind
from api.up import facts_of, operator_token
from engine.config import Loaded


async def run_api_apart(loaded: Loaded, *, bootstrap: str | None) -> None:
    """Serve on a Redis that others share, until a signal says stop.

    ready.json tells where, unless another server has the data folder.
    """
    settings = loaded.settings
    check_certificate(settings)
    notes = check_given(settings.redis_url, settings.durability)
    sockets, _ = bind(addresses(loaded), loaded.named, fall_back=False)
    folder = settings.folder()
    with _held(folder) as ours:
        token = operator_token(settings)

        def tell() -> None:
            for note in notes:
                click.echo(f"note: {note}")
            facts = facts_of(sockets, token)
            if ours:
                write_private(folder / "ready.json", json.dumps(facts, indent=2))
            click.echo(f"Rulemill's API is ready.  HTTP {facts['http']}   MQTT {facts['mqtt']}   data {folder}")

        known = msgspec.structs.replace(settings, operator_token=token)
        await run_api(known, settings.redis_url, sockets, bootstrap=bootstrap, tell=tell)


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold the folder's ready.json if nobody does; whether that is so."""
    try:
        lock(folder)
    except FolderTakenError:
        yield False
        return
    try:
        yield True
    finally:
        (folder / "ready.json").unlink(missing_ok=True)
