"""The API of things: activation, values in both directions, firmware (`TTI-X1` to `TTI-X7`). Plain HTTP will do."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from api.auth import Unknown, token_print
from api.dialects.thethingsio.bodies import answer, read, read_object, success, text_of
from api.dialects.thethingsio.dates import iso
from api.dialects.thethingsio.magic import READABLE_S
from api.dialects.thethingsio.parts import Parts
from api.dialects.thethingsio.reading import flag, shown, wanted
from api.dialects.thethingsio.streams import Streams
from api.dialects.thethingsio.thing_values import thing_messages
from api.dialects.thethingsio.writing import How, Value, messages_of, submit
from api.transports.http import Feed, Request, Response, Route, Stream
from api.transports.http_exchange import HttpError
from engine.errors import BadInput, NotFound
from engine.stores.apps.apps import DESCRIPTION, resource_fault
from engine.stores.registry import THING_TOKEN, Credential, Device
from engine.stores.values import problem

TRANSPORT = "http"


class ThingApi:
    """`/v2/things`."""

    def __init__(self, parts: Parts, streams: Streams) -> None:
        self._parts, self._streams = parts, streams
        one = "/v2/things/{token}"
        self.routes: Sequence[Route] = (
            Route("POST", "/v2/things", self._activate),
            Route("POST", one, self._write),
            Route("GET", one, self._subscribe),
            Route("GET", one + "/resources", self._names),
            Route("GET", one + "/all_resources", self._everything),
            Route("GET", one + "/resources/description", self._description),
            Route("PUT", one + "/resources/description", self._describe),
            Route("GET", one + "/resources/{key}", self._read),
            Route("GET", one + "/firmwares/latest", self._firmwares),
            Route("GET", one + "/firmwares/download/{firmware}", self._download),
        )

    async def _activate(self, request: Request, names: dict[str, str]) -> Response:
        code = text_of(await read_object(request), "activationCode")
        device, token = await activate(self._parts, code)
        return answer(
            {"status": "created", "message": "thing activated", "thingToken": token, "thingId": device.id}, 201
        )

    async def _thing(self, names: dict[str, str]) -> Device:
        device = await find_thing(self._parts, names["token"])
        if device is None:
            raise HttpError(401, "Invalid thing token")
        return device

    async def _write(self, request: Request, names: dict[str, str]) -> Response:
        device = await self._thing(names)
        how = How(flag(request, "store"), flag(request, "broadcast"))
        messages = thing_messages(self._parts.intake, device, await read(request), how, TRANSPORT)
        await submit(self._parts.intake, messages, request.query.get("sync") == "true")
        return answer({"status": "created", "message": "values created"}, 201)

    async def _subscribe(self, request: Request, names: dict[str, str]) -> Feed:
        device = await self._thing(names)
        return await self._streams.of_thing(request, device, token_print(THING_TOKEN, names["token"]))

    async def _names(self, request: Request, names: dict[str, str]) -> Response:
        device = await self._thing(names)
        keys = await self._parts.store.keys(device.tenant, device.id)
        return answer({"status": "success", "resources": [key for key in keys if not resource_fault(key)]})

    async def _everything(self, request: Request, names: dict[str, str]) -> Response:
        device = await self._thing(names)
        found: dict[str, list[dict[str, Any]]] = {}
        for point in await wanted(request).read(self._parts.store, device.tenant, [device.id], None):
            if not resource_fault(point.key):
                found.setdefault(point.key, []).append({"value": point.value, "datetime": iso(point.ts_ms)})
        return answer([{"key": key, "values": values} for key, values in found.items()])

    async def _read(self, request: Request, names: dict[str, str]) -> Response:
        device, key = await self._thing(names), names["key"]
        if fault := resource_fault(key):
            raise BadInput(fault)
        points = await wanted(request).read(self._parts.store, device.tenant, [device.id], [key])
        return answer([shown(point) for point in points])

    async def _description(self, request: Request, names: dict[str, str]) -> Response:
        device = await self._thing(names)
        points = await self._parts.store.latest(device.tenant, [device.id], [DESCRIPTION])
        return answer([{"value": point.value} for point in points])

    async def _describe(self, request: Request, names: dict[str, str]) -> Response:
        device, body = await self._thing(names), await read_object(request)
        if reason := problem(body):
            raise BadInput(reason)
        values = [Value(DESCRIPTION, body, None, None)]
        messages = messages_of(self._parts.intake, device, values, How(), TRANSPORT, {})
        # It is stored; whether its reader sees it already is worth a moment's wait.
        await self._parts.intake.submit_and_wait(messages, READABLE_S)
        return success("updated")

    async def _firmwares(self, request: Request, names: dict[str, str]) -> Response:
        device = await self._thing(names)
        images = await self._parts.firmware.list(device.product) if device.product else []
        latest = sorted(images, key=lambda image: image.created_ms)[-1:]
        shown = [{"id": each.id, "version": each.id, "size": each.size, "md5": each.md5} for each in latest]
        return answer({"status": "success", "firmwares": shown})

    async def _download(self, request: Request, names: dict[str, str]) -> Response | Stream:
        device = await self._thing(names)
        try:
            image = await self._parts.firmware.get(device.product, names["firmware"])
        except NotFound as error:
            raise HttpError(404, "Firmware not found") from error
        headers = ((b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % image.size))
        return Stream(200, headers, self._parts.firmware.read(device.product, image, 0, image.size))


async def find_thing(parts: Parts, token: str) -> Device | None:
    """The thing of a token, unless it is disabled."""
    print_ = token_print(THING_TOKEN, token)
    device = parts.auth.known(print_)
    if isinstance(device, Unknown):
        device = await parts.auth.find(print_)
    return device if device is not None and device.enabled else None


async def activate(parts: Parts, code: str) -> tuple[Device, str]:
    """Make the thing of an activation code, and the token that is told once; BadInput for a bad or used code."""
    good_for = await parts.activations.find(code)
    if good_for is None:
        raise BadInput("Invalid activation code")
    token = secrets.token_urlsafe(32)
    made = Device(id="", tenant=good_for.tenant, name=f"thing-{secrets.token_hex(8)}", product=good_for.product)
    # The thing first: a code that is used up shall never have made nothing.
    device = await parts.registry.put_device(made, [Credential(kind=THING_TOKEN, value=token)])
    if not await parts.activations.use(code, good_for.product):
        await parts.registry.delete_device(device.tenant, device.id)
        raise BadInput("Invalid activation code")
    message = parts.intake.message(
        device, "ENTITY_CREATED", {"id": device.id, "name": device.name}, dialect="tti", transport=TRANSPORT,
        ts_ms=parts.intake.stamp(device.id),
    )  # fmt: skip
    await parts.intake.submit([message])
    return device, token
