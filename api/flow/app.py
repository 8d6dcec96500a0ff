"""The management API as an ASGI application: routes from the table, one way for every request and every error."""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable
from functools import cache
from importlib import metadata
from typing import Any, Final

import msgspec
from quart import Quart, Request, Response, request

from api.flow import openapi
from api.flow.operation import MAX_BODY_BYTES, Answer, Call, Operation, Parts, token_digest
from api.flow.operations import OPERATIONS
from api.flow.problems import MEDIA, Unauthorized, problem_of
from chains.wording import explain_conversion
from engine.errors import BadInput
from nodes.codecs.values import decode_json

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


def create_app(parts: Parts) -> Quart:
    """The application. It starts and stops nothing: that is the composition root's."""
    app = Quart(__name__, static_folder=None, template_folder=None)
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
        answer = await operation.handler(parts, Call(path, query, body))
        if isinstance(answer, Answer):
            return _response(answer)
        response = Response(answer.lines, content_type=operation.media)
        response.headers["Cache-Control"] = "no-store"
        response.timeout = None
        return response

    return view


def _query(struct: type) -> Any:
    """The query parameters as the operation's struct; unknown ones are ignored (G-27)."""
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        given = request.args.getlist(field.encode_name)
        if given:
            values[field.encode_name] = given if _is_list(field.type) else given[0]
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
