"""`rulemill chain run`: one message dry through a chain, node by node, and everything it would do."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from api.cli.arguments import pairs, read_json, read_text
from api.cli.chain_reading import CHAIN, read_chain_file
from api.cli.client import Server, with_server
from api.cli.output import Failed, local_time, plain, print_json, print_table, short
from engine.errors import InvalidDocument

TELEMETRY: Final = "POST_TELEMETRY_REQUEST"
RAW: Final = "RAW_UPLINK"
WAITING: Final = ("TO_SERVER_RPC_REQUEST", "RPC_CALL_FROM_SERVER_TO_DEVICE")
"""Types of messages whose sender waits for a reply."""


@click.command()
@click.argument("chain", required=False, metavar="[NAME|FILE]")
@click.option("--message", metavar="JSON", help="The data: JSON, or @file.json, or @- for standard input.")
@click.option("--hex", "as_hex", metavar="BYTES", help="The data as bytes, in place of --message: 01a4.")
@click.option("--type", help=f"Type of the message; {TELEMETRY} by default, {RAW} for bytes.")
@click.option("--device", metavar="DEVICE", help="Come from this one: nodes see its attributes and active alarms.")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="May be repeated.")
@click.option("--version", type=click.IntRange(1), help="Of the chain NAME; the latest by default.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, with the message after each node.")
@with_server()
def run(
    server: Server, chain: str | None, message: str | None, as_hex: str | None, type: str | None,
    device: str | None, metadata: tuple[str, ...], version: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Run one message dry: say what every node does with it and what would come of it. Nothing is written or called.

    \b
    NAME is a chain of the server, FILE one that need not be deployed; without
    either, the message runs through what is deployed.
    Examples:
      rulemill chain run demo --message '{"temperature": 41}'
      rulemill chain run greenhouse.json --message @hot.json --device demo-thermometer
      rulemill chain run demo --type TO_SERVER_RPC_REQUEST --message '{"method": "getTime", "params": {}}'
      rulemill chain run demo --hex 01a4 --device demo-sensor
    """
    if (message is None) == (as_hex is None):
        raise click.UsageError("say what the message holds: --message JSON, or --hex BYTES")
    kind = type or (TELEMETRY if as_hex is None else RAW)
    body: dict[str, Any] = {"message": {"type": kind, "metadata": pairs(metadata, "--metadata")}}
    if as_hex is not None:
        body["message"]["raw_b64"] = _base64(as_hex)
    else:
        body["message"]["data"] = read_json(read_text(message or "", "--message"), "--message")
    body["message"]["waits"] = kind in WAITING
    if chain is not None:
        body.update(_what(chain, version))
    elif version is not None:
        raise click.UsageError("--version goes with the NAME of a chain")
    if device is not None:
        _come_from(server, device, body)
    found = server.call("POST", server.of_tenant("dry-run"), body)
    if as_json:
        print_json(found)
    else:
        _tell(found)


def _what(chain: str, version: int | None) -> dict[str, Any]:
    """The chain as the API takes it: a file's document, or a name."""
    file = Path(chain)
    if file.is_dir() and (file / CHAIN).is_file():
        file /= CHAIN
    if not file.is_file():
        if "/" in chain or chain.endswith(".json"):
            raise Failed(f"there is no file {chain}")
        return {"chain": chain, "version": version}
    if version is not None:
        raise click.UsageError(f"--version goes with the NAME of a chain, and {chain} is a file")
    try:
        return {"document": read_chain_file(file)}
    except InvalidDocument as error:
        raise Failed(*(f"{file}: {reason}" for _, reason in error.findings)) from None


def _come_from(server: Server, name: str, body: dict[str, Any]) -> None:
    """Let the message be the device's, with what the server knows of it."""
    device = server.get(server.of_tenant("devices", name))
    id = device["id"]
    scopes = server.get(server.of_tenant("devices", id, "attributes"))["attributes"]
    active = server.pages(
        server.of_tenant("alarms"), "alarms", {"device": id, "status": ["ACTIVE_UNACK", "ACTIVE_ACK"]}
    )
    message = body["message"]
    message["originator"] = id
    known = {"deviceName": device["name"], "deviceType": device["product"] or "default"}
    if device["product"]:
        known["productId"] = device["product"]
    message["metadata"] = {**known, **message["metadata"]}
    body["state"] = {
        "attributes": {
            id: {scope: {key: one["value"] for key, one in values.items()} for scope, values in scopes.items()}
        },
        "alarms": {
            id: [
                {"type": one["type"], "severity": one["severity"], "details": one["details"],
                 "acked": one["status"] == "ACTIVE_ACK"}
                for one in active
            ]
        },
    }  # fmt: skip


def _base64(text: str) -> str:
    try:
        return base64.b64encode(binascii.unhexlify("".join(text.split()))).decode()
    except ValueError:
        raise Failed(f"--hex takes pairs of hexadecimal digits like 01a4, not {text!r}") from None


def _tell(found: dict[str, Any]) -> None:
    # END comes after a relation that leads nowhere, and says no more.
    steps = [step for step in found["steps"] if step["relation"] != "END"]
    rows = [
        (step["node"], step["kind"], f"→ {step['relation']}", f"error: {step['error']}  " if step["error"] else "",
         short(step["data"], 80))
        for step in steps
    ]  # fmt: skip
    print_table(("NODE", "KIND", "RELATION", "MESSAGE"), [(*row[:3], row[3] + row[4]) for row in rows])
    effects = list(_effects(found))
    click.echo()
    if not effects:
        click.echo("Nothing would come of it.")
    width = max((len(name) for name, _ in effects), default=0)
    for name, text in effects:
        click.echo(f"{name.ljust(width)}  {plain(text)}")


def _effects(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What it would do, as name and words."""
    for one in found["points"]:
        yield "point", f"{one['key']} = {short(one['value'])} at {local_time(one['ts_ms'], 'milliseconds')}"
    for scope, values in found["attributes"].items():
        for key, value in values.items():
            yield "attribute", f"{scope.lower()} {key} = {short(value)}"
    for one in found["alarms"]:
        yield "alarm", f"{one['type']} {one['severity']} {one['status']} {short(one['details'])}"
    for one in found["replies"]:
        yield "reply", f"error: {one['error']}" if one["error"] else short(one["data"])
    for one in found["commands"]:
        yield "command", f"{one['name']} {short(one['payload'])}" + (", one-way" if one["oneway"] else "")
    for one in found["parked"]:
        due = f", until {local_time(one['due_ms'])}" if one["due_ms"] else ""
        yield "waits", f"at {one['node']} for {one['waits_for']}{due}: {short(one['data'])}"
    for one in found["retried"]:
        yield "retry", f"at {one['node']}: {one['reason']}"
    for one in found["dead"]:
        yield "dead letter", f"at {one['node']}: {one['reason']}"
