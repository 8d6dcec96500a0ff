"""`rulemill points latest` and `query`: the newest points, and those of a time or what is made of them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

import click

from api.cli.arguments import local_zone
from api.cli.client import Server, with_server
from api.cli.output import as_json as json_text
from api.cli.output import local_time, more, print_json, print_table, take
from api.cli.points_named import DEVICES, FROM, KEYS, TO, check_range, few, in_parts, name_of, named

PAGE: Final = 10_000
SILENT_S: Final = 60.0
"""How long a stream may say nothing."""


@click.command()
@DEVICES
@KEYS
@click.option("-n", "--count", type=click.IntRange(1, PAGE), default=1, help="The newest so many of each key.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def latest(server: Server, devices: tuple[str, ...], keys: tuple[str, ...], count: int, as_json: bool) -> None:
    """Show the newest point of each key.

    \b
    Examples:
      rulemill points latest demo-thermometer
      rulemill points latest demo-thermometer -k temperature --json
      rulemill points latest boiler-1 boiler-2 -k temperature -k pressure
      rulemill points latest 'boiler-*' -k temperature
    """
    found: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for part in in_parts(named(server, devices)):
        query = {"device": part, "key": list(keys), "count": count}
        answer = server.get(server.of_tenant("points", "latest"), query)
        found += answer["points"]
        names |= answer["devices"]
    found.sort(key=lambda one: (names[one["device"]], one["key"], -one["ts_ms"]))
    if as_json:
        print_json([{"name": name_of(one, names), **one} for one in found])
    elif found:
        _print(found, names)
    else:
        which, those = shlex.join(devices), f" of {', '.join(keys)}" if keys else ""
        again = f"What there is: rulemill points latest {which}" if keys else (
            f"See what becomes of its messages: rulemill tail --device {devices[0]}"
        )  # fmt: skip
        click.echo(f"{', '.join(devices)}: no points{those} yet. {again}")


@click.command()
@DEVICES
@KEYS
@FROM
@TO
@click.option("--limit", type=click.IntRange(1), help="How many points at most; 1000 in a table and in JSON.")
@click.option("--newest-first", is_flag=True, help="From the end backwards.")
@click.option(
    "--every", metavar="LENGTH", help="Aggregate by windows: 30s, 5m, 1h, 1d, 1w, 1mo; or `all`: the whole time."
)
@click.option("--fn", "functions", multiple=True, metavar="NAME",
              help="count, min, max, sum, mean, first, last, p95, …; mean by default. May be repeated.")  # fmt: skip
@click.option("--zone", metavar="ZONE", help="Time zone of the windows, as Europe/Berlin; this machine's by default.")
@click.option("--fill", metavar="HOW", help="Windows without a point: null, previous, linear or a number.")
@click.option("--json", "form", flag_value="json", help="As one JSON document.")
@click.option("--csv", "form", flag_value="csv", help="As CSV: all of it, however much.")
@click.option("--ndjson", "form", flag_value="ndjson", help="As a line of JSON each: all of it, however much.")
@with_server()
def query(
    server: Server, devices: tuple[str, ...], keys: tuple[str, ...], start_ms: int | None, end_ms: int | None,
    limit: int | None, newest_first: bool, every: str | None, functions: tuple[str, ...], zone: str | None,
    fill: str | None, form: str | None,
) -> None:  # fmt: skip
    """Show the points of a time, oldest first, or what functions make of them by windows of time.

    \b
    Examples:
      rulemill points query demo-thermometer -k temperature --from -1h
      rulemill points query boiler-1 boiler-2 --from 2026-01-01 --to 2026-01-02T12:00
      rulemill points query demo-thermometer --newest-first --limit 10
      rulemill points query 'boiler-*' -k temperature --from -30d --csv > january.csv
    Aggregates:
      rulemill points query boiler-1 -k temperature --from -24h --every 1h
      rulemill points query boiler-1 --from -7d --every 1d --fn min --fn max --fn p95
      rulemill points query boiler-1 --from -7d --every 1h --fill linear --zone UTC
    """
    check_range(start_ms, end_ms)
    if every is None and (functions or zone or fill):
        raise click.UsageError("--fn, --zone and --fill go with --every")
    if every is not None and (limit or newest_first):
        raise click.UsageError("--limit and --newest-first do not go with --every")
    wanted = few(named(server, devices))
    asked: dict[str, Any] = {"device": wanted, "key": list(keys), "start_ms": start_ms, "end_ms": end_ms}
    if every is not None:
        asked |= {"function": list(functions) or ["mean"], "window": "" if every == "all" else every,
                  "zone": zone or local_zone(), "fill": fill}  # fmt: skip
        _aggregates(server, asked, form)
        return
    asked["order"] = "desc" if newest_first else "asc"
    if form in ("csv", "ndjson"):
        _copy(server, server.of_tenant("points"), {**asked, "limit": limit, "format": form})
        return
    limit = limit or 1000
    names: dict[str, str] = {}
    # One more than asked for: only so is it known whether there are more.
    found, rest = take(_pages(server, asked, min(limit + 1, PAGE), names), limit)
    if form == "json":
        print_json([{"name": name_of(one, names), **one} for one in found])
    elif found:
        _print(found, names)
    else:
        click.echo(f"There are no points of that time. The newest: rulemill points latest {' '.join(devices)}")
    more(rest, limit)


def _pages(server: Server, asked: dict[str, Any], page: int, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    cursor = ""
    while True:
        answer = server.get(server.of_tenant("points"), {**asked, "limit": page, "cursor": cursor})
        names |= answer["devices"]
        yield from answer["points"]
        cursor = answer["cursor"]
        if not cursor:
            return


def _copy(server: Server, where: str, asked: dict[str, Any]) -> None:
    """Hand a stream on as it is."""
    for piece in server.stream(where, asked, SILENT_S):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _aggregates(server: Server, asked: dict[str, Any], form: str | None) -> None:
    where = server.of_tenant("points", "aggregates")
    if form in ("csv", "ndjson"):
        _copy(server, where, {**asked, "format": form})
        return
    found = server.call("GET", where, query=asked, answer_s=SILENT_S)
    if form == "json":
        print_json(found)
        return
    several = len(found["devices"]) > 1
    functions = asked["function"]
    rows = [
        (local_time(window["start_ms"]) or "1970", found["devices"][one["device"]], one["key"],
         *("-" if window["values"][name] is None else json_text(window["values"][name]) for name in functions))
        for one in sorted(found["series"], key=lambda one: (found["devices"][one["device"]], one["key"]))
        for window in one["windows"]
    ]  # fmt: skip
    if not rows:
        click.echo("There are no points of that time.")
        return
    titles = ("FROM", "DEVICE", "KEY", *(name.upper() for name in functions))
    print_table(*_shown(titles, rows, several), right=titles[3:])


def _print(found: list[dict[str, Any]], names: dict[str, str]) -> None:
    titles: tuple[str, ...] = ("TIME", "DEVICE", "KEY", "VALUE", "LAT, LON")
    rows: list[tuple[str, ...]] = [
        (local_time(one["ts_ms"], "milliseconds") or "1970", name_of(one, names), one["key"], json_text(one["value"]),
         _place(one))
        for one in found
    ]  # fmt: skip
    if not any(row[4] for row in rows):
        titles, rows = titles[:4], [row[:4] for row in rows]
    print_table(*_shown(titles, rows, len(names) > 1))


def _shown(
    titles: tuple[str, ...], rows: Sequence[tuple[str, ...]], several: bool
) -> tuple[tuple[str, ...], Sequence[tuple[str, ...]]]:
    """The table, without its column of devices where there is but one."""
    return (titles, rows) if several else ((titles[0], *titles[2:]), [(row[0], *row[2:]) for row in rows])


def _place(point: dict[str, Any]) -> str:
    return "" if point["lat"] is None and point["lon"] is None else f"{point['lat']}, {point['lon']}"
