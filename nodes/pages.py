"""The catalogue page: every kind of a catalogue as Markdown, from what the kinds say of themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from engine.plan import RetryPolicy
from nodes import NodeSpec
from nodes.catalogue import Catalogue
from nodes.fields import Field, fields

CATEGORIES: Final[Mapping[str, str]] = {
    "filter": "Decide where a message goes on",
    "transform": "Change what a message says",
    "action": "Do something with a message inside the server",
    "external": "Talk to the world outside",
    "flow": "Steer chains",
}
"""In the order of the page, with what their kinds have in common."""

MANY: Final = 12
"""Relations that a table of kinds lists and a section shows unfolded; of more they tell the number."""

_INTRODUCTION: Final = """\
# Node kinds

A node of a chain file has a `kind`, the `config` that this page describes, and in `to` the connections of its
relations:

```json
{"kind": "create_alarm", "config": {"type": "Too hot"}, "to": {"Created": "mail", "Updated": ["log", "count"]}}
```

A message goes on along every connection of the relation that the node chose for it; where a relation has no
connection, it ends. Any node may connect `Failure`: without that connection a message that fails becomes a dead
letter, which names the node and the reason. Templates put values in: `${key}` from the metadata, `$[key]` from the
data, `${secret:NAME}` a secret of the tenant where a setting allows it.

What fails for a while, such as a service that does not answer, is tried again with growing pauses. `retry` beside
`config` says how long: `{"kind": "forward_http", "config": {…}, "retry": {"attempts": 3}}`.
"""


def catalogue_page(catalogue: Catalogue) -> str:
    """The page of all kinds: a table by category, then a section a kind."""
    parts = [_INTRODUCTION, table(("setting of `retry`", "is", "default", "means"), _rows(_retry())), "## All kinds\n"]
    groups = by_category(catalogue)
    for title, specs in groups.items():
        parts += [f"### {title}\n", table(("kind", "does", "relations"), map(_row, specs))]
    for specs in groups.values():
        parts += [kind_section(spec, catalogue.json_schema(spec.kind)) for spec in specs]
    return "\n".join(parts)


def by_category(catalogue: Catalogue) -> dict[str, list[NodeSpec]]:
    """Kinds by what they have in common, in the order of the page; those of categories of their own come last."""
    groups: dict[str, list[NodeSpec]] = {title: [] for title in CATEGORIES.values()}
    for kind in catalogue:
        groups.setdefault(CATEGORIES.get(kind.spec.category, kind.spec.category), []).append(kind.spec)
    return {title: specs for title, specs in groups.items() if specs}


def kind_section(spec: NodeSpec, schema: Mapping[str, Any]) -> str:
    """The section of one kind; `schema` is that of its configuration."""
    parts = [f"## {spec.kind}\n", f"**{spec.summary}**\n", f"{spec.description}\n"]
    if spec.parks:
        parts.append("Messages wait here durably, so connections may lead back to this node in a circle.\n")
    parts.append(_relations(spec))
    if rows := list(_rows(fields(schema))):
        parts.append(table(("setting", "is", "default", "means"), rows))
    else:
        parts.append("It has no settings.\n")
    parts += [
        f"{example.title}:\n\n```json\n{example_json(spec.kind, example.config)}\n```\n" for example in spec.examples
    ]
    return "\n".join(parts)


def example_json(kind: str, config: Mapping[str, Any]) -> str:
    """A node as it stands in a chain file: one line if it fits, else indented."""
    node = {"kind": kind, "config": config} if config else {"kind": kind}
    line = json.dumps(node, ensure_ascii=False)
    return line if len(line) <= 100 else json.dumps(node, ensure_ascii=False, indent=2)


def anchor(kind: str) -> str:
    """Where the page's section of a kind is."""
    return f"#{kind}"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _retry() -> Iterator[Field]:
    _, components = msgspec.json.schema_components([RetryPolicy])
    return fields(components[RetryPolicy.__name__])


def _row(spec: NodeSpec) -> tuple[str, str, str]:
    names = [f"`{relation.name}`" for relation in spec.relations]
    if len(names) > MANY:
        names = [f"{len(names)}, such as {', '.join(names[:2])}"]
    if spec.open_relations:
        names.append("those you name")
    return f"[`{spec.kind}`]({anchor(spec.kind)})", spec.summary, ", ".join(names) or "none: the message goes back"


def _relations(spec: NodeSpec) -> str:
    rows = [(f"`{relation.name}`", relation.when) for relation in spec.relations]
    if spec.open_relations:
        rows.append(("any other", "The configuration or the script names it."))
    if not rows:
        return "It has no relations.\n"
    text = table(("relation", "taken when"), rows)
    return text if len(rows) <= MANY else f"<details><summary>{len(rows)} relations</summary>\n\n{text}\n</details>\n"


def _rows(settings: Iterable[Field]) -> Iterator[tuple[str, str, str, str]]:
    for field in settings:
        default = f"`{field.default}`" if field.default else "must be given"
        yield f"`{field.name}`", field.type, default, field.description
