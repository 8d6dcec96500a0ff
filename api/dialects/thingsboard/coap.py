"""ThingsBoard's CoAP device API (`TB-X3`): the paths of the HTTP one, and observing in the place of long polls."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec

from api.auth import token_print
from api.command_watch import CommandsWatch
from api.dialects.thingsboard.claims import open_window, read_claim
from api.dialects.thingsboard.coap_updates import UpdatesWatch
from api.dialects.thingsboard.ota import NotAssigned, OtherPackage, read, read_query, wanted
from api.dialects.thingsboard.parts import Parts
from api.dialects.thingsboard.payload import (
    Payloads,
    attributes_message,
    is_custom,
    keys_of,
    raw_message,
    telemetry_messages,
    visible,
)
from api.dialects.thingsboard.provision_request import read_request
from api.dialects.thingsboard.provisioning import provision
from api.dialects.thingsboard.requests import int32
from api.dialects.thingsboard.rpc import CallIds, call_message, own_answer, rendered, waiting_for
from api.dialects.thingsboard.settings import DIALECT, MAX_RPC_BYTES
from api.transports.coap import (
    BAD_REQUEST,
    CONTENT,
    CREATED,
    FORBIDDEN,
    GATEWAY_TIMEOUT,
    JSON,
    NOT_FOUND,
    OCTETS,
    TOO_LARGE,
    TOO_MANY_REQUESTS,
    UNAUTHORIZED,
    VALID,
    CoapError,
    Request,
    Response,
    Route,
)
from engine.errors import BadInput
from engine.message import Message, new_id
from engine.stores.commands import Pending
from engine.stores.firmware import Kind
from engine.stores.registry import ACCESS_TOKEN, Device

COAP: Final = "coap"
MAX_BODY_BYTES: Final = 1024 * 1024
MOST_WHOLE_BYTES: Final = 16 * 1024 * 1024
"""Of a package that is asked for in one piece: it stands in memory for as long as its blocks are fetched."""

_DONE: Final = Response(CREATED)

Watch = CommandsWatch | UpdatesWatch


class ThingsBoardCoap:
    """The surface. `stop` ends what it watches."""

    max_body = MAX_BODY_BYTES

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._payloads = Payloads(parts.settings)
        self._requests = itertools.count(1)
        self._watches: dict[str, set[Watch]] = {}
        """Of each device, those that observe here."""
        self._end = parts.auth.on_change(self._changed)
        one = "/api/v1/{token}"
        self.routes: Sequence[Route] = (
            Route("POST", "/api/v1/provision", self._provision),
            Route("GET", "/api/v1/provision", self._no_feature),
            Route("POST", one + "/telemetry", self._telemetry),
            Route("POST", one + "/attributes", self._post_attributes),
            Route("GET", one + "/attributes", self._get_attributes, self._watch_attributes),
            Route("GET", one + "/rpc", self._no_commands, self._watch_commands),
            Route("POST", one + "/rpc", self._call),
            Route("POST", one + "/rpc/{id}", self._answer),
            Route("POST", one + "/claim", self._claim),
            Route("GET", "/fw/{token}", partial(self._package, "FIRMWARE")),
            Route("GET", "/sw/{token}", partial(self._package, "SOFTWARE")),
            # Whatever else stands there is no feature, and no other error.
            *(Route(method, path, self._no_feature) for method in ("GET", "POST") for path in _OTHERS),
        )

    async def stop(self) -> None:
        """Hear of changes no more."""
        self._end()

    async def admit(self, request: Request, names: dict[str, str]) -> None:
        """Let only devices send long bodies, and whoever wants to become one."""
        if "token" in names:
            await self._device(names)

    # What a device says

    async def _telemetry(self, request: Request, names: dict[str, str]) -> Response:
        device = await self._device(names)
        if device.product and is_custom(await self._parts.auth.find_product(device.tenant, device.product)):
            return await self._stored([raw_message(self._parts.intake, device, request.body, COAP)])
        readings = self._payloads.telemetry(request.body)
        return await self._stored(telemetry_messages(self._parts.intake, device, readings, COAP))

    async def _post_attributes(self, request: Request, names: dict[str, str]) -> Response:
        device = await self._device(names)
        values = self._payloads.attributes(request.body)
        return await self._stored([attributes_message(self._parts.intake, device, values, COAP)] if values else [])

    async def _stored(self, messages: list[Message]) -> Response:
        if messages:
            await self._parts.intake.store(messages)
        return _DONE

    async def _claim(self, request: Request, names: dict[str, str]) -> Response:
        device = await self._device(names)
        wanted = read_claim(request.body, self._parts.settings.claim_ms)
        return await self._stored(await open_window(self._parts, device, wanted, COAP))

    async def _provision(self, request: Request, names: dict[str, str]) -> Response:
        answer = await provision(self._parts, read_request(request.body), COAP)
        return _json(answer, CREATED if answer["status"] == "SUCCESS" else BAD_REQUEST)

    # What it asks for

    async def _get_attributes(self, request: Request, names: dict[str, str]) -> Response:
        device = await self._device(names)
        found = await self._parts.attributes.read(device.tenant, device.id)
        query = request.query
        return _json(visible(found, keys_of(query.get("clientKeys")), keys_of(query.get("sharedKeys"))))

    async def _package(self, kind: Kind, request: Request, names: dict[str, str]) -> Response:
        device = await self._device(names)
        try:
            part = await wanted(self._parts, device, kind, read_query(request.query))
        except NotAssigned:
            raise CoapError(NOT_FOUND, "no such package is assigned to the device") from None
        except OtherPackage:
            raise BadInput("another title or version is assigned to the device") from None
        if part.stop - part.start > MOST_WHOLE_BYTES:
            raise BadInput(f"more than {MOST_WHOLE_BYTES} bytes at once: ask for chunks by size and chunk")
        return Response(CONTENT, await read(self._parts, device, part), OCTETS)

    # Calls

    async def _call(self, request: Request, names: dict[str, str]) -> Response:
        device, parts = await self._device(names), self._parts
        call = self._payloads.call(_short(request.body))
        own = own_answer(call, device, parts.settings.rate_limit)
        if own is not None:
            return _json(own)
        ids = CallIds(new_id(), next(self._requests))
        with waiting_for(parts.replies, device, ids) as waiting:
            message = call_message(parts.intake, device, call, COAP, ids, waiting)
            await parts.intake.submit([message])
            answer = await waiting.next(parts.settings.rpc_s)
        if answer is None:
            raise CoapError(GATEWAY_TIMEOUT, "the chain gave no answer in time")
        return Response(CONTENT, rendered(answer), JSON)

    async def _answer(self, request: Request, names: dict[str, str]) -> Response:
        device = await self._device(names)
        id = int32(names["id"], "the request id")
        answer = self._payloads.answer(_short(request.body))
        # Whether anybody still waits for it is not the device's concern (TB-S21).
        await self._parts.commands.answer(device.tenant, device.id, id, answer)
        return _DONE

    async def _no_commands(self, request: Request, names: dict[str, str]) -> Response:
        """Commands come to who observes; here is only who does so no more."""
        return Response(VALID) if request.unwatch else await self._no_feature(request, names)

    async def _no_feature(self, request: Request, names: dict[str, str]) -> Response:
        if "token" in names:
            await self._device(names)
        raise BadInput(f"{request.method} is not for {'/'.join(request.segments[3:])[:100] or 'this path'!r}")

    # What it observes

    async def _watch_commands(self, request: Request, names: dict[str, str]) -> CommandsWatch:
        device, token = await self._device(names), names["token"]
        watch = CommandsWatch(
            self._parts.commands, self._parts.live, device, first=Response(VALID), shown=_command,
            admit=partial(self._admitted, device, token), ended=partial(self._ended, device),
        )  # fmt: skip
        self._begun(device, watch)
        return watch

    async def _watch_attributes(self, request: Request, names: dict[str, str]) -> UpdatesWatch:
        device, token = await self._device(names), names["token"]
        watch = UpdatesWatch(
            self._parts.attributes, self._parts.live, device,
            admit=partial(self._admitted, device, token), ended=partial(self._ended, device),
        )  # fmt: skip
        self._begun(device, watch)
        try:
            await watch.open()
        except BaseException:
            watch.close()
            raise
        return watch

    def _begun(self, device: Device, watch: Watch) -> None:
        self._watches.setdefault(device.id, set()).add(watch)
        self._parts.intake.came(device, DIALECT, COAP, holds=False)

    def _ended(self, device: Device, watch: Watch) -> None:
        watches = self._watches.get(device.id, set())
        watches.discard(watch)
        if not watches:
            self._watches.pop(device.id, None)
        self._parts.intake.went(device, DIALECT, COAP, "observes no more", holds=False)

    def _changed(self, device_id: str) -> None:
        """A device was changed or deleted: those that observe look whether they still may. Empty: any may have been."""
        for id in [device_id] if device_id else list(self._watches):
            for watch in self._watches.get(id, ()):
                watch.wake()

    # Who it is

    async def _device(self, names: dict[str, str]) -> Device:
        """The device of the token in the path, which is thereby active; CoapError 4.01, and 4.29 (`TB-S40`)."""
        device = await self._parts.auth.find(token_print(ACCESS_TOKEN, names["token"]))
        if device is None or not device.enabled:
            raise CoapError(UNAUTHORIZED, "the access token is nobody's")
        self._parts.intake.heard(device)
        if wait_s := self._parts.limits.take(device.id):
            raise CoapError(TOO_MANY_REQUESTS, f"too many requests: the next in {math.ceil(wait_s)} s")
        return device

    async def _admitted(self, device: Device, token: str) -> None:
        """Raise unless the token is still the device's, and the device may still use it."""
        found = await self._parts.auth.find(token_print(ACCESS_TOKEN, token))
        if found is not None and found.id == device.id and found.enabled:
            return
        known = await self._parts.auth.by_id(device.id)
        if known is None or known.leaving:
            raise CoapError(FORBIDDEN, "Device was deleted!")
        raise CoapError(UNAUTHORIZED, "the access token holds no longer")


_OTHERS: Final = (
    "/api/v1", "/api/v1/{token}", "/api/v1/{token}/{feature}", "/api/v1/{token}/{feature}/{rest}",
)  # fmt: skip


def _command(entry: Pending) -> Response:
    return _json({"id": entry.id, "method": entry.command.name, "params": entry.command.payload})


def _short(body: bytes) -> bytes:
    if len(body) > MAX_RPC_BYTES:
        raise CoapError(TOO_LARGE, f"a call or its answer has at most {MAX_RPC_BYTES} bytes")
    return body


def _json(value: Any, code: int = CONTENT) -> Response:
    return Response(code, msgspec.json.encode(value), JSON)
