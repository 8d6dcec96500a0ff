"""`rulemill points plot`: a chart in the terminal."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any, Final
from zoneinfo import ZoneInfo

import click

from api.cli.arguments import local_zone, moment
from api.cli.chart import Frame, Line, chart
from api.cli.client import Server, with_server
from api.cli.output import Failed
from api.cli.points_named import DEVICES, KEYS, check_range, few, named
from api.cli.points_query import SILENT_S

LENGTHS_S: Final = {
    "1s": 1, "2s": 2, "5s": 5, "10s": 10, "15s": 15, "30s": 30, "1m": 60, "2m": 120, "5m": 300, "10m": 600,
    "15m": 900, "30m": 1800, "1h": 3600, "2h": 7200, "3h": 10_800, "6h": 21_600, "12h": 43_200, "1d": 86_400,
    "2d": 172_800, "1w": 604_800, "1mo": 2_592_000, "3mo": 7_776_000, "1200mo": 3_110_400_000,
}  # fmt: skip
"""Windows that a chart is made of."""
LINES_MOST: Final = 20


@click.command()
@DEVICES
@KEYS
@click.option("--from", "start_ms", type=moment, default="-24h", show_default=True, metavar="TIME", help="First time.")
@click.option(
    "--to", "end_ms", type=moment, default="now", show_default=True, metavar="TIME", help="First time no more."
)
@click.option("--fn", "function", default="mean", show_default=True, metavar="NAME",
              help="What stands for the points that fall together: mean, min, max, p95, …")  # fmt: skip
@click.option("--every", metavar="LENGTH", help="Windows that points fall into; by default as many as can be seen.")
@click.option("--zone", metavar="ZONE", help="Time zone of the axis, as Europe/Berlin; this machine's by default.")
@click.option("--height", type=click.IntRange(3, 200), default=15, show_default=True, help="Lines of text.")
@click.option("--width", type=click.IntRange(20, 1000), help="Characters; as wide as the terminal by default.")
@with_server()
def plot(
    server: Server, devices: tuple[str, ...], keys: tuple[str, ...], start_ms: int, end_ms: int, function: str,
    every: str | None, zone: str | None, height: int, width: int | None,
) -> None:  # fmt: skip
    """Draw numbers over time, each key of each device a line, in the terminal.

    \b
    Examples:
      rulemill points plot demo-thermometer -k temperature
      rulemill points plot boiler-1 boiler-2 -k temperature --from -7d --fn max
      rulemill points plot 'boiler-*' -k pressure --from -1h --every 10s --height 25
    """
    check_range(start_ms, end_ms)
    width = width or shutil.get_terminal_size().columns
    zone = zone or local_zone()
    length = every or _length(start_ms, end_ms, 2 * width)
    found = server.call(
        "GET", server.of_tenant("points", "aggregates"), answer_s=SILENT_S,
        query={"device": few(named(server, devices)), "key": list(keys), "start_ms": start_ms, "end_ms": end_ms,
               "function": [function], "window": length, "zone": zone},
    )  # fmt: skip
    lines, every_ms = _lines(found, function)
    if not lines:
        raise Failed(f"{', '.join(devices)}: no numbers of that time to draw; --from says since when (-24h by default)")
    if len(lines) > LINES_MOST:
        raise Failed(f"these are {len(lines)} lines, and {LINES_MOST} are the most: name keys with -k")
    frame = Frame(start_ms, end_ms, max(every_ms, (end_ms - start_ms) // 20), width, height, ZoneInfo(zone))
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for row in chart(lines, frame, coloured=coloured):
        click.echo(row, color=coloured)
    click.echo(f"{function} of every {length}, {zone}", err=True)


def _length(start_ms: int, end_ms: int, most: int) -> str:
    """The shortest windows of which there are not too many."""
    return next((name for name, s in LENGTHS_S.items() if (end_ms - start_ms) / (s * 1000) <= most), "1200mo")


def _lines(found: dict[str, Any], function: str) -> tuple[list[Line], int]:
    """Numbers by series, at the middle of their windows, and the length of the longest window."""
    lines, every_ms = [], 0
    several = len(found["devices"]) > 1
    for one in found["series"]:
        numbers = [
            ((window["start_ms"] + window["end_ms"]) // 2, window["values"][function])
            for window in one["windows"]
            if type(window["values"][function]) in (int, float)
        ]
        every_ms = max([every_ms, *(window["end_ms"] - window["start_ms"] for window in one["windows"])])
        if numbers:
            name = f"{found['devices'][one['device']]} {one['key']}" if several else one["key"]
            lines.append(Line(name, numbers))
    return lines, every_ms
