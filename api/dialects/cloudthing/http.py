"""CloudThing's HTTP connector: data, events, answers and waiting commands of devices that log in with HTTP Basic."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from redis.exceptions import RedisError

from api.dialects.cloudthing.connectors import Connectors
from api.dialects.cloudthing.data import format_of_content_type
from api.dialects.cloudthing.firmware import image
from api.dialects.cloudthing.lorawan import LorawanWebhooks
from api.dialects.cloudthing.payloads import as_bytes, as_listed
from api.dialects.cloudthing.service import CloudThing, print_of
from api.dialects.cloudthing.sigfox import SigfoxCallbacks
from api.dialects.cloudthing.streams import CommandStream, form_of, keep_alive_ms
from api.transports.http import JSON, Feed, Route
from api.transports.http_exchange import Header, HttpError, Request, Response, Stream
from engine.errors import Refused
from engine.message import now_ms
from engine.replies import Answer, Waiting
from engine.stores.registry import Device

log = logging.getLogger("rulemill.cloudthing")

MAX_BODY_BYTES: Final = 1024 * 1024
SYNC_TIMEOUT_S: Final = 30.0
"""How long a call with `?sync=true` waits for its chain."""

_ROOTS: Final = frozenset({"v1", "sigfox", "ttn", "chirpstack"})
_UNAUTHORIZED: Final[tuple[Header, ...]] = ((b"www-authenticate", b'Basic realm="cloudthing"'),)
_OCTETS: Final[Header] = (b"content-type", b"application/octet-stream")


class CloudThingHttp:
    """The surface of the dialect (`G-4`): `/v1/{deviceId}/…`, and the callbacks of radio networks."""

    name = "cloudthing"
    cors = True

    def __init__(self, service: CloudThing) -> None:
        self._service = service
        connectors = Connectors(service)
        self.routes: Sequence[Route] = (
            Route("POST", "/v1/{deviceId}/data", self._data),
            Route("GET", "/v1/{deviceId}/data", self._check),
            Route("POST", "/v1/{deviceId}/events/{eventId}", self._event),
            Route("POST", "/v1/{deviceId}/responses/{commandId}", self._response),
            Route("GET", "/v1/{deviceId}/responses", self._responses),
            Route("GET", "/v1/{deviceId}/commands", self._commands),
            Route("GET", "/v1/{deviceId}/fw/dl/{firmwareId}", self._firmware),
            *SigfoxCallbacks(connectors).routes,
            *LorawanWebhooks(connectors).routes,
        )

    def owns(self, request: Request) -> bool:
        """Whether the first segment is one of the dialect's."""
        return request.segments[:1] != () and request.segments[0] in _ROOTS

    def error(self, request: Request, status: int, reason: str, headers: Sequence[Header] = ()) -> Response:
        """`{"code": …, "message": …}` (CT-S10)."""
        return Response(status, msgspec.json.encode({"code": status, "message": reason}), (JSON, *headers))

    async def _data(self, request: Request, names: dict[str, str]) -> Response:
        service = self._service
        device = await self._device(request, names)
        ct = format_of_content_type(request.header("content-type"))
        body = await request.body(MAX_BODY_BYTES)
        if service.products.known(device.tenant, device.product) is None:
            await service.products.find(device.tenant, device.product)
        messages = service.data(device, ct, body, "http")
        if request.query.get("sync") == "true":
            error = await service.intake.submit_and_wait(messages, SYNC_TIMEOUT_S)
            service.accepted(device)
            if error:
                raise HttpError(500, error)
        else:
            await service.intake.store(messages)
            service.accepted(device)
        return Response(200)

    async def _check(self, request: Request, names: dict[str, str]) -> Response:
        """Tell whether the credentials hold (CT-S15)."""
        await self._device(request, names)
        return Response(200)

    async def _event(self, request: Request, names: dict[str, str]) -> Response:
        service = self._service
        device = await self._device(request, names)
        body = await request.body(MAX_BODY_BYTES)
        kind = request.header("content-type") or ""
        with service.replies.wait() as waiting:
            # With a name the answer is kept as well, for a device that has stopped waiting.
            to = f"{waiting.to}/{names['eventId']}"
            message = service.event(device, names["eventId"], body, "http", kind, to)
            await service.intake.submit([message])
            service.accepted(device)
            answer = await self._wait(request, waiting)
        if answer is not None and answer.kind == "reply" and not answer.error:
            await self._forget(device, message.id)
        return _answered(answer)

    async def _forget(self, device: Device, message_id: str) -> None:
        """An answer came in time: `GET …/responses` shall not show it too."""
        try:
            await self._service.answers.forget(device.tenant, device.id, message_id)
        except RedisError as error:
            log.warning("an answer to an event of device %s stays among its responses: %s", device.external_id, error)

    async def _wait(self, request: Request, waiting: Waiting) -> Answer | None:
        timeout_s = self._service.event_timeout_s
        try:
            return await request.wait(asyncio.ensure_future(waiting.next(timeout_s)), timeout_s)
        except Refused:
            return None  # the server stops; the event is stored all the same, and need not be sent again

    async def _response(self, request: Request, names: dict[str, str]) -> Response:
        service = self._service
        device = await self._device(request, names)
        body = await request.body(MAX_BODY_BYTES)
        await service.intake.submit([service.command_response(device, names["commandId"], body, "http")])
        service.accepted(device)
        await service.answer(device, names["commandId"], body)
        return Response(204)

    async def _responses(self, request: Request, names: dict[str, str]) -> Response:
        """Answers that came after the device was told 202, oldest event first; each is given once (CT-S5)."""
        service = self._service
        device = await self._device(request, names)
        late_ms = now_ms() - int(service.event_timeout_s * 1000)
        return _list(
            [
                _listed(answer.name, answer.data, answer.answered_ms)
                for answer in await service.answers.take(device.tenant, device.id, late_ms)
            ]
        )

    async def _firmware(self, request: Request, names: dict[str, str]) -> Response | Stream:
        """An image of the device's product (CT-36, CT-S16)."""
        device = await self._device(request, names)
        return await image(self._service.firmware, device.product, names["firmwareId"], request)

    async def _commands(self, request: Request, names: dict[str, str]) -> Response | Feed:
        """All queued commands, oldest first, which are thereby delivered (CT-S7); with `stream` also those to come."""
        device = await self._device(request, names)
        if "stream" in request.query:
            return self._stream(request, device)
        commands = self._service.commands
        listed: list[dict[str, Any]] = []
        for entry in await commands.undelivered(device.tenant, device.id):
            queued = entry.command
            listed.append(_listed(queued.name, queued.payload, queued.created_ms))
            await commands.delivered(device.tenant, device.id, entry)
        return _list(listed)

    def _stream(self, request: Request, device: Device) -> Feed:
        every_ms = keep_alive_ms(request.query["stream"])
        form, content_type = form_of(request.listener, request.query.get("format"))
        print_ = print_of(*_basic(request.header("authorization")))
        return CommandStream(self._service, device, print_, every_ms, form).answer_with(content_type)

    async def _device(self, request: Request, names: dict[str, str]) -> Device:
        """The device that the request is of; 401 or 403 else (CT-31, CT-S10)."""
        user, password = _basic(request.header("authorization"))
        device = await self._service.auth.find(print_of(user, password))
        if device is None:
            raise HttpError(401, "wrong device id or token", _UNAUTHORIZED)
        if await self._service.tenants.named_by_host(request.header("host"), besides=device.tenant):
            raise HttpError(401, "the host is another tenant's", _UNAUTHORIZED)
        if names["deviceId"] != device.external_id:
            raise HttpError(403, "the path is another device's")
        if not device.enabled:
            raise HttpError(403, "the device is disabled")
        self._service.intake.heard(device)
        return device


def _basic(header: str | None) -> tuple[str, str]:
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        raise HttpError(401, "log in with HTTP Basic: device id and token", _UNAUTHORIZED)
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise HttpError(401, "the credentials cannot be read", _UNAUTHORIZED) from None
    if not colon:
        raise HttpError(401, "the credentials cannot be read", _UNAUTHORIZED)
    return user, password


def _listed(id: str, payload: Any, at_ms: int) -> dict[str, Any]:
    """A command or an answer in a list (CT-S7)."""
    time = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"id": id, "payload": as_listed(payload), "time": time}


def _list(listed: list[dict[str, Any]]) -> Response:
    return Response(200, msgspec.json.encode(listed), (JSON,)) if listed else Response(204)


def _answered(answer: Answer | None) -> Response:
    """The answer to an event (CT-S5): the chain's, none at all, or none as yet."""
    if answer is None:
        return Response(202)
    if answer.kind == "end":
        return Response(204)
    if answer.error:
        raise HttpError(500, answer.error)
    body, is_json = as_bytes(answer.data)
    return Response(200, body, (JSON if is_json else _OCTETS,))
