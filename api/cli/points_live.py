"""`rulemill points tail`: new points, as they come."""

from __future__ import annotations

import contextlib

import click

from api.cli.client import Server, with_server
from api.cli.output import as_json, local_time, plain, short
from api.cli.points_named import KEYS, few
from api.cli.watching import watched


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
        query = {"device": few(devices), "key": list(keys)}
        of = f"points of {', '.join(query['device'])} of tenant" if devices else "points of tenant"
        for point in watched(server, server.of_tenant("points", "tail"), query, "key", of):
            if json_lines:
                click.echo(as_json(point))
            else:
                place = f"  at {point.get('lat')}, {point.get('lon')}" if "lat" in point or "lon" in point else ""
                name = plain(point.get("name") or point["device"])
                time = local_time(point["ts_ms"], "milliseconds") or "1970"
                click.echo(f"{time}  {name}  {plain(point['key'])}  {short(point['value'])}{place}")
