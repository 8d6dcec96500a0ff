"""Things over CoAP (`TTI-X9`): the paths and bodies of HTTP, and observing in the place of its streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any, Final

import msgspec

from api.auth import token_print
from api.background import Background
from api.dialects.thethingsio.bodies import decoded, object_of
from api.dialects.thethingsio.dates import iso
from api.dialects.thethingsio.parts import Parts
from api.dialects.thethingsio.settings import MAX_BODY_BYTES
from api.dialects.thethingsio.subscriptions import Subscriptions
from api.dialects.thethingsio.thing_calls import ThingCalls
from api.dialects.thethingsio.watching import ThingToken
from api.live_values import Told
from api.transports.coap import (
    CHANGED,
    CONTENT,
    CREATED,
    JSON,
    UNAUTHORIZED,
    UNAVAILABLE,
    CoapError,
    Request,
    Response,
    Route,
)
from api.transports.http_exchange import HttpError
from engine.stores.registry import THING_TOKEN, Device

TRANSPORT: Final = "coap"
MOST_WAITING: Final = 256
"""Values that may wait for a thing to confirm those before; with one more it observes no longer."""

Handler = Callable[[Request, dict[str, str]], Awaitable[Response]]


class ThingCoap:
    """The surface."""

    max_body = MAX_BODY_BYTES

    def __init__(self, parts: Parts, subscriptions: Subscriptions) -> None:
        self._parts, self._subscriptions = parts, subscriptions
        self._calls = ThingCalls(parts)
        self._background = Background("observers of things")
        one = "/v2/things/{token}"
        self.routes: Sequence[Route] = (
            Route("POST", "/v2/things", _coded(self._activate)),
            Route("POST", one, _coded(self._write)),
            Route("GET", one, _coded(self._everything), self._watch),
            Route("GET", one + "/resources", _coded(self._names)),
            Route("GET", one + "/all_resources", _coded(self._everything)),
            Route("GET", one + "/resources/description", _coded(self._description)),
            Route("PUT", one + "/resources/description", _coded(self._describe)),
            Route("GET", one + "/resources/{key}", _coded(self._read)),
        )

    async def stop(self) -> None:
        """Wait until what was observed is let go."""
        await self._background.stop()

    async def admit(self, request: Request, names: dict[str, str]) -> None:
        """Let only things send long bodies."""
        if "token" not in names:
            raise CoapError(UNAUTHORIZED, "an activation fits into one message")
        await self._device(names)

    async def _activate(self, request: Request, names: dict[str, str]) -> Response:
        return _json(await self._calls.activate(object_of(decoded(request.body)), TRANSPORT), CREATED)

    async def _write(self, request: Request, names: dict[str, str]) -> Response:
        device = await self._calls.thing(names)
        return _json(await self._calls.write(device, decoded(request.body), request, TRANSPORT), CREATED)

    async def _names(self, request: Request, names: dict[str, str]) -> Response:
        return _json(await self._calls.names(await self._calls.thing(names)))

    async def _everything(self, request: Request, names: dict[str, str]) -> Response:
        return _json(await self._calls.everything(await self._calls.thing(names), request))

    async def _read(self, request: Request, names: dict[str, str]) -> Response:
        return _json(await self._calls.read(await self._calls.thing(names), names["key"], request))

    async def _description(self, request: Request, names: dict[str, str]) -> Response:
        return _json(await self._calls.description(await self._calls.thing(names)))

    async def _describe(self, request: Request, names: dict[str, str]) -> Response:
        device = await self._calls.thing(names)
        return _json(await self._calls.describe(device, object_of(decoded(request.body)), TRANSPORT), CHANGED)

    async def _watch(self, request: Request, names: dict[str, str]) -> ValuesWatch:
        device = await self._device(names)
        watch = ValuesWatch(self._parts, device, token_print(THING_TOKEN, names["token"]), self._let_go)
        try:
            await watch.begin(self._subscriptions)
        except BaseException:
            watch.close()
            raise
        return watch

    def _let_go(self, watch: ThingToken) -> None:
        self._background.run(watch.end())

    async def _device(self, names: dict[str, str]) -> Device:
        try:
            return await self._calls.thing(names)
        except HttpError as error:
            raise _coap_error(error) from error


class ValuesWatch:
    """A thing that is observed: what came since the last confirmed notification, in one list (`TTI-X5`)."""

    first = Response(CONTENT, b'{"status":"success","message":"subscribed"}', JSON)

    def __init__(self, parts: Parts, device: Device, print_: str, let_go: Callable[[ThingToken], None]) -> None:
        self._waiting: list[dict[str, Any]] = []
        self._error: CoapError | None = None
        self._wake = asyncio.Event()
        self._let_go = let_go
        self._watch = ThingToken(parts, device, print_, self._heard, self._ended)

    async def begin(self, subscriptions: Subscriptions) -> None:
        """Follow the thing; raises redis ConnectionError."""
        await self._watch.begin(subscriptions)

    async def next(self) -> Response:
        """What is new; 4.01 once the token holds no longer, 5.03 for an observer that is too slow."""
        await self._wake.wait()
        self._wake.clear()
        if self._error is not None:
            raise self._error
        told, self._waiting = self._waiting, []
        return _json(told)

    def close(self) -> None:
        """Follow it no more."""
        self._let_go(self._watch)

    def _heard(self, told: Told) -> None:
        if len(self._waiting) + len(told.values) > MOST_WAITING:
            self._waiting.clear()
            self._fail(CoapError(UNAVAILABLE, "too slow: more values came than can wait; observe anew"))
        if self._error is None:
            date = iso(told.ts_ms)
            self._waiting += [{"key": key, "value": value, "datetime": date} for key, value in told.values.items()]
            self._wake.set()

    def _ended(self, error: dict[str, Any]) -> None:
        self._fail(CoapError(UNAUTHORIZED, error["message"]))

    def _fail(self, error: CoapError) -> None:
        self._error = self._error or error
        self._wake.set()


def _coded(handler: Handler) -> Handler:
    @wraps(handler)
    async def run(request: Request, names: dict[str, str]) -> Response:
        try:
            return await handler(request, names)
        except HttpError as error:
            raise _coap_error(error) from error

    return run


def _coap_error(error: HttpError) -> CoapError:
    """An error with the code that has the same number: class and detail as in HTTP."""
    return CoapError(error.status // 100 << 5 | error.status % 100, error.reason)


def _json(value: Any, code: int = CONTENT) -> Response:
    return Response(code, msgspec.json.encode(value), JSON)
