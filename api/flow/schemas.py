"""Documents that describe the server to tools: the API, chain files, bootstrap files, node kinds."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from api.bootstrap_schema import bootstrap_schema
from api.flow.operation import BASE, Answer, Call, Operation, Parts
from chains.schema import chain_schema


class KindShown(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of node."""

    kind: str
    category: str
    summary: str
    description: str
    relations: Annotated[dict[str, str], Meta(description="Label to when it is taken.")]
    open_relations: bool
    config: Annotated[dict[str, Any], Meta(description="JSON Schema of its configuration.")]
    examples: list[dict[str, Any]]


class KindList(msgspec.Struct, frozen=True):
    """All kinds of nodes."""

    kinds: list[KindShown]


async def node_kinds(parts: Parts, call: Call) -> Answer:
    """The catalogue."""
    shown = []
    for name, node in sorted(parts.catalogue.kinds.items()):
        spec = node.spec
        (reference,), definitions = msgspec.json.schema_components([spec.config], ref_template="#/$defs/{name}")
        config = {**definitions.pop(reference["$ref"].rpartition("/")[2]), "$defs": definitions}
        shown.append(
            KindShown(
                kind=name, category=spec.category, summary=spec.summary, description=spec.description,
                relations={relation.name: relation.when for relation in spec.relations},
                open_relations=spec.open_relations, config=config,
                examples=[{"title": example.title, "config": example.config} for example in spec.examples],
            )
        )  # fmt: skip
    return Answer(200, KindList(shown))


async def chain_document_schema(parts: Parts, call: Call) -> Answer:
    """JSON Schema of chain files."""
    return Answer(200, chain_schema(parts.catalogue))


async def bootstrap_document_schema(parts: Parts, call: Call) -> Answer:
    """JSON Schema of bootstrap files."""
    return Answer(200, bootstrap_schema())


OPERATIONS: Final = (
    Operation(
        method="GET", path=BASE + "/node-kinds", id="node_kinds", summary="List the kinds of nodes",
        handler=node_kinds, answers={200: KindList},
    ),
    Operation(
        method="GET", path=BASE + "/chain-schema.json", id="chain_schema", summary="JSON Schema of chain files",
        handler=chain_document_schema, answers={200: dict[str, Any]}, public=True,
    ),
    Operation(
        method="GET", path=BASE + "/bootstrap-schema.json", id="bootstrap_schema",
        summary="JSON Schema of bootstrap files", handler=bootstrap_document_schema,
        answers={200: dict[str, Any]}, public=True,
    ),
)  # fmt: skip
