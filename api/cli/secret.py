"""`rulemill secret`: what chains may use and files may not hold."""

from __future__ import annotations

import click

from api.cli.arguments import read_hidden
from api.cli.client import Server, with_server
from api.cli.output import print_json


@click.group()
def secret() -> None:
    """Secrets: chains use them as ${secret:NAME}; their values are never shown."""


@secret.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def list_secrets(server: Server, as_json: bool) -> None:
    """List the names of the tenant's secrets.

    \b
    Example:
      rulemill secret list
    """
    found = server.get(server.of_tenant("secrets"))["secrets"]
    if as_json:
        print_json(found)
    elif found:
        click.echo("\n".join(found))
    else:
        click.echo("There are no secrets yet. Set one: rulemill secret set NAME")


@secret.command("set")
@click.argument("name")
@with_server()
def set_secret(server: Server, name: str) -> None:
    """Set a secret; its value is asked for, or read from standard input without its last line break.

    \b
    Chains see the new value within moments.
    Examples:
      rulemill secret set mail-password
      rulemill secret set mail-password < password.txt
    """
    where = server.of_tenant("secrets", name)
    value = read_hidden(f"Value of {name}", "the value")
    server.call("PUT", where, {"value": value})
    click.echo(f"Set {name}. Use it in a chain: ${{secret:{name}}}")


@secret.command()
@click.argument("name")
@with_server()
def delete(server: Server, name: str) -> None:
    """Remove a secret; chains that use it can no longer be deployed.

    \b
    Example:
      rulemill secret delete mail-password
    """
    server.call("DELETE", server.of_tenant("secrets", name))
    click.echo(f"Removed {name}.")
