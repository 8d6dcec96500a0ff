"""`rulemill app`: apps of the thethings.iO dialect, and the codes that activate their things."""

from __future__ import annotations

import click

from api.cli.arguments import confirm
from api.cli.client import Server, with_server
from api.cli.output import local_time, print_fields, print_json, print_table


@click.group()
def app() -> None:
    """Apps: programs whose users read and write things of one product.

    \b
    APP is always the app's id.
    """


@app.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def list_apps(server: Server, as_json: bool) -> None:
    """List the tenant's apps.

    \b
    Example:
      rulemill app list
    """
    found = server.get(server.of_tenant("apps"))["apps"]
    if as_json:
        print_json(found)
    elif not found:
        click.echo(f"Tenant {server.tenant} has no apps yet. Make one: rulemill app put ID --product PRODUCT RESOURCE…")
    else:
        rows = [(one["id"], one["name"], one["product"], ", ".join(one["resources"])) for one in found]
        print_table(("ID", "NAME", "PRODUCT", "RESOURCES"), rows)


@app.command()
@click.argument("app")
@click.argument("resources", nargs=-1, metavar="[RESOURCE]...")
@click.option("--product", required=True, help="Whose things its users link; cannot be changed later.")
@click.option("--name", default="", help="What people call it.")
@with_server()
def put(server: Server, app: str, resources: tuple[str, ...], product: str, name: str) -> None:
    """Create or change an app that asks for the RESOURCEs.

    \b
    It gets those that its product has made public, in the facet thethingsio: {"public": ["temperature"]}.
    Example:
      rulemill app put climate-app --product climate temperature humidity
    """
    body = {"product": product, "name": name, "resources": list(resources)}
    made = server.call("PUT", server.of_tenant("apps", app), body)
    click.echo(f'App {made["id"]} of product {made["product"]}. Its users register with "app": "{made["id"]}".')


@app.command()
@click.argument("app")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def show(server: Server, app: str, as_json: bool) -> None:
    """Show an app and its users.

    \b
    Example:
      rulemill app show climate-app
    """
    one = server.get(server.of_tenant("apps", app))
    users = server.get(server.of_tenant("apps", app, "users"))["users"]
    if as_json:
        print_json({**one, "users": users})
        return
    print_fields(
        [
            ("id", one["id"]), ("name", one["name"]), ("product", one["product"]),
            ("resources", ", ".join(one["resources"])), ("created", local_time(one["created_ms"])),
        ]
    )  # fmt: skip
    print_table(
        ("USER", "ID", "SINCE"), [(each["email"], each["id"], local_time(each["created_ms"])) for each in users]
    )


@app.command()
@click.argument("app")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_server()
def delete(server: Server, app: str, yes: bool) -> None:
    """Delete an app with its users, what they were granted, and all their objects.

    \b
    Example:
      rulemill app delete climate-app
    """
    confirm(f"Delete app {app} with all its users and their objects?", yes)
    server.call("DELETE", server.of_tenant("apps", app))
    click.echo(f"App {app} is deleted.")


@app.command()
@click.argument("product")
@click.option("--count", type=click.IntRange(1, 1000), default=1, show_default=True, help="How many.")
@with_server()
def codes(server: Server, product: str, count: int) -> None:
    """Make activation codes of a PRODUCT, a line each: every code makes one thing. They are shown this once.

    \b
    Example:
      rulemill app codes climate --count 10 > codes.txt
    """
    where = server.of_tenant("products", product, "activation-codes")
    for code in server.call("POST", where, {"count": count})["codes"]:
        click.echo(code)
