"""Bodies of requests, and answers, as JSON."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from api.dialects.thethingsio.settings import MAX_BODY_BYTES
from api.transports.http import JSON, Request, Response
from api.transports.http_exchange import Header
from engine.errors import BadInput
from nodes.codecs.values import decode_json

MAX_DEPTH: Final = 64
"""How many arrays and objects of a body may stand inside each other."""

_FIXED: Final[tuple[Header, ...]] = (JSON,)


def decoded(body: bytes) -> Any:
    """A body as JSON; BadInput for what is none, and for what no message of a chain can hold."""
    if not body.strip():
        raise BadInput("the body is empty")
    return decode_json(body, max_depth=MAX_DEPTH)


def object_of(body: Any) -> dict[str, Any]:
    """A body that must be an object; BadInput."""
    if not isinstance(body, dict):
        raise BadInput("the body must be an object")
    return body


async def read(request: Request, limit_bytes: int = MAX_BODY_BYTES) -> Any:
    """The body as JSON, whatever its type is said to be (`G-27`); BadInput for what is none."""
    return decoded(await request.body(limit_bytes))


async def read_object(request: Request, limit_bytes: int = MAX_BODY_BYTES) -> dict[str, Any]:
    """The body, which must be an object; BadInput."""
    return object_of(await read(request, limit_bytes))


def text_of(body: dict[str, Any], name: str) -> str:
    """A member that must be a text with something in it; BadInput."""
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"{name} is missing" if name not in body else f"{name} must be a text")
    return value


def answer(body: Any, status: int = 200) -> Response:
    """An answer."""
    return Response(status, msgspec.json.encode(body), _FIXED)


def success(message: str, status: int = 200, **more: Any) -> Response:
    """`{"status": "success", "message": …}`, with more members behind."""
    return answer({"status": "success", "message": message, **more}, status)


def error_body(status: int, reason: str) -> dict[str, Any]:
    """What every error looks like (`TTI-S2`)."""
    return {"status": "error", "code": status, "message": reason}
