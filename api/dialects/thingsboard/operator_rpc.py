"""Operators' calls to devices (`TB-X4`): one-way, two-way, and kept until their device is there."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, get_args

import msgspec

from api.calls import GRACE_S, MOST_WAIT_MS, call_message
from api.device_record import entity, tenant_uuid
from api.dialects.thingsboard.operator_access import NO_PERMISSION, Access, Denied
from api.dialects.thingsboard.operators import json_body, json_response, texts
from api.dialects.thingsboard.settings import MAX_RPC_BYTES
from api.server_messages import ServerMessages
from api.transports.http import HttpError, Request, Response, Route
from engine.errors import BadInput, Conflict
from engine.message import now_ms
from engine.replies import Replies, Waiting
from engine.stores.kept_call import MOST_AHEAD_MS, MOST_RETRIES, KeptCall, Status
from engine.stores.kept_calls import KeptCalls
from engine.stores.people import Person
from engine.stores.registry import Device

DEFAULT_MS: Final = 10_000
LEAST_MS: Final = 5_000
"""A shorter timeout is taken for this one."""
MOST_WAIT_S: Final = MOST_WAIT_MS / 1000
MOST_A_PAGE: Final = 1000
NO_CALL: Final = "Rpc with requested id wasn't found!"

_NOBODY_ANSWERED: Final = Response(504)
_STATUSES: Final = frozenset(get_args(Status))


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A call as its body says."""

    method: str
    params: Any
    timeout_ms: int
    expires_ms: int
    persistent: bool
    retries: int
    info: Any


