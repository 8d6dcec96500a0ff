"""The OpenAPI 3.1 document, made from the table of operations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec
from msgspec import json

from api.flow.operation import BASE, Operation
from api.flow.problems import MEDIA as PROBLEM_MEDIA
from api.flow.problems import Problem

PATH: Final = BASE + "/openapi.json"

PLACES: Final[dict[str, dict[str, Any]]] = {
    "tenant": {"description": "Name of the tenant."},
    "device": {"description": "Id, name or external id of the device; for PUT the id."},
    "product": {"description": "Id of the product."},
    "firmware": {"description": "Id of the image."},
    "kind": {"description": "What is assigned.", "enum": ["firmware", "software", "FIRMWARE", "SOFTWARE"]},
    "chain": {"description": "Name of the chain."},
    "alarm": {"description": "Id of the alarm."},
    "app": {"description": "Id of the app."},
    "letter": {"description": "Id of the dead letter."},
    "secret": {"description": "Name of the secret."},
    "person": {"description": "Id or user name of the person."},
    "scope": {
        "description": "Scope of the attributes.",
        "enum": ["CLIENT", "SHARED", "SERVER", "CLIENT_SCOPE", "SHARED_SCOPE", "SERVER_SCOPE"],
    },
}
"""What varies in paths."""


def document(operations: Sequence[Operation], version: str) -> dict[str, Any]:
    """The OpenAPI document of the operations."""
    types: list[Any] = [Problem]
    for operation in operations:
        types += [kind for kind in operation.answers.values() if kind is not None]
        types += [operation.body] if operation.body is not None else []
        types += [operation.query] if operation.query is not None else []
    schemas, components = json.schema_components(types, ref_template="#/components/schemas/{name}")
    made = iter(schemas)
    problem = next(made)
    paths: dict[str, Any] = {}
    queries = {operation.query.__name__ for operation in operations if operation.query is not None}
    for operation in operations:
        answers = {status: None if kind is None else next(made) for status, kind in operation.answers.items()}
        body = next(made) if operation.body is not None else None
        query = components[next(made)["$ref"].rpartition("/")[2]] if operation.query is not None else None
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(
            operation, answers, body, query, problem
        )
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Rulemill management API",
            "version": version,
            "description": "Tenants, devices, rule chains and what they do. Errors are problem details (RFC 9457).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"operator": []}],
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in components.items() if name not in queries},
            "securitySchemes": {"operator": {"type": "http", "scheme": "bearer", "description": "The operator token."}},
        },
    }


def _operation(
    operation: Operation, answers: dict[int, Any], body: Any, query: dict[str, Any] | None, problem: dict[str, Any]
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "description": (operation.handler.__doc__ or "").strip(),
    }
    if operation.public:
        made["security"] = []
    parameters = [_place(name) for name in re.findall(r"{(\w+)}", operation.path)]
    if query is not None:
        parameters += _query(query)
    if parameters:
        made["parameters"] = parameters
    if body is not None:
        raw = operation.body is bytes
        made["requestBody"] = {
            "required": not operation.body_optional,
            "content": {"application/octet-stream": {}} if raw else {"application/json": {"schema": body}},
        }
    responses = {str(status): _answer(status, schema, operation.media) for status, schema in answers.items()}
    for answer in responses.values():
        answer.get("content", {}).update({media: {"schema": {"type": "string"}} for media in operation.also_media})
    for status in operation.failures():
        responses.setdefault(str(status), _answer(status, problem, PROBLEM_MEDIA))
    made["responses"] = dict(sorted(responses.items()))
    return made


def _place(name: str) -> dict[str, Any]:
    place = PLACES[name]
    schema: dict[str, Any] = {"type": "string", "minLength": 1}
    if "enum" in place:
        schema["enum"] = place["enum"]
    return {"name": name, "in": "path", "required": True, "description": place["description"], "schema": schema}


def _query(struct: dict[str, Any]) -> list[dict[str, Any]]:
    required = struct.get("required", [])
    found = []
    for name, schema in struct["properties"].items():
        inner = dict(schema)
        parameter = {"name": name, "in": "query", "required": name in required, "schema": inner}
        if "description" in inner:
            parameter["description"] = inner.pop("description")
        found.append(parameter)
    return found


def _answer(status: int, schema: Any, media: str) -> dict[str, Any]:
    made: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if status == 503 and media == PROBLEM_MEDIA:
        made["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "string"}}}
    if schema is not None:
        made["content"] = {media: {"schema": schema}}
    return made


def encoded(operations: Sequence[Operation], version: str) -> bytes:
    """The document as JSON text."""
    return msgspec.json.encode(document(operations, version))
