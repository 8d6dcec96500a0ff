"""CloudThing's CoAP connector (CT-X4): the paths of the HTTP one, with the device's token in the query as `t`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from api.command_watch import CommandsWatch
from api.dialects.cloudthing import data
from api.dialects.cloudthing.payloads import as_bytes, as_listed
from api.dialects.cloudthing.service import DIALECT, CloudThing, print_of
from api.transports.coap import (
    CBOR,
    CHANGED,
    CONTENT,
    FORBIDDEN,
    INTERNAL,
    JSON,
    OCTETS,
    UNAUTHORIZED,
    CoapError,
    Request,
    Response,
    Route,
)
from engine.stores.commands import Pending
from engine.stores.registry import Device

MAX_BODY_BYTES: Final = 1024 * 1024

_FORMATS: Final = {JSON: data.JSON, CBOR: data.CBOR, OCTETS: data.PROTO}
_CONTENT_TYPES: Final = {JSON: "application/json", CBOR: "application/cbor", OCTETS: "application/octet-stream"}


class CloudThingCoap:
    """The surface of the dialect."""

    max_body = MAX_BODY_BYTES

    def __init__(self, service: CloudThing) -> None:
        self._service = service
        self.routes: Sequence[Route] = (
            Route("POST", "/v1/{deviceId}/data", self._data),
            Route("GET", "/v1/{deviceId}/data", self._check),
            Route("POST", "/v1/{deviceId}/events/{eventId}", self._event),
            Route("POST", "/v1/{deviceId}/responses/{commandId}", self._response),
            Route("GET", "/v1/{deviceId}/commands", self._commands, self._watch),
        )

    async def admit(self, request: Request, names: dict[str, str]) -> None:
        """Let only devices send long bodies."""
        await self._device(request, names)

    async def _data(self, request: Request, names: dict[str, str]) -> Response:
        service = self._service
        device = await self._device(request, names)
        ct = data.CUSTOM if request.format is None else _FORMATS.get(request.format, data.CUSTOM)
        if service.products.known(device.tenant, device.product) is None:
            await service.products.find(device.tenant, device.product)
        await service.intake.store(service.data(device, ct, request.body, "coap"))
        service.accepted(device)
        return Response(CHANGED)

    async def _check(self, request: Request, names: dict[str, str]) -> Response:
        """Tell whether the credentials hold (CT-S15)."""
        await self._device(request, names)
        return Response(CONTENT)

    async def _event(self, request: Request, names: dict[str, str]) -> Response:
        """Store an event, and give what the chain answers; nothing if it does not, or not in time (CT-S5)."""
        service = self._service
        device = await self._device(request, names)
        kind = "" if request.format is None else _CONTENT_TYPES.get(request.format, "")
        with service.replies.wait() as waiting:
            message = service.event(device, names["eventId"], request.body, "coap", kind, waiting.to)
            await service.intake.submit([message])
            service.accepted(device)
            answer = await waiting.next(service.event_timeout_s)
        if answer is None or answer.kind == "end":
            return Response(CHANGED)
        if answer.error:
            raise CoapError(INTERNAL, answer.error)
        body, is_json = as_bytes(answer.data)
        return Response(CHANGED, body, JSON if is_json else OCTETS)

    async def _response(self, request: Request, names: dict[str, str]) -> Response:
        service = self._service
        device = await self._device(request, names)
        name = names["commandId"]
        await service.intake.submit([service.command_response(device, name, request.body, "coap")])
        service.accepted(device)
        await service.answer(device, name, request.body)
        return Response(CHANGED)

    async def _commands(self, request: Request, names: dict[str, str]) -> Response:
        """All queued commands, oldest first, which are thereby delivered (CT-S7)."""
        device = await self._device(request, names)
        commands = self._service.commands
        entries = await commands.undelivered(device.tenant, device.id)
        for entry in entries:
            await commands.delivered(device.tenant, device.id, entry)
        return _listed(entries)

    async def _watch(self, request: Request, names: dict[str, str]) -> CommandsWatch:
        service, device = self._service, await self._device(request, names)
        token = request.query.get("t", "")

        async def admit() -> None:
            await _device(service, device.external_id, token)

        def ended(watch: CommandsWatch) -> None:
            service.logins.remove(watch)
            service.intake.went(device, DIALECT, "coap", "observes no more", holds=False)

        watch = CommandsWatch(
            service.commands, service.live, device, first=Response(CONTENT, b"[]", JSON), admit=admit,
            shown=lambda entry: _listed([entry]), ended=ended,
        )  # fmt: skip
        service.logins.add(watch)
        service.intake.came(device, DIALECT, "coap", holds=False)
        return watch

    async def _device(self, request: Request, names: dict[str, str]) -> Device:
        device = await _device(self._service, names["deviceId"], request.query.get("t", ""))
        self._service.intake.heard(device)
        return device


async def _device(service: CloudThing, device_id: str, token: str) -> Device:
    """The device of that id and token; CoapError 4.01 or 4.03."""
    if not token:
        raise CoapError(UNAUTHORIZED, "log in with the device's token: ?t={deviceToken}")
    device = await service.auth.find(print_of(device_id, token))
    if device is None:
        raise CoapError(UNAUTHORIZED, "wrong device id or token")
    if not device.enabled:
        raise CoapError(FORBIDDEN, "the device is disabled")
    return device


def _listed(entries: Sequence[Pending]) -> Response:
    listed = []
    for entry in entries:
        time = datetime.fromtimestamp(entry.command.created_ms / 1000, UTC).isoformat(timespec="milliseconds")
        payload = as_listed(entry.command.payload)
        listed.append({"id": entry.command.name, "payload": payload, "time": time.replace("+00:00", "Z")})
    return Response(CONTENT, msgspec.json.encode(listed), JSON)
