"""`rulemill node list` and `node show`: what kinds of nodes there are, and how each is used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from engine.config import load

if TYPE_CHECKING:
    from nodes import NodeSpec
    from nodes.catalogue import Catalogue


@click.group()
def node() -> None:
    """Kinds of nodes: which there are, and how each is used."""


@node.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_kinds(as_json: bool) -> None:
    """List all kinds, with what each does.

    \b
    Example:
      rulemill node list
    """
    from nodes.pages import by_category

    catalogue = _catalogue()
    if as_json:
        specs = [kind.spec for kind in catalogue]
        _print_json([{"kind": spec.kind, "category": spec.category, "summary": spec.summary} for spec in specs])
        return
    for title, specs in by_category(catalogue).items():
        _section(title, [(spec.kind, spec.summary) for spec in specs])
    click.echo("`rulemill node show KIND` tells all about one.")


@node.command()
@click.argument("kind")
@click.option("--json", "as_json", is_flag=True, help="As JSON, with the JSON Schema of the configuration.")
def show(kind: str, as_json: bool) -> None:
    """Tell all about KIND: relations, settings, examples.

    \b
    Example:
      rulemill node show create_alarm
    """
    catalogue = _catalogue()
    if kind not in catalogue:
        near = catalogue.did_you_mean(kind)
        hint = f"did you mean {near}?" if near else "`rulemill node list` lists all."
        raise click.ClickException(f"there is no kind {kind!r}; {hint}")
    spec, schema = catalogue.spec(kind), catalogue.json_schema(kind)
    if as_json:
        _print_json(_as_json(spec, schema))
    else:
        _show(spec, schema)


def _catalogue() -> Catalogue:
    from nodes.catalogue import Catalogue

    return Catalogue().with_plugins(load().settings.plugins)


def _show(spec: NodeSpec, schema: dict[str, Any]) -> None:
    from nodes.fields import fields
    from nodes.pages import example_json

    click.secho(spec.kind, bold=True)
    click.echo(click.wrap_text(spec.summary, _width(), "  ", "  "))
    click.echo()
    click.echo(click.wrap_text(spec.description, _width()))
    if spec.parks:
        click.echo("\nMessages wait here durably: connections may lead back to this node in a circle.")
    click.echo()
    relations = [(relation.name, relation.when) for relation in spec.relations]
    if spec.open_relations:
        relations.append(("any other", "The configuration or the script names it."))
    _section("Relations", relations or [("none", "The message ends here, or goes back to the chain that called.")])
    settings = [(field.name, _setting(*field[1:])) for field in fields(schema)]
    _section("Settings, in `config`", settings or [("none", "")])
    click.secho("Examples", bold=True)
    for example in spec.examples:
        click.echo(f"  {example.title}:")
        click.echo("".join(f"    {line}\n" for line in example_json(spec.kind, example.config).splitlines()))


def _setting(type: str, default: str, description: str) -> str:
    return f"{description} ({type}; {f'default {default}' if default else 'must be given'})"


def _section(title: str, rows: Iterable[tuple[str, str]]) -> None:
    click.secho(title, bold=True)
    for line in _columns(list(rows)):
        click.echo(line)
    click.echo()


def _columns(rows: list[tuple[str, str]]) -> Iterator[str]:
    """Two columns, the second wrapped; a name too long for the first stands on a line of its own."""
    left = min(max(len(name) for name, _ in rows), 30) + 4
    for name, text in rows:
        first = f"  {name}"
        if len(first) > left - 2:
            yield first
            first = ""
        yield click.wrap_text(text, _width(), first.ljust(left), " " * left).rstrip()


def _width() -> int:
    return max(60, min(100, shutil.get_terminal_size((100, 24)).columns))


def _as_json(spec: NodeSpec, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": spec.kind,
        "category": spec.category,
        "version": spec.version,
        "summary": spec.summary,
        "description": spec.description,
        "parks": spec.parks,
        "relations": [relation._asdict() for relation in spec.relations],
        "open_relations": spec.open_relations,
        "config": schema,
        "examples": [example._asdict() for example in spec.examples],
    }


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))
