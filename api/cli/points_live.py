"""`rulemill points tail`: new points, as they come."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import click

from api.cli.client import Server, with_server
from api.cli.output import Failed, as_json, local_time, note, plain, short
from api.cli.points_named import KEYS, few
from api.cli.tail import SILENT_S


@click.command()
@click.argument("devices", nargs=-1, metavar="[DEVICE]...")
@KEYS
@click.option("--json", "json_lines", is_flag=True, help="A line of JSON for each point.")
@with_server()
def tail(server: Server, devices: tuple[str, ...], keys: tuple[str, ...], json_lines: bool) -> None:
    """Watch new points live, of all devices if none is named: time, device, key, value. Ctrl-C ends it.

    \b
    A point is shown when it is durable, whatever time it is of.
    Examples:
      rulemill points tail
      rulemill points tail 'boiler-*' -k temperature
      rulemill points tail --json | jq .value
    """
    with contextlib.suppress(KeyboardInterrupt):
        for point in _points(server, few(devices), keys):
            if json_lines:
                click.echo(as_json(point))
            else:
                place = f"  at {point.get('lat')}, {point.get('lon')}" if "lat" in point or "lon" in point else ""
                name = plain(point.get("name") or point["device"])
                time = local_time(point["ts_ms"], "milliseconds") or "1970"
                click.echo(f"{time}  {name}  {plain(point['key'])}  {short(point['value'])}{place}")


def _points(server: Server, devices: list[str], keys: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Points until somebody ends it; what is no point is told on stderr."""
    for line in server.lines(server.of_tenant("points", "tail"), {"device": devices, "key": list(keys)}, SILENT_S):
        if "key" in line:
            yield line
        elif "watching" in line:
            of = f"{', '.join(devices)} of tenant" if devices else "tenant"
            note(f"Watching points of {of} {server.tenant}; Ctrl-C ends it.")
        elif "gap" in line:
            note(f"Some are missing here: {line['gap']}")
        elif "cut" in line:
            raise Failed(f"the server ended it: {line['cut']}")
    raise Failed("the server ended the connection")
