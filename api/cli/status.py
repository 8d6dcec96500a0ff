"""`rulemill status`: how the server is, on one screen."""

from __future__ import annotations

from typing import Any

import click

from api.cli.client import Server, with_server
from api.cli.output import Failed, local_time, print_fields, print_json, print_table, seconds, size


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server(tenant=False)
def status(server: Server, as_json: bool) -> None:
    """Show how the server is: workers, what waits, what failed; exit code 1 if it is not ready.

    \b
    Examples:
      rulemill status
      rulemill status --json | jq .dead_letters
    """
    health = server.call("GET", "/readyz", also=(503,))
    found = server.get("/status")
    if as_json:
        print_json({**found, "ready": not health["failing"], "failing": health["failing"]})
    else:
        _show(server.url, found)
    if health["failing"]:
        raise Failed(*(f"not ready: {name}: {reason}" for name, reason in health["failing"].items()))


def _stores(stores: list[dict[str, Any]]) -> list[str]:
    """A line for all workers that get on with the store, and one for each that does not."""
    well = [one for one in stores if one["circuit"] == "closed" and not one["reason"]]
    lines = sorted({f"{one['store']}: takes points" for one in well})
    for one in stores:
        if one in well:
            continue
        closed, waits = one["circuit"] == "closed", seconds(one["for_ms"])
        says = "failed when it was last asked" if closed else f"has taken no points for {waits}"
        lines.append(f"{one['store']}: {says} ({one['worker']}: {one['reason']})")
    return lines


def _retention(sweep: dict[str, Any] | None) -> str:
    if sweep is None:
        return ""
    if sweep["problem"]:
        return f"points are kept longer than they shall be: {sweep['problem']}"
    looked = f"{sweep['looked_at']} devices looked at, {sweep['devices']} had points that were too old"
    if not sweep["ended_ms"]:
        return f"a sweep goes on since {local_time(sweep['began_ms'])}: {looked}"
    return f"last sweep {local_time(sweep['began_ms'])}: {looked}"


def _spool(found: dict[str, Any]) -> str:
    oldest_ms = max((one["spool_oldest_ms"] for one in found["partitions"]), default=0)
    waits = f", the oldest for {seconds(oldest_ms)}" if oldest_ms else ""
    limit = found["spool_limit_bytes"]
    return f"{size(found['spool_bytes'])} of points on their way to the store{waits}" + (
        f"; messages are refused at {size(limit)}" if limit else ""
    )


def _show(url: str, found: dict[str, Any]) -> None:
    partitions = found["partitions"]
    oldest_ms = max((one["oldest_ms"] for one in partitions), default=0)
    lanes = sum(one["lanes"] for one in partitions)
    unowned = sum(not one["owner"] for one in partitions)
    backlog = f"{found['entries']} entries" + (f", the oldest for {seconds(oldest_ms)}" if oldest_ms else "")
    letters = str(found["dead_letters"])
    print_fields(
        [
            ("server", url),
            ("workers", f"{len(found['workers'])}: {', '.join(found['workers'])}" if found["workers"] else "none"),
            ("partitions", f"{len(partitions)}" + (f", {unowned} of them without an owner" if unowned else "")),
            ("backlog", backlog),
            *(("store", line) for line in _stores(found["stores"])),
            *(("note", note) for note in sorted({note for one in found["stores"] for note in one["told"]})),
            ("spool", _spool(found)),
            ("retention", _retention(found["retention"])),
            ("waiting", f"{found['parked']} messages for a time, a call or an answer"),
            ("retrying", f"{lanes} devices"),
            ("dead letters", letters + (": rulemill dead list" if found["dead_letters"] else "")),
        ]
    )
    click.echo()
    titles = ("PARTITION", "OWNER", "BACKLOG", "OLDEST", "SPOOL", "WAITING", "RETRYING", "DEAD", "DEAD SIZE")
    rows = [
        (str(one["number"]), one["owner"] or "-", str(one["entries"]),
         seconds(one["oldest_ms"]) if one["oldest_ms"] else "-", size(one["spool_bytes"]), str(one["parked"]),
         str(one["lanes"]), str(one["dead_letters"]), size(one["dead_letter_bytes"]))
        for one in partitions
    ]  # fmt: skip
    print_table(titles, rows, right=[title for title in titles if title != "OWNER"])
