"""`rulemill up`: a whole server on one machine, from an empty folder to `ready.json`."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from api.certificate import check_certificate
from api.dialect_settings import dialect_settings
from api.embedded_redis import EmbeddedRedis, check_given, lock
from api.private_file import write_private
from api.process import connect, partition_count, stopping
from api.sockets import addresses, bind, pack, shown
from api.supervisor import Child, Supervisor
from engine.config import LISTENERS, Loaded, Settings, as_variable
from engine.errors import StoreUnavailable
from engine.leases import give_back

log = logging.getLogger("rulemill.up")


def operator_token(settings: Settings) -> str:
    """The operator's token: as set, else the one made at the first start."""
    if settings.operator_token:
        return settings.operator_token
    path = settings.folder() / "operator-token"
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32))
    return path.read_text().strip()


async def run_up(loaded: Loaded, *, demo: bool, bootstrap: str | None) -> None:
    """Start everything, say where it is, and run until a signal says stop."""
    stop = stopping()
    settings = loaded.settings
    if settings.connectors:
        from api.connectors import named

        named(settings.connectors)
    folder = settings.folder()
    check_certificate(settings)
    dialect_settings(settings)
    lock(folder)
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    token = operator_token(settings)
    doors = addresses(loaded)
    if demo and "ct_http" not in doors:
        doors["ct_http"] = f"127.0.0.1:{LISTENERS['ct_http'].port}"
    sockets, notes = bind(doors, loaded.named, fall_back=demo)
    if settings.influx_url:
        notes += await _look_at_influx(settings)
    redis = redis_process = None
    if settings.redis_url:
        url = settings.redis_url
        notes += await asyncio.to_thread(check_given, url, settings.durability)
    else:
        fsync = "always" if settings.durability == "durable" else "everysec"
        redis = EmbeddedRedis(folder / "redis", fsync=fsync, max_memory=settings.redis_max_memory)
        redis_process = await redis.start()
        url = redis.url
    if settings.durability == "fast":
        notes.append("durability is `fast`: a power cut may lose up to one second of acknowledged messages")
    client = connect(url, "up")
    partitions = await partition_count(client, settings.partitions)
    await client.aclose()
    if redis is not None:
        # Whoever owned partitions of this folder has died with the parent whose lock we hold now.
        await asyncio.to_thread(give_back, url, None, partitions)
    environment = _environment(loaded, url, token, demo)
    packed, descriptors = pack(sockets), tuple(each.fileno() for each in sockets.values())
    # The datagrams of one CoAP exchange must all come to one process: the first.
    shared = pack({key: each for key, each in sockets.items() if LISTENERS[key].family != "coap"})
    children = [
        Child(
            "api",
            _api_arguments(shared if i else packed, bootstrap if i == 0 else None, demo and i == 0),
            descriptors,
            environment,
        )
        for i in range(settings.api_processes)
    ]
    children += [Child("worker", _worker_arguments, (), environment) for _ in range(settings.worker_count())]
    supervisor = Supervisor(children, url, partitions, redis)
    try:
        await supervisor.start(redis_process)
        facts = facts_of(sockets, token)
        demo_file = folder / "demo.json"
        if demo and demo_file.exists():
            facts |= json.loads(demo_file.read_text())
        write_private(ready, json.dumps(facts, indent=2))
        _tell(facts, notes, folder, demo)
        failed = asyncio.ensure_future(supervisor.failed.wait())
        asked = asyncio.ensure_future(stop.wait())
        await asyncio.wait([failed, asked], return_when=asyncio.FIRST_COMPLETED)
        failed.cancel()
        asked.cancel()
        click.echo("stopping: finishing what was accepted …", err=True)
    finally:
        ready.unlink(missing_ok=True)
        for each in sockets.values():
            each.close()
        await supervisor.stop()
    if supervisor.failed.is_set():
        raise SystemExit(1)


async def _look_at_influx(settings: Settings) -> list[str]:
    """What is to be known of the InfluxDB that keeps the points; raises Unfit for one that never can."""
    from engine.stores.chosen import chosen_store, where_of
    from engine.stores.opening import open_soon

    store = chosen_store(settings)
    try:
        await open_soon(store)
        return [f"{where_of(settings)}: {note}" for note in store.told()]
    except StoreUnavailable as error:
        return [f"{where_of(settings)} is away, and points wait until it is there: {error.reason}"]
    finally:
        await store.close()


def _environment(loaded: Loaded, url: str, token: str, demo: bool) -> dict[str, str]:
    """What children need to come to the same settings: all but the doors, which they are handed open."""
    settings = loaded.settings
    plain: dict[str, Any] = {
        field: getattr(settings, field) for field in Settings.__struct_fields__ if field not in ("listeners", "tls")
    }
    plain |= {"data": str(settings.folder()), "redis_url": url, "operator_token": token}
    plain |= {f"tls_{field}": value for field, value in msgspec.structs.asdict(settings.tls).items()}
    if demo:
        # Without certificates, nobody could try an app.
        plain["thethingsio"] = {"require_tls": False, **settings.thethingsio}
    return {f"RULEMILL_{name.upper()}": as_variable(value) for name, value in plain.items()}


def _api_arguments(sockets: str, bootstrap: str | None, demo: bool) -> Callable[[str], list[str]]:
    """What a process is started with. Only the first one makes what is asked for: one that follows it after a crash
    would undo what people have changed meanwhile."""
    plain = ["api", "--sockets", sockets]
    asked = [*(["--bootstrap", bootstrap] if bootstrap else []), *(["--demo"] if demo else [])]

    def arguments(name: str) -> list[str]:
        given = [*plain, *asked]
        asked.clear()
        return given

    return arguments


def _worker_arguments(name: str) -> list[str]:
    return ["worker", "--name", name]


def facts_of(sockets: Mapping[str, socket.socket], token: str) -> dict[str, Any]:
    """The content of ready.json."""
    where = {key: shown(each) for key, each in sockets.items()}
    return {
        "http": f"http://{where['http']}",
        "mqtt": where["mqtt"],
        "listeners": where,
        "operator_token": token,
    }


def _tell(facts: Mapping[str, Any], notes: list[str], folder: Path, demo: bool) -> None:
    for note in notes:
        click.echo(f"note: {note}")
    click.echo(f"Rulemill is ready.  HTTP {facts['http']}   MQTT {facts['mqtt']}   data {folder}")
    for key, address in facts["listeners"].items():
        if key not in ("http", "mqtt"):
            click.echo(f"  {key}: {address}")
    click.echo(f"Management API: {facts['http']}/flow/v1  (operator token in {folder / 'ready.json'})")
    if demo and "devices" in facts:
        token = facts["devices"]["thingsboard"]["token"]
        click.echo("\nTry it, in another terminal:\n")
        click.echo(f"  curl -d '{{\"temperature\": 42}}' {facts['http']}/api/v1/{token}/telemetry")
        command = _command()
        click.echo(f"  {command} points latest demo-thermometer")
        click.echo(f"  {command} alarm list\n")
        operator = facts["operator"]
        click.echo(
            f"Operators log in at {facts['http']}/api/auth/login as {operator['username']}  {operator['password']}\n"
        )


def _command() -> str:
    """How a shell in this folder calls us: by name if that is found, else by the path we were started by."""
    return "rulemill" if shutil.which("rulemill") else sys.argv[0]
