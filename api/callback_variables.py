"""The variables of a callback: texts by name, wherever in the request they stand."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import msgspec

from api.transports.http_exchange import Request
from engine.errors import BadInput
from nodes.codecs.values import decode_json

MAX_VARIABLES = 200


async def variables(request: Request, limit: int) -> dict[str, str]:
    """Those of the query, then those of the body, which is JSON or a form (CT-X6); the first of a name counts.

    A JSON value that is no text stands as its JSON, null not at all. Raises BadInput, and TooLarge for a body of more
    than `limit` bytes.
    """
    found = dict(request.query)
    body = await request.body(limit)
    content = body.strip()
    if content:
        kind = (request.header("content-type") or "").partition(";")[0].strip().lower()
        for name, value in (_json if kind == "application/json" or content[:1] in b"{[" else _form)(content).items():
            found.setdefault(name, value)
    if len(found) > MAX_VARIABLES:
        raise BadInput(f"more than {MAX_VARIABLES} variables")
    return found


def _json(content: bytes) -> dict[str, str]:
    document = decode_json(content)
    if not isinstance(document, dict):
        raise BadInput("expected an object of variables")
    return {name: _text(value) for name, value in document.items() if value is not None}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _form(content: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            content.decode(), keep_blank_values=True, max_num_fields=MAX_VARIABLES, encoding="utf-8", errors="strict"
        )
    except ValueError as error:
        raise BadInput(f"neither JSON nor a form: {error}") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found