class OperatorRpc:
    """The routes."""

    def __init__(self, access: Access, messages: ServerMessages, replies: Replies, kept: KeptCalls) -> None:
        self._access, self._messages, self._replies, self._kept = access, messages, replies, kept
        self.routes: Sequence[Route] = (
            Route("POST", "/api/rpc/oneway/{id}", partial(self._call, True)),
            Route("POST", "/api/rpc/twoway/{id}", partial(self._call, False)),
            # Their names in the first version of the REST API, which its client still has.
            Route("POST", "/api/plugins/rpc/oneway/{id}", partial(self._call, True)),
            Route("POST", "/api/plugins/rpc/twoway/{id}", partial(self._call, False)),
            Route("GET", "/api/rpc/persistent/{id}", self._show),
            Route("DELETE", "/api/rpc/persistent/{id}", self._delete),
            Route("GET", "/api/rpc/persistent/device/{id}", self._list),
        )

    async def _call(self, oneway: bool, request: Request, params: dict[str, str]) -> Response:
        person = await self._access.caller(request)
        wanted = read_call(await json_body(request, MAX_RPC_BYTES), now_ms())
        device = await self._access.device(person, params["id"])
        if wanted.persistent:
            return await self._keep(device, wanted, oneway)
        wait_s = (wanted.expires_ms - now_ms()) / 1000
        if wait_s <= 0:
            return _NOBODY_ANSWERED
        with self._replies.wait() as waiting:
            message = call_message(
                self._messages, device, wanted.method, wanted.params, id=str(uuid.uuid4()), oneway=oneway,
                timeout_ms=wanted.timeout_ms, expires_ms=wanted.expires_ms, reply_to=waiting.to, awaited=not oneway,
            )  # fmt: skip
            await self._messages.submit([message])
            answered = _handed_over(waiting) if oneway else _answer(waiting)
            answer = await request.wait(asyncio.ensure_future(answered), wait_s + GRACE_S)
        return _NOBODY_ANSWERED if answer is None else answer

    async def _keep(self, device: Device, wanted: Wanted, oneway: bool) -> Response:
        self._messages.admit()
        now = now_ms()
        if wanted.expires_ms > now + MOST_AHEAD_MS:
            raise BadInput(f"a call is kept for {MOST_AHEAD_MS // 86_400_000} days at most", "/expirationTime")
        id = self._kept.new_id(device.tenant, device.id)
        message = call_message(
            self._messages, device, wanted.method, wanted.params, id=id, oneway=oneway, kept=True,
            timeout_ms=wanted.timeout_ms, expires_ms=wanted.expires_ms,
        )  # fmt: skip
        about = {name: message.metadata[name] for name in ("dialect", "transport", "deviceName", "deviceType")}
        made = KeptCall(
            id=id, tenant=device.tenant, device=device.id, method=wanted.method, params=wanted.params, oneway=oneway,
            created_ms=now, expires_ms=wanted.expires_ms, retries=wanted.retries, info=wanted.info, metadata=about,
        )  # fmt: skip
        try:
            await self._kept.add(made, message)
        except Conflict as error:
            raise HttpError(429, error.reason) from error
        return json_response({"rpcId": id})

    async def _show(self, request: Request, params: dict[str, str]) -> Response:
        person = await self._access.caller(request)
        return json_response(call_record(await self._find(person, params["id"])))

    async def _delete(self, request: Request, params: dict[str, str]) -> Response:
        person = await self._access.caller(request)
        known = await self._find(person, params["id"])
        if person.role != "tenant_admin":
            raise Denied(403, NO_PERMISSION)
        if await self._kept.forget(known.id) is None:
            raise Denied(404, NO_CALL)
        return Response(200)

    async def _find(self, person: Person, id: str) -> KeptCall:
        """A call to a device that the person may touch; Denied."""
        try:
            uuid.UUID(id)
        except ValueError:
            raise BadInput(f"not an id of a call: {id[:40]!r}") from None
        known = await self._kept.find(id)
        if known is None or known.tenant != person.tenant:
            raise Denied(404, NO_CALL)
        await self._access.device(person, known.device)
        return known

    async def _list(self, request: Request, params: dict[str, str]) -> Response:
        """A page of a device's calls, newest first."""
        person = await self._access.caller(request)
        device = await self._access.device(person, params["id"])
        query = request.query
        size, page = (_whole(query.get(name), name) for name in ("pageSize", "page"))
        if not 1 <= size <= MOST_A_PAGE or page < 0:
            raise BadInput(f"pageSize is 1 to {MOST_A_PAGE}, page 0 or more")
        status, text = query.get("rpcStatus"), query.get("textSearch", "").casefold()
        if status and status not in _STATUSES:
            raise BadInput(f"rpcStatus is one of {', '.join(sorted(_STATUSES))}")
        found = [
            call
            for call in await self._kept.of(device.tenant, device.id)
            if (not status or call.status == status) and text in call.method.casefold()
        ]
        shown = found[page * size : (page + 1) * size]
        return json_response(
            {
                "data": [call_record(call) for call in shown],
                "totalPages": -(-len(found) // size),
                "totalElements": len(found),
                "hasNext": (page + 1) * size < len(found),
            }
        )


async def _handed_over(waiting: Waiting) -> Response:
    """Wait until a session of the device was given the command."""
    while True:
        answer = await waiting.next(MOST_WAIT_S)
        if answer is not None and answer.kind == "delivered":
            return Response(200)


async def _answer(waiting: Waiting) -> Response:
    """What the device answers; 504 when the chain says that it will not, or ends without having asked it."""
    answer = await waiting.next(MOST_WAIT_S)
    if answer is None or answer.kind == "end" or answer.error:
        return _NOBODY_ANSWERED
    if answer.data is None:
        return Response(200)
    return Response(406) if type(answer.data) is bytes else json_response(answer.data)


def read_call(body: dict[str, Any], now: int) -> Wanted:
    """The call that a body describes; BadInput."""
    (method,) = texts(body, "method")
    if "params" not in body:
        raise BadInput("must be there, {} for none", "/params")
    timeout_ms = min(max(_number(body, "timeout", DEFAULT_MS), LEAST_MS), MOST_WAIT_MS)
    persistent = body.get("persistent", False)
    if type(persistent) is not bool:
        raise BadInput("must be true or false", "/persistent")
    expires_ms = _number(body, "expirationTime", now + timeout_ms)
    if not persistent:
        # Nobody waits longer than that for an answer.
        expires_ms = min(expires_ms, now + MOST_WAIT_MS)
    retries = _number(body, "retries", MOST_RETRIES)
    if retries < 0:
        raise BadInput("must be 0 or more", "/retries")
    return Wanted(
        method=method, params=body["params"], timeout_ms=timeout_ms, expires_ms=expires_ms, persistent=persistent,
        retries=min(retries, MOST_RETRIES), info=body.get("additionalInfo"),
    )  # fmt: skip


def call_record(call: KeptCall) -> dict[str, Any]:
    """A kept call as the vendor's API shows it, and as chains find it in the messages that tell of it."""
    device, tenant = entity("DEVICE", call.device), entity("TENANT", tenant_uuid(call.tenant))
    return {
        "id": entity("RPC", call.id),
        "createdTime": call.created_ms,
        "tenantId": tenant,
        "deviceId": device,
        "expirationTime": call.expires_ms,
        "request": {
            "id": call.id,
            "tenantId": tenant,
            "deviceId": device,
            "oneway": call.oneway,
            "expirationTime": call.expires_ms,
            "body": {"method": call.method, "params": msgspec.json.encode(call.params).decode()},
            "persisted": True,
            "retries": call.retries,
            "additionalInfo": call.info,
        },
        "response": call.response,
        "status": call.status,
        "additionalInfo": call.info,
    }


def _number(body: dict[str, Any], name: str, default: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if type(value) not in (int, float) or not -(2**53) <= value <= 2**53:
        raise BadInput("must be a whole number", f"/{name}")
    return int(value)


def _whole(text: str | None, name: str) -> int:
    if text is None or not text.isascii() or not text.removeprefix("-").isdigit() or len(text) > 9:
        raise BadInput(f"{name} is needed, a whole number")
    return int(text)
