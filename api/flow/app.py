"""The management API as an ASGI application: routes from the table, one way for every request and every error."""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from functools import cache
from importlib import metadata
from typing import Any, Final

import msgspec
from quart import Quart, Request, Response, request
from redis.exceptions import RedisError

from api.flow import openapi
from api.flow.operation import MAX_BODY_BYTES, Answer, Call, Lines, Operation, Parts, token_digest
from api.flow.operations import OPERATIONS
from api.flow.problems import MEDIA, Unauthorized, problem_of
from chains.wording import explain_conversion
from engine.errors import BadInput, RulemillError
from nodes.codecs.values import decode_json

log = logging.getLogger("rulemill.flow")

JSON: Final = "application/json"

View = Callable[..., Awaitable[Response]]

_encode = msgspec.json.Encoder(enc_hook=str).encode


_LARGER: Final = [
    (operation.method, re.compile(re.sub(r"{\w+}", "[^/]+", operation.path) + "/?"), operation.max_body_bytes)
    for operation in OPERATIONS
    if operation.max_body_bytes != MAX_BODY_BYTES
]
"""Operations that take larger bodies than all others."""


class _Request(Request):
    """A request whose body is cut at the size that its operation takes: Quart has one for all."""

    def __init__(self, method: str, scheme: str, path: str, *rest: Any, **options: Any) -> None:
        options["max_content_length"] = next(
            (size for name, place, size in _LARGER if name == method and place.fullmatch(path)), MAX_BODY_BYTES
        )
        super().__init__(method, scheme, path, *rest, **options)


class Cut(Exception):
    """What an answer goes on with cannot be had: the log has said why, and the connection's end tells the client."""


class _Application(Quart):
    """An answer that cannot go on is left incomplete, which makes the server cut the connection."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        with suppress(Cut):
            await super().__call__(scope, receive, send)


def create_app(parts: Parts) -> Quart:
    """The application. It starts and stops nothing: that is the composition root's."""
    app = _Application(__name__, static_folder=None, template_folder=None)
    app.request_class = _Request
    # A redirect would cost clients their method or body (G-27).
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    public = {operation.id for operation in OPERATIONS if operation.public} | {"openapi"}

    @app.before_request
    async def authorise() -> None:
        if request.endpoint not in public:
            check_token(request.headers.get("Authorization", ""), parts.tokens)

    async def failed(error: Exception) -> Response:
        problem, headers = problem_of(error)
        response = Response(_encode(problem), problem.status, content_type=MEDIA)
        response.headers.update(headers)
        return response

    app.register_error_handler(Exception, failed)
    for operation in OPERATIONS:
        _add(app, operation.path, operation.id, operation.method, _view(parts, operation))
    text = openapi.encoded(OPERATIONS, metadata.version("rulemill"))

    async def description() -> Response:
        return Response(text, content_type=JSON)

    _add(app, openapi.PATH, "openapi", "GET", description)
    return app


def check_token(header: str, accepted: frozenset[str]) -> None:
    """Raise Unauthorized unless the Authorization header carries an accepted operator token."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("an operator token is needed: Authorization: Bearer <token>")
    digest = token_digest(token.strip())
    if not any(hmac.compare_digest(digest, one) for one in accepted):
        raise Unauthorized("the operator token is not right")


def _add(app: Quart, path: str, endpoint: str, method: str, view: View) -> None:
    rule = path.replace("{", "<").replace("}", ">")
    app.add_url_rule(rule, endpoint, view, methods=[method], provide_automatic_options=False)


def _view(parts: Parts, operation: Operation) -> View:
    async def view(**path: str) -> Response:
        query = None if operation.query is None else _query(operation.query)
        body = None if operation.body is None else _body(operation, await request.get_data(True, False, False))
        if "tenant" in path and not operation.makes_tenant:
            await parts.registry.tenant(path["tenant"])
        accept = request.headers.get("Accept", "")
        answer = await operation.handler(parts, Call(path, query, body, accept))
        if isinstance(answer, Answer):
            return _response(answer)
        response = Response(_until_cut(operation, answer), content_type=answer.media or operation.media)
        response.headers["Cache-Control"] = "no-store"
        response.headers.update(answer.headers)
        response.timeout = None
        return response

    return view


async def _until_cut(operation: Operation, answer: Lines) -> AsyncGenerator[bytes, None]:
    try:
        async with aclosing(answer.lines) as lines:
            async for line in lines:
                yield line
    except (RulemillError, RedisError, OSError) as error:
        log.warning("%s: the answer was cut: %s: %s", operation.id, type(error).__name__, error)
        raise Cut from error


def _query(struct: type) -> Any:
    """The query parameters as the operation's struct; unknown ones are ignored (G-27)."""
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        given = request.args.getlist(field.encode_name)
        if given:
            values[field.encode_name] = given if _is_list(field.type) else given[0]
        elif field.required:
            raise BadInput(f"query parameter {field.encode_name} is missing", f"?{field.encode_name}")
    try:
        return msgspec.convert(values, struct, strict=False)
    except msgspec.ValidationError as error:
        found = explain_conversion(str(error))
        name = found.pointer.split("/")[1] if found.pointer else ""
        raise BadInput(f"query parameter {name}: {found.message}" if name else found.message, f"?{name}") from error


@cache
def _is_list(kind: Any) -> bool:
    info = msgspec.inspect.type_info(kind)
    while isinstance(info, msgspec.inspect.Metadata):
        info = info.type
    return isinstance(info, msgspec.inspect.ListType)


def _body(operation: Operation, data: bytes) -> Any:
    """The body as the operation's type; JSON whatever its Content-Type says (G-27)."""
    if not data and operation.body_optional:
        return None
    if operation.body is bytes:
        return data
    value = decode_json(data)
    try:
        return msgspec.convert(value, operation.body)
    except msgspec.ValidationError as error:
        found = explain_conversion(str(error))
        raise BadInput(found.message, found.pointer) from error


def _response(answer: Answer) -> Response:
    body = answer.body
    data = b"" if body is None else body if isinstance(body, bytes) else _encode(body)
    response = Response(data, answer.status, content_type=JSON)
    if body is None:
        del response.headers["Content-Type"]
    response.headers.update(answer.headers)
    return response
