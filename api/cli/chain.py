"""`rulemill chain`: rule chains, from a file to what messages run through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from api.cli import chain_files
from api.cli.chain_deploy import deploy, deployments, rollback
from api.cli.chain_reading import chain_files as files_of
from api.cli.chain_reading import read_chain_file
from api.cli.chain_run import run
from api.cli.client import Server, with_server
from api.cli.output import print_json, print_table
from engine.errors import InvalidDocument


@click.group()
def chain() -> None:
    """Rule chains: check and test files, deploy them, go back, try a message.

    \b
    From a file to messages:
      rulemill chain check greenhouse.json
      rulemill chain run greenhouse.json --message '{"temperature": 41}'
      rulemill chain deploy greenhouse.json
      rulemill chain rollback
    """


@chain.command()
@click.argument("paths", nargs=-1, required=True, metavar="FILE|FOLDER...",
                type=click.Path(exists=True, path_type=Path))  # fmt: skip
@click.option("--server", "on_server", is_flag=True, help="Against a server: its chains, secrets and kinds of nodes.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
@with_server()
def check(server: Server, context: click.Context, paths: tuple[Path, ...], on_server: bool, as_json: bool) -> None:
    """Say everything that is wrong with chain files; exit code 1 if anything is.

    \b
    Without --server nothing but the files is needed. Chains that lie in the same
    folder may call each other; a call of any other chain is taken on trust.
    Advice is worth a second look, and no error.
    A FOLDER stands for its chain files, or for those of the folders in it.
    Examples:
      rulemill chain check greenhouse.json
      rulemill chain check --server greenhouse.json
      rulemill chain check --json chains/
    """
    if not on_server:
        context.invoke(chain_files.check, paths=paths, as_json=as_json)
        return
    checked = [_checked(server, file) for file in files_of(paths)]
    if as_json:
        print_json(checked)
    else:
        for one in checked:
            count = len(one["errors"])
            click.echo(f"{one['file']}: " + ("holds" if not count else f"{count} error{'s' if count > 1 else ''}"))
            for fault in one["errors"]:
                click.echo(f"  {fault['pointer'] or '/'}: {fault['message']}")
            for fault in one["advice"]:
                click.echo(f"  advice: {fault['pointer'] or '/'}: {fault['message']}")
    if any(one["errors"] for one in checked):
        raise SystemExit(1)


def _checked(server: Server, file: Path) -> dict[str, Any]:
    try:
        found = server.call("POST", server.of_tenant("chain-check"), read_chain_file(file))
    except InvalidDocument as error:
        found = {"errors": [finding._asdict() for finding in error.findings], "advice": []}
    return {"file": str(file), **found}


@chain.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def list_chains(server: Server, as_json: bool) -> None:
    """List the tenant's chains by name.

    \b
    Example:
      rulemill chain list
    """
    found = server.get(server.of_tenant("chains"))["chains"]
    if as_json:
        print_json(found)
    elif found:
        print_table(
            ("NAME", "DEPLOYED", "LATEST", ""),
            [
                (one["name"], str(one["deployed"] or "-"), str(one["latest"]),
                 "messages start here" if one["root"] else "")
                for one in found
            ],
            right=("DEPLOYED", "LATEST"),
        )  # fmt: skip
    else:
        click.echo("There are no chains yet. Deploy one: rulemill chain deploy FILE")


@chain.command()
@click.argument("name")
@click.option("--version", type=click.IntRange(1), help="This version; the latest by default.")
@click.option("--json", "as_json", is_flag=True, help="With its name and version around it.")
@with_server()
def show(server: Server, name: str, version: int | None, as_json: bool) -> None:
    """Print a chain as a file would have it.

    \b
    Examples:
      rulemill chain show demo > demo.json
      rulemill chain show demo --version 1
    """
    found = server.get(server.of_tenant("chains", name), {"version": version})
    print_json(found if as_json else found["document"])


@chain.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def versions(server: Server, name: str, as_json: bool) -> None:
    """List the versions of a chain, oldest first, and which one is deployed.

    \b
    Example:
      rulemill chain versions demo
    """
    found = server.get(server.of_tenant("chains", name, "versions"))["versions"]
    known = server.get(server.of_tenant("chains"))["chains"]
    deployed = next((one["deployed"] for one in known if one["name"] == name), 0)
    if as_json:
        print_json([{"version": number, "deployed": number == deployed} for number in found])
    else:
        rows = [(str(number), "deployed" if number == deployed else "") for number in found]
        print_table(("VERSION", ""), rows, right=("VERSION",))


for verb in (deploy, rollback, deployments, run, chain_files.test, chain_files.schema):
    chain.add_command(verb)
