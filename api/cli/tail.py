"""`rulemill tail`: messages and what nodes do with them, as it happens."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from api.cli.client import Server, with_server
from api.cli.output import as_json, local_time, plain, short
from api.cli.watching import watched


@click.command()
@click.option("--device", default="", metavar="DEVICE", help="Only messages of this one.")
@click.option("--json", "json_lines", is_flag=True, help="A line of JSON for each step, with the whole message.")
@with_server()
def tail(server: Server, device: str, json_lines: bool) -> None:
    """Watch messages live: time, device, type, node → relation, error, data. Ctrl-C ends it.

    \b
    Examples:
      rulemill tail
      rulemill tail --device demo-thermometer
      rulemill tail --json | jq .message.data
    """
    with contextlib.suppress(KeyboardInterrupt):
        of = f"device {device} of tenant" if device else "tenant"
        for step in watched(server, server.of_tenant("tail"), {"device": device}, "node", of):
            if json_lines:
                click.echo(as_json(step))
            elif step["relation"] != "END":  # comes after the relation that leads nowhere, and says no more
                click.echo(_line(server, step))


def _line(server: Server, step: dict[str, Any]) -> str:
    message = step["message"]
    device = message["metadata"].get("deviceName") or server.device_name(message["originator"])
    parts = [
        local_time(message["ts_ms"]), plain(device), plain(message["type"]),
        plain(f"{step['node']} → {step['relation']}"),
    ]  # fmt: skip
    if step["error"]:
        parts.append(plain(f"error: {step['error']}"))
    return "  ".join([*parts, short(message["data"])])
