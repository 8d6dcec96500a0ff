"""`rulemill alarm`: what needs somebody's attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import click

from api.cli.client import Server, path, with_server
from api.cli.output import Failed, local_time, more, print_fields, print_json, print_table, short, take

STATUSES: Final = {
    "active": ("ACTIVE_UNACK", "ACTIVE_ACK"),
    "cleared": ("CLEARED_UNACK", "CLEARED_ACK"),
    "unacknowledged": ("ACTIVE_UNACK", "CLEARED_UNACK"),
    "acknowledged": ("ACTIVE_ACK", "CLEARED_ACK"),
    "active_unack": ("ACTIVE_UNACK",),
    "active_ack": ("ACTIVE_ACK",),
    "cleared_unack": ("CLEARED_UNACK",),
    "cleared_ack": ("CLEARED_ACK",),
}
"""What --status says, to the API's words."""

IDS: Final = click.argument("ids", nargs=-1, required=True, metavar="ID...")
BY: Final = click.option("--by", default="operator", metavar="NAME", help="Who says so; kept with the alarm.")
OF: Final = click.option("--device", default="", metavar="DEVICE", help="Its device, so that it is found faster.")


@click.group()
def alarm() -> None:
    """Alarms: see them, acknowledge them, clear them."""


@alarm.command("list")
@click.option("--status", "statuses", multiple=True, type=click.Choice(list(STATUSES), case_sensitive=False),
              help="Only these; may be repeated.")  # fmt: skip
@click.option("--device", default="", metavar="DEVICE", help="Only of this one.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def list_alarms(server: Server, statuses: tuple[str, ...], device: str, limit: int, as_json: bool) -> None:
    """List alarms, those that began last first.

    \b
    Examples:
      rulemill alarm list
      rulemill alarm list --status active --device demo-thermometer
    """
    wanted = sorted({status for name in statuses for status in STATUSES[name.lower()]})
    found, rest = take(_alarms(server, device, wanted, min(limit + 1, 1000)), limit)
    if as_json:
        print_json(found)
    elif found:
        print_table(
            ("ID", "TYPE", "SEVERITY", "STATUS", "DEVICE", "BEGAN", "DETAILS"),
            [
                (one["id"], one["type"], one["severity"], one["status"], server.device_name(one["originator"]),
                 local_time(one["start_ms"]), "" if one["details"] is None else short(one["details"], 40))
                for one in found
            ],
        )  # fmt: skip
    elif wanted or device:
        click.echo("There are no such alarms. All of them: rulemill alarm list")
    else:
        click.echo("There are no alarms. A chain raises them: rulemill node show create_alarm")
    more(rest, limit)


@alarm.command()
@click.argument("id")
@OF
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def show(server: Server, id: str, device: str, as_json: bool) -> None:
    """Show one alarm.

    \b
    Example:
      rulemill alarm show 9912e31f-6d57-54fc-8045-41e1f766e094
    """
    (found,) = _found(server, (id,), device)
    if as_json:
        print_json(found)
    else:
        _show(server, found)


@alarm.command()
@IDS
@BY
@OF
@with_server()
def ack(server: Server, ids: tuple[str, ...], by: str, device: str) -> None:
    """Note that somebody has seen it.

    \b
    Example:
      rulemill alarm ack 9912e31f-6d57-54fc-8045-41e1f766e094 --by ada
    """
    _say(server, ids, device, by, "acknowledge")


@alarm.command()
@IDS
@BY
@OF
@with_server()
def clear(server: Server, ids: tuple[str, ...], by: str, device: str) -> None:
    """End it; if its cause is still there, the chain raises a new one.

    \b
    Example:
      rulemill alarm clear 9912e31f-6d57-54fc-8045-41e1f766e094
    """
    _say(server, ids, device, by, "clear")


def _say(server: Server, ids: tuple[str, ...], device: str, by: str, word: str) -> None:
    for one in _found(server, ids, device):
        where = server.of_tenant("devices", one["originator"], "alarms", one["id"]) + path(word)
        said = server.call("POST", where, query={"by": by})
        click.echo(f"{said['id']}  {said['type']} of {server.device_name(said['originator'])}: {said['status']}")


def _found(server: Server, ids: tuple[str, ...], device: str) -> list[dict[str, Any]]:
    """The alarms of these ids; Failed names every one that there is not."""
    missing = set(ids)
    known: dict[str, dict[str, Any]] = {}
    for one in _alarms(server, device, [], 1000):
        if one["id"] in missing:
            known[one["id"]] = one
            missing.discard(one["id"])
        if not missing:
            break
    if missing:
        raise Failed(*(f"there is no alarm {id!r}; `rulemill alarm list` has them all" for id in sorted(missing)))
    return [known[id] for id in dict.fromkeys(ids)]


def _alarms(server: Server, device: str, statuses: list[str], page: int) -> Iterator[dict[str, Any]]:
    return server.pages(server.of_tenant("alarms"), "alarms", {"device": device, "status": statuses}, page=page)


def _show(server: Server, one: dict[str, Any]) -> None:
    acked, cleared = local_time(one["acked_ms"]), local_time(one["cleared_ms"])
    print_fields(
        [
            ("id", one["id"]),
            ("type", one["type"]),
            ("severity", one["severity"]),
            ("status", one["status"]),
            ("device", f"{server.device_name(one['originator'])} ({one['originator']})"),
            ("began", local_time(one["start_ms"])),
            ("last triggered", local_time(one["end_ms"])),
            ("acknowledged", f"{acked} by {one['acked_by']}" if acked else ""),
            ("cleared", f"{cleared} by {one['cleared_by'] or 'a chain'}" if cleared else ""),
            ("details", "" if one["details"] is None else short(one["details"], 10_000)),
        ]
    )
