"""`rulemill tenant`: whose devices and chains there are."""

from __future__ import annotations

import click

from api.cli.client import Server, path, with_server
from api.cli.output import Failed, local_time, print_fields, print_json, print_table


@click.group()
def tenant() -> None:
    """Tenants: each has devices, chains and secrets of its own."""


@tenant.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server(tenant=False)
def list_tenants(server: Server, as_json: bool) -> None:
    """List all tenants by name.

    \b
    Example:
      rulemill tenant list
    """
    found = server.get("/tenants")["tenants"]
    if as_json:
        print_json(found)
    elif found:
        print_table(("NAME", "MESSAGES START IN"), [(one["name"], one["root_chain"]) for one in found])
    else:
        click.echo("There is no tenant yet. Make one: rulemill tenant add NAME")


@tenant.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server(tenant=False)
def show(server: Server, name: str, as_json: bool) -> None:
    """Show one tenant, and what its messages run through.

    \b
    Example:
      rulemill tenant show demo
    """
    found = server.get(path("tenants", name))
    if as_json:
        print_json(found)
        return
    history = server.get(path("tenants", name, "deployments"))
    current = next((one for one in history["deployments"] if one["number"] == history["current"]), None)
    print_fields(
        [
            ("name", found["name"]),
            ("messages start in", found["root_chain"]),
            ("deployment", f"{current['number']} of {local_time(current['created_ms'])}" if current else "none"),
        ]
    )


@tenant.command()
@click.argument("name")
@with_server(tenant=False)
def add(server: Server, name: str) -> None:
    """Make a tenant with the default chain, which saves what devices send.

    \b
    Example:
      rulemill tenant add farm
    """
    if any(one["name"] == name for one in server.get("/tenants")["tenants"]):
        raise Failed(f"there is a tenant {name!r} already; its root chain changes with `rulemill chain deploy --root`")
    made = server.call("PUT", path("tenants", name), {})
    click.echo(f"Made tenant {made['name']}; its messages start in {made['root_chain']}.")
    click.echo(f"Go on: rulemill device add NAME --tenant {made['name']}")
