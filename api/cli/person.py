"""`rulemill person`: who logs in with a password, of which tenant and in which role."""

from __future__ import annotations

from typing import Final

import click

from api.cli.arguments import confirm, read_hidden
from api.cli.client import Server, with_server
from api.cli.output import local_time, more, print_fields, print_json, print_table, take

ROLES: Final = {"tenant-admin": "tenant_admin", "customer": "customer"}
"""A role as the flag says it, to the API's word."""

PERSON: Final = click.argument("person")


@click.group()
def person() -> None:
    """People: who logs in to apps with a password.

    \b
    PERSON is always a user name or an id.
    """


@person.command("list")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def list_people(server: Server, limit: int, as_json: bool) -> None:
    """List the tenant's people by name.

    \b
    Example:
      rulemill person list
    """
    page = min(limit, 1000)
    found, rest = take(server.pages(server.of_tenant("people"), "people", cursor="after", page=page), limit)
    if as_json:
        print_json(found)
    elif not found:
        click.echo(f"Tenant {server.tenant} has nobody who could log in yet. Make somebody: rulemill person add NAME")
    else:
        print_table(
            ("NAME", "ROLE", "ID", "CREATED"),
            [
                (one["username"] + ("" if one["enabled"] else " (disabled)"), one["role"], one["id"],
                 local_time(one["created_ms"]))
                for one in found
            ],
        )  # fmt: skip
    more(rest, limit)


@person.command()
@PERSON
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def show(server: Server, person: str, as_json: bool) -> None:
    """Show one person.

    \b
    Example:
      rulemill person show ada@example.com
    """
    one = server.get(server.of_tenant("people", person))
    if as_json:
        print_json(one)
        return
    print_fields(
        [
            ("user name", one["username"]),
            ("id", one["id"]),
            ("role", one["role"]),
            ("enabled", "yes" if one["enabled"] else "no"),
            ("created", local_time(one["created_ms"])),
        ]
    )


@person.command()
@click.argument("name")
@click.option("--role", type=click.Choice(list(ROLES)), default="tenant-admin", show_default=True,
              help="A customer sees the devices that they claimed.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def add(server: Server, name: str, role: str, as_json: bool) -> None:
    """Make a person; the password is asked for, or read from standard input without its last line break.

    \b
    Examples:
      rulemill person add ada@example.com
      rulemill person add bob@example.com --role customer < password.txt
    """
    where = server.of_tenant("people")
    body = {"username": name, "password": _password(name), "role": ROLES[role]}
    made = server.call("POST", where, body)
    if as_json:
        print_json(made)
    else:
        click.echo(f"Made {made['username']}, id {made['id']}. Log in at {server.url}/api/auth/login")


@person.command()
@PERSON
@with_server()
def password(server: Server, person: str) -> None:
    """Set another password, asked for or read from standard input; all logins of the person end.

    \b
    Example:
      rulemill person password ada@example.com
    """
    known = server.get(server.of_tenant("people", person))
    server.call("PATCH", server.of_tenant("people", known["id"]), {"password": _password(known["username"])})
    click.echo(f"Set the password of {known['username']}. Whoever was logged in so is so no more.")


@person.command()
@PERSON
@with_server()
def disable(server: Server, person: str) -> None:
    """Let a person log in no more, and end all their logins.

    \b
    Example:
      rulemill person disable ada@example.com
    """
    made = server.call("PATCH", server.of_tenant("people", person), {"enabled": False})
    click.echo(f"Disabled {made['username']}.")


@person.command()
@PERSON
@with_server()
def enable(server: Server, person: str) -> None:
    """Let a person log in again.

    \b
    Example:
      rulemill person enable ada@example.com
    """
    made = server.call("PATCH", server.of_tenant("people", person), {"enabled": True})
    click.echo(f"Enabled {made['username']}.")


@person.command()
@PERSON
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_server()
def delete(server: Server, person: str, yes: bool) -> None:
    """Delete a person.

    \b
    Example:
      rulemill person delete ada@example.com --yes
    """
    known = server.get(server.of_tenant("people", person))
    confirm(f"Delete {known['username']}?", yes)
    server.call("DELETE", server.of_tenant("people", known["id"]))
    click.echo(f"Deleted {known['username']}.")


def _password(name: str) -> str:
    return read_hidden(f"Password of {name}", "the password")
