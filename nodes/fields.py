"""Settings of a JSON Schema as rows in plain words: for the catalogue page and for `rulemill node show`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

_TYPES = {"string": "text", "number": "number", "integer": "whole number", "boolean": "true or false", "null": "null"}


class Field(NamedTuple):
    """One setting: everything but `name` is ready to be read."""

    name: str
    """With those of the objects it stands in: `protobuf.message`."""
    type: str
    default: str
    """As JSON; empty if the setting must be given."""
    description: str


def fields(schema: Mapping[str, Any]) -> Iterator[Field]:
    """The settings of an object's schema in its order, those of inner objects after the object they belong to."""
    yield from _fields(schema, schema.get("$defs", {}), "")


def _fields(schema: Mapping[str, Any], definitions: Mapping[str, Any], outer: str) -> Iterator[Field]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        default = "" if name in required else _json(field.get("default"))
        yield Field(outer + name, _type(field, definitions), default, field.get("description", ""))
        for inner in _inner(field, definitions):
            yield from _fields(inner, definitions, f"{outer}{name}.")


def _inner(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for part in (field, *field.get("anyOf", ()), *field.get("allOf", ())):
        if "$ref" in part:
            yield definitions[part["$ref"].rpartition("/")[2]]


def _type(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "$ref" in field:
        return "object"
    if "enum" in field:
        *others, last = map(_json, field["enum"])
        return f"{', '.join(others)} or {last}" if others else last
    if parts := field.get("anyOf") or field.get("allOf"):
        return " or ".join(dict.fromkeys(_type(part, definitions) for part in parts))
    match field.get("type"):
        case "array":
            return _limited(f"list of {_type(field.get('items', {}), definitions)}", field, "minItems", "maxItems")
        case "object":
            values = field.get("additionalProperties")
            of = f" of {_type(values, definitions)}" if isinstance(values, Mapping) else ""
            return _limited(f"object{of}", field, "minProperties", "maxProperties")
        case "string":
            return _limited("text", field, "minLength", "maxLength")
        case str(other):
            return _numbers(_TYPES.get(other, other), field)
    return "any JSON"


def _limited(word: str, field: Mapping[str, Any], least: str, most: str) -> str:
    limits = []
    if field.get(least) == 1:
        limits.append("not empty")
    elif least in field:
        limits.append(f"at least {field[least]} long")
    if most in field:
        limits.append(f"at most {field[most]} long")
    if "pattern" in field:
        limits.append(f"matches {field['pattern']}")
    return ", ".join((word, *limits))


def _numbers(word: str, field: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return ", ".join((word, *(f"{sign} {_json(field[key])}" for key, sign in signs.items() if key in field)))


def _json(value: Any) -> str:
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    return msgspec.json.encode(whole).decode()
