"""ThingsBoard's REST API for people (`TB-X5`): logging in, and who one is. What they may do comes as more routes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from api.accounts import Accounts, NotActive, WrongLogin
from api.device_record import NOBODY, device_record, entity, tenant_uuid
from api.dialects.thingsboard.errors import error_response
from api.dialects.thingsboard.operator_access import NO_DEVICE, Access, Denied
from api.dialects.thingsboard.tokens import AUTHORITIES, REFRESH_S, Tokens
from api.login_throttle import TooManyAttempts
from api.transports.http import JSON, Feed, Handler, Header, Request, Response, Route, Stream
from engine.errors import BadInput, NotFound, StoreUnavailable
from engine.stores.people import Person
from engine.stores.registry_store import Registry
from nodes.codecs.values import decode_json

MOST_BYTES: Final = 65_536


class OperatorHttp:
    """The surface: every path under /api but those of devices, which stand under /api/v1."""

    name = "thingsboard"
    cors = True

    def __init__(
        self, access: Access, accounts: Accounts, tokens: Tokens, registry: Registry, more: Iterable[Route] = ()
    ) -> None:
        self._access, self._accounts, self._tokens, self._registry = access, accounts, tokens, registry
        routes = (
            Route("POST", "/api/auth/login", self._log_in),
            Route("POST", "/api/auth/token", self._renew),
            Route("POST", "/api/auth/logout", self._log_out),
            Route("POST", "/api/auth/changePassword", self._change_password),
            Route("GET", "/api/auth/user", self._user),
            Route("GET", "/api/device/{id}", self._device),
            Route("GET", "/api/tenant/devices", self._device_named),
            # Its name since the REST client's 4.4.
            Route("GET", "/api/tenant/device", self._device_named),
            *more,
        )
        self.routes: Sequence[Route] = tuple(
            Route(route.method, route.pattern, partial(_with_codes, route.handler)) for route in routes
        )

    def owns(self, request: Request) -> bool:
        """Everything under /api but /api/v1 (`G-4`)."""
        return request.segments[:1] == ("api",) and request.segments[1:2] != ("v1",)

    def error(self, request: Request, status: int, reason: str, headers: Sequence[Header] = ()) -> Response:
        """An error as the vendor tells it."""
        return error_response(status, reason, headers)

    # Logging in

    async def _log_in(self, request: Request, params: dict[str, str]) -> Response:
        username, password = texts(await json_body(request), "username", "password")
        try:
            person = await self._accounts.log_in(username, password, request.client)
        except WrongLogin:
            raise Denied(401, "Invalid username or password") from None
        except NotActive:
            raise Denied(401, "User account is not active") from None
        return json_response(self._tokens.pair(person))

    async def _renew(self, request: Request, params: dict[str, str]) -> Response:
        (token,) = texts(await json_body(request), "refreshToken")
        person, claims = await self._access.owner(token, refresh=True)
        return json_response(self._tokens.pair(person, claims.session))

    async def _log_out(self, request: Request, params: dict[str, str]) -> Response:
        _, claims = await self._access.session(request)
        await self._access.end(claims, REFRESH_S)
        return Response(200)

    async def _change_password(self, request: Request, params: dict[str, str]) -> Response:
        person, _ = await self._access.session(request)
        current, wanted = texts(await json_body(request), "currentPassword", "newPassword")
        try:
            changed = await self._accounts.change_password(person, current, wanted, request.client)
        except WrongLogin:
            raise BadInput("Current password doesn't match!") from None
        except BadInput as error:
            raise BadInput(error.reason, "/newPassword") from error
        return json_response(self._tokens.pair(changed))

    # Who and what there is

    async def _user(self, request: Request, params: dict[str, str]) -> Response:
        return json_response(person_record(await self._access.caller(request)))

    async def _device(self, request: Request, params: dict[str, str]) -> Response:
        person = await self._access.caller(request)
        return json_response(device_record(await self._access.device(person, params["id"])))

    async def _device_named(self, request: Request, params: dict[str, str]) -> Response:
        person = await self._access.tenant_admin(request)
        name = request.query.get("deviceName")
        if not name:
            raise BadInput("say which device: ?deviceName=")
        try:
            device = await self._registry.device(person.tenant, name)
        except NotFound:
            raise Denied(404, NO_DEVICE) from None
        # The registry takes ids too.
        return json_response(device_record(self._access.allowed(person, device if device.name == name else None)))


def person_record(person: Person) -> dict[str, Any]:
    """A person as the vendor's API shows one."""
    customer = person.id if person.role == "customer" else NOBODY
    return {
        "id": entity("USER", person.id),
        "createdTime": person.created_ms,
        "tenantId": entity("TENANT", tenant_uuid(person.tenant)),
        "customerId": entity("CUSTOMER", customer),
        "email": person.username,
        "name": person.username,
        "authority": AUTHORITIES[person.role],
        "firstName": None,
        "lastName": None,
        "additionalInfo": {},
    }


async def _with_codes(handler: Handler, request: Request, params: dict[str, str]) -> Response | Stream | Feed:
    """The handler's answer; errors that have a code or a time of their own keep it."""
    try:
        return await handler(request, params)
    except Denied as error:
        return error_response(error.status, error.reason, code=error.code)
    except TooManyAttempts as error:
        headers = ((b"retry-after", b"%d" % error.retry_after_s),)
        return error_response(429, "Too many login attempts", headers)
    except StoreUnavailable as error:
        return error_response(503, error.reason, ((b"retry-after", b"%d" % max(1, round(error.retry_after_s))),))


# For all operator routes


async def json_body(request: Request, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The body, which has to be a JSON object; BadInput."""
    value = decode_json(await request.body(most_bytes))
    if type(value) is not dict:
        raise BadInput("Request is not a JSON object")
    return value


def texts(body: dict[str, Any], *names: str) -> list[str]:
    """Members that have to be there and be texts; BadInput."""
    for name in names:
        if type(body.get(name)) is not str or not body[name]:
            raise BadInput("must be a text that is not empty", f"/{name}")
    return [body[name] for name in names]


def json_response(value: Any) -> Response:
    """A 200 with JSON."""
    return Response(200, msgspec.json.encode(value), (JSON,))
