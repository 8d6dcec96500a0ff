"""`rulemill device attributes`, `rpc`, `commands`: what is said to a device, and what it says of itself."""

from __future__ import annotations

from typing import Any, Final

import click

from api.cli.arguments import loose_json, pairs, read_json, read_text
from api.cli.client import Server, with_server
from api.cli.output import as_json as json_line
from api.cli.output import local_time, print_json, print_table, short

SCOPES: Final = ("client", "shared", "server")


@click.command()
@click.argument("device")
@click.option("--scope", type=click.Choice(SCOPES), help="Only this one; of --set and --delete, shared by default.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Set it; VALUE is JSON, else text.")
@click.option("--delete", "deletes", multiple=True, metavar="KEY", help="Delete it.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def attributes(
    server: Server, device: str, scope: str | None, sets: tuple[str, ...], deletes: tuple[str, ...], as_json: bool
) -> None:
    """Show a device's attributes; --set and --delete change them first.

    \b
    Devices are told of changes in the shared scope.
    Examples:
      rulemill device attributes thermostat
      rulemill device attributes thermostat --set target=21.5 --set 'mode=eco'
      rulemill device attributes thermostat --scope server --delete note
    """
    at = server.of_tenant("devices", device, "attributes")
    changed = (scope or "shared").upper()
    values = {key: loose_json(value) for key, value in pairs(sets, "--set").items()}
    if values:
        server.call("PUT", f"{at}/{changed}", values)
    if deletes:
        server.call("DELETE", f"{at}/{changed}", query={"key": list(deletes)})
    found = server.get(at, {"scope": scope.upper() if scope else None})["attributes"]
    if as_json:
        print_json(found)
        return
    rows = [
        (name.lower(), key, json_line(one["value"]), local_time(one["ts_ms"]))
        for name, values in found.items()
        for key, one in values.items()
    ]
    if rows:
        print_table(("SCOPE", "KEY", "VALUE", "SINCE"), rows)
    else:
        click.echo(f"{device} has no {scope or ''} attributes yet. Set one: --set KEY=VALUE".replace("  ", " "))


@click.command()
@click.argument("device")
@click.argument("method")
@click.argument("params", default="{}", metavar="[PARAMS-JSON]")
@click.option("--oneway", is_flag=True, help="Do not wait; the device gets it when it can.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0.001), metavar="SECONDS",
              help="How long to wait, 10 by default; one-way: how long it is kept, a day by default.")  # fmt: skip
@with_server()
def rpc(server: Server, device: str, method: str, params: str, oneway: bool, timeout_s: float | None) -> None:
    """Call a method of a device through the tenant's chain, and print its answer as JSON.

    \b
    The chain needs an rpc_request node where calls to devices come by.
    Examples:
      rulemill device rpc thermostat setTarget '{"celsius": 21}'
      rulemill device rpc thermostat blink --oneway --timeout 60
      rulemill device rpc thermostat configure @settings.json
    """
    body: dict[str, Any] = {
        "method": method,
        "params": read_json(read_text(params, "PARAMS-JSON"), "PARAMS-JSON"),
        "oneway": oneway,
    }
    if timeout_s is not None:
        body["timeout_ms"] = round(timeout_s * 1000)
    answer = server.call(
        "POST", server.of_tenant("devices", device, "rpc"), body, answer_s=30 + (0 if oneway else timeout_s or 10)
    )
    if oneway:
        click.echo(f"Stored as {answer['id']}. What is still open: rulemill device commands {device}")
    else:
        print_json(answer["data"])


@click.command()
@click.argument("device")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def commands(server: Server, device: str, as_json: bool) -> None:
    """List the commands that wait for a device or for its answer, oldest first.

    \b
    Example:
      rulemill device commands thermostat
    """
    found = server.get(server.of_tenant("devices", device, "commands"))["commands"]
    if as_json:
        print_json(found)
    elif not found:
        click.echo(f"Nothing waits for {device}. Send something: rulemill device rpc {device} METHOD --oneway")
    else:
        print_table(
            ("ID", "METHOD", "PARAMS", "SINCE", "UNTIL", "DELIVERED"),
            [
                (str(one["id"]), one["name"], short(one["payload"], 50), local_time(one["created_ms"]),
                 local_time(one["expires_ms"]), "yes" if one["delivered"] else "no")
                for one in found
            ],
            right=("ID",),
        )  # fmt: skip
