"""The JSON Schema (2020-12) of chain documents: made from the node kinds, published for editors, used for checking."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from jsonschema import Draft202012Validator
from referencing import Registry

from chains.model import (
    MAX_NODES,
    MAX_TARGETS,
    NAME_PATTERN,
    NODE_NAME_PATTERN,
    OUTPUT,
    Catalogue,
)
from chains.wording import explain
from engine.errors import Finding
from engine.node import NodeSpec
from engine.outcomes import FAILURE
from engine.plan import RetryPolicy

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_validators: weakref.WeakKeyDictionary[Catalogue, Draft202012Validator] = weakref.WeakKeyDictionary()


def chain_schema(catalogue: Catalogue) -> dict[str, Any]:
    """The schema of chain documents whose nodes are of the catalogue's kinds; each kind has its own configuration."""
    specs = [node.spec for _, node in sorted(catalogue.kinds.items())]
    components, definitions = msgspec.json.schema_components(
        [*(spec.config for spec in specs), RetryPolicy], ref_template="#/$defs/config.{name}"
    )
    *references, retry = components
    for definition in definitions.values():
        _close(definition)
    cases = [_kind_case(spec, reference, definitions) for spec, reference in zip(specs, references, strict=True)]
    return {
        "$schema": DIALECT,
        "title": "Rule chain",
        "description": "A named graph of nodes that messages run through.",
        "type": "object",
        "required": ["chain", "start", "nodes"],
        "additionalProperties": False,
        "properties": {
            "$schema": {"type": "string", "description": "Where an editor finds this schema."},
            "chain": {"type": "string", "pattern": NAME_PATTERN, "description": "Name, by which other chains call it."},
            "title": {"type": "string", "maxLength": 200, "description": "What people read."},
            "description": {"type": "string", "maxLength": 10_000, "description": "What the chain is good for."},
            "start": {"type": "string", "minLength": 1, "description": "The node where messages come in."},
            "nodes": {
                "type": "object",
                "minProperties": 1,
                "maxProperties": MAX_NODES,
                "description": "The nodes by name.",
                "propertyNames": {"pattern": NODE_NAME_PATTERN},
                "additionalProperties": {"$ref": "#/$defs/node"},
            },
            "files": {
                "type": "object",
                "maxProperties": 100,
                "description": "Texts that travel with the chain, such as scripts, by file name.",
                "propertyNames": {"pattern": NAME_PATTERN},
                "additionalProperties": {"type": "string"},
            },
        },
        "$defs": {
            "node": _node([spec.kind for spec in specs], retry, cases),
            "targets": {
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "minItems": 1, "maxItems": MAX_TARGETS, "items": {"type": "string"}},
                ]
            },
            **{f"config.{name}": definition for name, definition in definitions.items()},
        },
    }


def validate(document: object, catalogue: Catalogue) -> Iterator[Finding]:
    """Everything in which a document is not of the chain schema, in plain words, sorted by place."""
    validator = _validators.get(catalogue)
    if validator is None:
        schema = chain_schema(catalogue)
        Draft202012Validator.check_schema(schema)
        # An empty registry: a reference to anywhere outside the schema is an error, not a download.
        validator = _validators[catalogue] = Draft202012Validator(schema, registry=Registry())
    for error in sorted(validator.iter_errors(document), key=lambda error: [str(step) for step in error.absolute_path]):
        yield from explain(error)


def _node(kinds: list[str], retry: dict[str, Any], cases: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["kind"],
        "additionalProperties": False,
        "properties": {
            "kind": {"enum": kinds, "description": "What the node is."},
            "config": {"type": "object", "description": "How this node does it."},
            "to": {
                "type": "object",
                "description": "Relation to the node, or nodes, that such messages go on to.",
                "propertyNames": {"minLength": 1, "maxLength": 256},
                "additionalProperties": {"$ref": "#/$defs/targets"},
            },
            "retry": {**retry, "description": "How long what may pass is tried again."},
        },
        "allOf": cases,
    }


def _kind_case(spec: NodeSpec, reference: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    then: dict[str, Any] = {"description": spec.summary, "properties": {"config": reference}}
    if definitions[reference["$ref"].removeprefix("#/$defs/config.")].get("required"):
        then["required"] = ["config"]
    relations = {relation.name: {"description": relation.when} for relation in spec.relations}
    to = {"properties": {FAILURE: {}, **relations}} if spec.kind != OUTPUT else {"maxProperties": 0}
    then["properties"]["to"] = to
    return {"if": {"properties": {"kind": {"const": spec.kind}}, "required": ["kind"]}, "then": then}


def _close(schema: Any) -> None:
    """Refuse unknown keys in every object with known ones, whatever the struct behind it allows: typing errors."""
    if isinstance(schema, list):
        for part in schema:
            _close(part)
    elif isinstance(schema, dict):
        if schema.get("type") == "object" and "properties" in schema:
            schema.setdefault("additionalProperties", False)
        for key, part in schema.items():
            if key not in ("default", "const", "enum", "examples"):
                _close(part)
