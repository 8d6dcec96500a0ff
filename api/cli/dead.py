"""`rulemill dead`: messages that ended in failure, and their way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from api.cli.arguments import confirm
from api.cli.client import Server, with_server
from api.cli.output import (
    Failed,
    Progress,
    local_time,
    more,
    note,
    print_fields,
    print_json,
    print_table,
    short,
    take,
)

IDS: Final = click.argument("ids", nargs=-1, metavar="[ID]...")


@click.group()
def dead() -> None:
    """Dead letters: messages that ended in failure, kept with their node and reason."""


@dead.command("list")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def list_letters(server: Server, limit: int, as_json: bool) -> None:
    """List dead letters, the newest first.

    \b
    Example:
      rulemill dead list
    """
    found, rest = take(server.pages(_all(server), "dead_letters", page=min(limit + 1, 1000)), limit)
    if as_json:
        print_json(found)
    elif found:
        print_table(
            ("ID", "WHEN", "DEVICE", "NODE", "REASON"),
            [
                (one["id"], local_time(one["at_ms"]), server.device_name(one["originator"]), one["node"], one["reason"])
                for one in found
            ],
        )  # fmt: skip
        note("See one: rulemill dead show ID. Run it again: rulemill dead redrive ID")
    else:
        click.echo("There are no dead letters: no message has failed for good.")
    more(rest, limit)


@dead.command()
@click.argument("id")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def show(server: Server, id: str, as_json: bool) -> None:
    """Show one: where it failed, why, and the message.

    \b
    Example:
      rulemill dead show ID
    """
    one = server.get(_one(server, id))
    if as_json:
        print_json(one)
        return
    chain = f"{one['chain']} version {one['chain_version']}, deployment {one['deployment']}" if one["chain"] else ""
    print_fields(
        [
            ("id", one["id"]),
            ("when", local_time(one["at_ms"])),
            ("node", one["node"] or "none: no node has seen it"),
            ("chain", chain),
            ("reason", one["reason"]),
            ("device", f"{server.device_name(one['originator'])} ({one['originator']})"),
            ("message", f"{one['message_id']} of {local_time(one['ts_ms'])}"),
            ("type", one["type"]),
            ("data", short(one["data"], 10_000)),
            ("metadata", short(one["metadata"], 10_000)),
        ]
    )


@dead.command()
@IDS
@click.option("--all", "every", is_flag=True, help="All that there are now.")
@click.option("--from-start", is_flag=True, help="From the start of the root chain, not from the node it failed at.")
@with_server()
def redrive(server: Server, ids: tuple[str, ...], every: bool, from_start: bool) -> None:
    """Run messages again on what is deployed now; what fails again comes back here.

    \b
    Examples:
      rulemill dead redrive ID
      rulemill dead redrive --all --from-start
    """
    _each(
        server, _chosen(server, ids, every), "Run again:",
        lambda one: server.call("POST", one + "/redrive", {"from_start": from_start}),
    )  # fmt: skip


@dead.command()
@IDS
@click.option("--all", "every", is_flag=True, help="All that there are now.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_server()
def drop(server: Server, ids: tuple[str, ...], every: bool, yes: bool) -> None:
    """Forget messages for good.

    \b
    Examples:
      rulemill dead drop ID
      rulemill dead drop --all --yes
    """
    chosen = _chosen(server, ids, every)
    if every and chosen:
        confirm(f"Forget {len(chosen)} dead letters of tenant {server.tenant} for good?", yes)
    _each(server, chosen, "Forgotten:", lambda one: server.call("DELETE", one))


def _chosen(server: Server, ids: tuple[str, ...], every: bool) -> list[str]:
    """Ids to work on; all of them are read first, since those that fail again join the list meanwhile."""
    if bool(ids) == every:
        raise click.UsageError("name the dead letters, or say --all")
    if not every:
        return list(dict.fromkeys(ids))
    # The oldest first, as they arrived.
    return [one["id"] for one in server.pages(_all(server), "dead_letters")][::-1]


def _each(server: Server, ids: list[str], done: str, work: Callable[[str], Any]) -> None:
    """Work on each; those that cannot be worked on are told at the end."""
    progress = Progress(done, len(ids))
    failed: list[str] = []
    for id in ids:
        try:
            work(_one(server, id))
        except Failed as error:
            failed += [f"{id}: {line}" for line in error.lines]
        progress.step()
    click.echo(f"{done} {len(ids) - len(failed)} of {len(ids)}")
    if failed:
        raise Failed(*failed)


def _all(server: Server) -> str:
    return server.of_tenant("dead-letters")


def _one(server: Server, id: str) -> str:
    return server.of_tenant("dead-letters", id)
