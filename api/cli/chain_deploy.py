"""`rulemill chain deploy`, `rollback`, `deployments`: what messages run through from now on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from api.cli.chain_reading import chain_files, name_of, read_chain_file
from api.cli.client import Server, with_server
from api.cli.output import Failed, local_time, print_json, print_table
from engine.errors import InvalidDocument

CALL: Final = "chain"
"""The kind of node that calls another chain."""


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="FILE|FOLDER...",
                type=click.Path(exists=True, path_type=Path))  # fmt: skip
@click.option("--root", metavar="NAME", help="The chain that messages start in from now on.")
@click.option("--note", default="", metavar="TEXT", help="Kept with the deployment.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def deploy(server: Server, paths: tuple[Path, ...], root: str | None, note: str, as_json: bool) -> None:
    """Save chain files as new versions and make them current, all of them or none.

    \b
    Messages under way end on the versions they began with. A file that has not
    changed is no new version. A FOLDER stands for its chain files.
    Examples:
      rulemill chain deploy greenhouse.json
      rulemill chain deploy greenhouse.json --root greenhouse
      rulemill chain deploy chains/ --note 'alarms at 35 degrees'
    """
    files = chain_files(paths)
    documents = _documents(files)
    before = server.get(server.of_tenant("deployments"))["current"]
    saved = _saved(server, documents)
    chains = {one["chain"]: one["version"] for one in saved}
    body = {"chains": chains, "root": root, "note": note}
    made = server.call("POST", server.of_tenant("deployments"), body)
    unreached = sorted(set(chains) - _reached(server, made))
    if as_json:
        print_json({**made, "advice": {one["chain"]: one["advice"] for one in saved}, "unreached": unreached})
        return
    for one in saved:
        click.echo(f"{one['chain']}: version {one['version']}")
        for fault in one["advice"]:
            click.echo(f"  advice: {fault['pointer'] or '/'}: {fault['message']}")
    if made["number"] == before:
        click.echo(f"Deployment {before} of tenant {server.tenant} has this already; nothing changed.")
    else:
        click.echo(_told(server, made))
    for name in unreached:
        click.echo(
            f"No message comes to {name}: they start in {made['root']}, which does not call it. "
            f"To start there: rulemill chain deploy --root {name} {paths[0]}"
        )


@click.command()
@click.option("--to", type=click.IntRange(1), metavar="N", help="This deployment; by default the one before.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def rollback(server: Server, to: int | None, as_json: bool) -> None:
    """Make an earlier deployment current again; messages under way end on what they began with.

    \b
    Examples:
      rulemill chain rollback
      rulemill chain deployments
      rulemill chain rollback --to 3
    """
    made = server.call("POST", server.of_tenant("rollback"), {"to": to})
    if as_json:
        print_json(made)
    else:
        click.echo(_told(server, made))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@with_server()
def deployments(server: Server, as_json: bool) -> None:
    """List the tenant's deployments, oldest first.

    \b
    Example:
      rulemill chain deployments
    """
    found = server.get(server.of_tenant("deployments"))
    if as_json:
        print_json(found)
    elif found["deployments"]:
        print_table(
            ("NUMBER", "WHEN", "MESSAGES START IN", "CHAINS", "NOTE", ""),
            [
                (str(one["number"]), local_time(one["created_ms"]), one["root"], _versions(one), one["note"],
                 "current" if one["number"] == found["current"] else "")
                for one in found["deployments"]
            ],
            right=("NUMBER",),
        )  # fmt: skip
    else:
        click.echo("Nothing is deployed yet. Deploy a chain: rulemill chain deploy FILE")


def _documents(files: list[Path]) -> dict[Path, Any]:
    """What the files hold; Failed names every one that cannot be read, and two that hold one chain."""
    found: dict[Path, Any] = {}
    names: dict[str, Path] = {}
    wrong: list[str] = []
    for file in files:
        try:
            found[file] = read_chain_file(file)
        except InvalidDocument as error:
            wrong += [f"{file}: {reason}" for _, reason in error.findings]
            continue
        name = name_of(found[file])
        if name and names.setdefault(name, file) != file:
            wrong.append(f"{names[name]} and {file} both hold a chain {name!r}")
    if wrong:
        raise Failed(*wrong, "nothing was deployed")
    return found


def _saved(server: Server, documents: dict[Path, Any]) -> list[dict[str, Any]]:
    """A version of each on the server; Failed with everything that is wrong with any of them."""
    saved: list[dict[str, Any]] = []
    wrong: list[str] = []
    for file, document in documents.items():
        try:
            saved.append(server.call("POST", server.of_tenant("chains"), document))
        except Failed as error:
            wrong += [f"{file}: {line}" for line in error.lines]
    if wrong:
        raise Failed(*wrong, "nothing was deployed")
    return saved


def _reached(server: Server, deployment: dict[str, Any]) -> set[str]:
    """The chains that messages may come to: the root, and what it calls."""
    reached: set[str] = set()
    todo = [deployment["root"]]
    while todo:
        name = todo.pop()
        if name in reached or name not in deployment["chains"]:
            continue
        reached.add(name)
        found = server.get(server.of_tenant("chains", name), {"version": deployment["chains"][name]})
        nodes = found["document"]["nodes"].values()
        todo += [node["config"]["chain"] for node in nodes if node["kind"] == CALL]
    return reached


def _told(server: Server, made: dict[str, Any]) -> str:
    return (
        f"Deployment {made['number']} of tenant {server.tenant} is current: "
        f"messages start in {made['root']}; chains: {_versions(made)}."
    )


def _versions(deployment: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(deployment["chains"].items()))
