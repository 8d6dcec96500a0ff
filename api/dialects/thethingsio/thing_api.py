"""The API of things over HTTP (`TTI-X1` to `TTI-X7`). Plain HTTP will do."""

from __future__ import annotations

from collections.abc import Sequence

from api.auth import token_print
from api.dialects.thethingsio.bodies import answer, read, read_object
from api.dialects.thethingsio.parts import Parts
from api.dialects.thethingsio.streams import Streams
from api.dialects.thethingsio.thing_calls import ThingCalls
from api.transports.http import Feed, Request, Response, Route, Stream
from api.transports.http_exchange import HttpError
from engine.errors import NotFound
from engine.stores.registry import THING_TOKEN

TRANSPORT = "http"


class ThingApi:
    """`/v2/things`."""

    def __init__(self, parts: Parts, calls: ThingCalls, streams: Streams) -> None:
        self._parts, self._calls, self._streams = parts, calls, streams
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
        return answer(await self._calls.activate(await read_object(request)), 201)

    async def _write(self, request: Request, names: dict[str, str]) -> Response:
        device = await self._calls.thing(names)
        return answer(await self._calls.write(device, await read(request), request, TRANSPORT), 201)

    async def _subscribe(self, request: Request, names: dict[str, str]) -> Feed:
        device = await self._calls.thing(names)
        return await self._streams.of_thing(request, device, token_print(THING_TOKEN, names["token"]))

    async def _names(self, request: Request, names: dict[str, str]) -> Response:
        return answer(await self._calls.names(await self._calls.thing(names)))

    async def _everything(self, request: Request, names: dict[str, str]) -> Response:
        return answer(await self._calls.everything(await self._calls.thing(names), request))

    async def _read(self, request: Request, names: dict[str, str]) -> Response:
        return answer(await self._calls.read(await self._calls.thing(names), names["key"], request))

    async def _description(self, request: Request, names: dict[str, str]) -> Response:
        return answer(await self._calls.description(await self._calls.thing(names)))

    async def _describe(self, request: Request, names: dict[str, str]) -> Response:
        device = await self._calls.thing(names)
        return answer(await self._calls.describe(device, await read_object(request), TRANSPORT))

    async def _firmwares(self, request: Request, names: dict[str, str]) -> Response:
        device = await self._calls.thing(names)
        images = await self._parts.firmware.list(device.product) if device.product else []
        latest = sorted(images, key=lambda image: image.created_ms)[-1:]
        shown = [{"id": each.id, "version": each.id, "size": each.size, "md5": each.md5} for each in latest]
        return answer({"status": "success", "firmwares": shown})

    async def _download(self, request: Request, names: dict[str, str]) -> Response | Stream:
        device = await self._calls.thing(names)
        try:
            image = await self._parts.firmware.get(device.product, names["firmware"])
        except NotFound as error:
            raise HttpError(404, "Firmware not found") from error
        headers = ((b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % image.size))
        return Stream(200, headers, self._parts.firmware.read(device.product, image, 0, image.size))
