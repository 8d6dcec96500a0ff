"""`rulemill points`: what devices have measured."""

from __future__ import annotations

from typing import Any

import click

from api.cli.arguments import moment
from api.cli.client import Server, with_server
from api.cli.output import as_json as json_line
from api.cli.output import local_time, more, print_json, print_table, take

PAGE = 10_000


@click.group()
def points() -> None:
    """Points: the newest of a device, and those of a time.

    \b
    DEVICE is a name, an external id or an id.
    """


@points.command()
@click.argument("device")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def latest(server: Server, device: str, keys: tuple[str, ...], as_json: bool) -> None:
    """Show the newest point of each KEY; of every key if none is named.

    \b
    Examples:
      rulemill points latest demo-thermometer
      rulemill points latest demo-thermometer temperature --json
    """
    found = server.get(server.of_tenant("devices", device, "points", "latest"), {"key": list(keys)})["points"]
    if as_json:
        print_json(found)
    elif found:
        _print(found)
    elif keys:
        click.echo(f"{device} has no point of {', '.join(keys)}. What it has: rulemill points latest {device}")
    else:
        click.echo(f"{device} has no points yet. See what becomes of its messages: rulemill tail --device {device}")


@points.command("range")
@click.argument("device")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--from", "start_ms", type=moment, metavar="TIME", help="First time; the beginning by default.")
@click.option("--to", "end_ms", type=moment, metavar="TIME", help="First time not shown; no end by default.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="How many at most.")
@click.option("--newest-first", is_flag=True, help="From the end backwards.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def of_time(
    server: Server, device: str, keys: tuple[str, ...], start_ms: int | None, end_ms: int | None, limit: int,
    newest_first: bool, as_json: bool,
) -> None:  # fmt: skip
    """Show the points of a time, oldest first; of every key if none is named.

    \b
    TIME is ISO (local, unless it has an offset), -90m, -1h, -7d or now.
    Examples:
      rulemill points range demo-thermometer temperature --from -1h
      rulemill points range demo-thermometer --from 2026-01-01 --to 2026-01-02T12:00
      rulemill points range demo-thermometer temperature --newest-first --limit 10
    """
    if start_ms is not None and end_ms is not None and start_ms > end_ms:
        raise click.UsageError("--from is later than --to")
    query: dict[str, Any] = {
        "key": list(keys), "start_ms": start_ms, "end_ms": end_ms, "order": "desc" if newest_first else "asc",
    }  # fmt: skip
    where = server.of_tenant("devices", device, "points")
    # One more than asked for: only so is it known whether there are more.
    found, rest = take(server.pages(where, "points", query, page=min(limit + 1, PAGE)), limit)
    if as_json:
        print_json(found)
    elif found:
        _print(found)
    else:
        click.echo(f"There are no points of that time. The newest: rulemill points latest {device}")
    more(rest, limit)


def _print(found: list[dict[str, Any]]) -> None:
    rows = [
        (local_time(one["ts_ms"], "milliseconds") or "1970", one["key"], json_line(one["value"]), _place(one))
        for one in found
    ]
    if any(place for *_, place in rows):
        print_table(("TIME", "KEY", "VALUE", "LAT, LON"), rows)
    else:
        print_table(("TIME", "KEY", "VALUE"), [row[:3] for row in rows])


def _place(point: dict[str, Any]) -> str:
    return "" if point["lat"] is None else f"{point['lat']}, {point['lon']}"
