"""ThingsBoard's HTTP device API."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from api.auth import Unknown, token_print
from api.dialects.thingsboard.longpoll import Deleted, Polls
from api.dialects.thingsboard.parts import Parts
from api.dialects.thingsboard.payload import Payloads, attributes_message, keys_of, telemetry_messages, visible
from api.dialects.thingsboard.rpc import call_message, own_answer, rendered
from api.dialects.thingsboard.settings import MAX_BODY_BYTES, MAX_RPC_BYTES
from api.transports.http import JSON, Header, HttpError, Request, Response, Route
from engine.errors import BadInput
from engine.message import Message, new_id
from engine.stores.registry import ACCESS_TOKEN, Device

T = TypeVar("T")

TRANSPORT: Final = "http"
LARGE_BYTES: Final = 262_144
"""Longer bodies are read in a thread: they take milliseconds."""

_ERROR_CODES: Final = {400: 31, 404: 32, 429: 33}
"""The vendor's own codes (`TB-S3`); 2 is its general one."""
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_INT32: Final = 2**31

_OK: Final = Response(200)
_TIMED_OUT: Final = Response(408)


class ThingsBoardHttp:
    """The surface. `stop` ends what it has under way."""

    name = "thingsboard"
    cors = True

    def __init__(self, parts: Parts) -> None:
        self._auth, self._intake, self._replies = parts.auth, parts.intake, parts.replies
        self._commands, self._attributes = parts.commands, parts.attributes
        self._settings = parts.settings
        self._payloads = Payloads(parts.settings)
        self._polls = Polls(parts.live, parts.auth, parts.commands, parts.attributes)
        self._requests = itertools.count(1)
        self.routes: Sequence[Route] = (
            Route("POST", "/api/v1/{token}/telemetry", self._post_telemetry),
            Route("POST", "/api/v1/{token}/attributes", self._post_attributes),
            Route("GET", "/api/v1/{token}/attributes", self._get_attributes),
            Route("GET", "/api/v1/{token}/attributes/updates", self._get_updates),
            Route("GET", "/api/v1/{token}/rpc", self._get_command),
            Route("POST", "/api/v1/{token}/rpc", self._post_call),
            Route("POST", "/api/v1/{token}/rpc/{id}", self._post_answer),
        )

    async def stop(self) -> None:
        """Give out nothing more."""
        await self._polls.stop()

    def owns(self, request: Request) -> bool:
        """Everything under /api (`G-4`)."""
        return request.segments[:1] == ("api",)

    def error(self, request: Request, status: int, reason: str, headers: Sequence[Header] = ()) -> Response:
        """An error as the vendor tells it: `TB-S2`, `TB-S3`, `TB-S9`, `TB-S40`."""
        if status == 401:
            return Response(401, b"", headers)
        body: Any = {
            "status": status,
            "message": reason,
            "errorCode": _ERROR_CODES.get(status, 2),
            "timestamp": time.time_ns() // 1_000_000,
        }
        if status == 413:
            body = reason
        return Response(status, msgspec.json.encode(body), (JSON, *headers))

    # Telemetry and attributes

    async def _post_telemetry(self, request: Request, params: dict[str, str]) -> Response:
        device = await self._device(params)
        readings = await _read(self._payloads.telemetry, await request.body(MAX_BODY_BYTES))
        return await self._store(request, telemetry_messages(self._intake, device, readings, TRANSPORT))

    async def _post_attributes(self, request: Request, params: dict[str, str]) -> Response:
        device = await self._device(params)
        values = await _read(self._payloads.attributes, await request.body(MAX_BODY_BYTES))
        return await self._store(
            request, [attributes_message(self._intake, device, values, TRANSPORT)] if values else []
        )

    async def _store(self, request: Request, messages: list[Message]) -> Response:
        if messages and request.query.get("sync") == "true":
            failure = await self._intake.submit_and_wait(messages, self._settings.sync_s)
            if failure:
                raise HttpError(500, failure)
        elif messages:
            await self._intake.store(messages)
        return _OK

    async def _get_attributes(self, request: Request, params: dict[str, str]) -> Response:
        device = await self._device(params)
        found = await self._attributes.read(device.tenant, device.id)
        query = request.query
        return _json(visible(found, keys_of(query.get("clientKeys")), keys_of(query.get("sharedKeys"))))

    async def _get_updates(self, request: Request, params: dict[str, str]) -> Response:
        device = await self._device(params)
        timeout_s = self._timeout_s(request)
        try:
            update = await self._polls.attributes(request, device, timeout_s) if timeout_s > 0 else None
        except Deleted:
            return _DELETED
        if update is None:
            return _TIMED_OUT
        return _json({"client": update} if self._settings.attribute_update_format == "seed" else update)

    # Calls

    async def _get_command(self, request: Request, params: dict[str, str]) -> Response:
        device = await self._device(params)
        timeout_s = self._timeout_s(request)
        try:
            command = await self._polls.command(request, device, timeout_s) if timeout_s > 0 else None
        except Deleted:
            return _DELETED
        return _TIMED_OUT if command is None else _json(command)

    async def _post_answer(self, request: Request, params: dict[str, str]) -> Response:
        device = await self._device(params)
        id = _integer(params["id"], "the request id")
        if not -_INT32 <= id < _INT32:
            raise BadInput(f"the request id is out of range: {id}")
        body = await request.body(MAX_RPC_BYTES)
        if not body:
            raise BadInput("the answer has no body")
        # Whether anybody still waits for it is not the device's concern (TB-S21).
        await self._commands.answer(device.tenant, device.id, id, self._payloads.answer(body))
        return _OK

    async def _post_call(self, request: Request, params: dict[str, str]) -> Response:
        device = await self._device(params)
        timeout_s = self._timeout_s(request)
        call = self._payloads.call(await request.body(MAX_RPC_BYTES))
        own = own_answer(call)
        if own is not None:
            return _json(own)
        if timeout_s <= 0:
            return _TIMED_OUT
        with self._replies.wait() as waiting:
            message = call_message(
                self._intake, device, call, TRANSPORT,
                request=next(self._requests), session=new_id(), reply_to=waiting.to,
            )  # fmt: skip
            await self._intake.submit([message])
            answer = await request.wait(asyncio.ensure_future(waiting.next(timeout_s)), timeout_s + 1.0)
        return _TIMED_OUT if answer is None else Response(200, rendered(answer), (JSON,))

    # What all have in common

    async def _device(self, params: dict[str, str]) -> Device:
        """The device of the token in the path; 401 for one that is nobody's, or of a disabled device."""
        print_ = token_print(ACCESS_TOKEN, params["token"])
        device = self._auth.known(print_)
        if isinstance(device, Unknown):
            device = await self._auth.find(print_)
        if device is None or not device.enabled:
            raise HttpError(401, "")
        return device

    def _timeout_s(self, request: Request) -> float:
        """How long to wait (`TB-S16`); 0 or less: not at all."""
        text = request.query.get("timeout")
        milliseconds = _integer(text, "timeout") if text else 0
        if milliseconds == 0:
            return self._settings.poll_s
        return min(milliseconds / 1000, self._settings.max_poll_s)


_DELETED: Final = Response(403, b"Device was deleted!", ((b"content-type", b"text/plain"),))


async def _read(read: Callable[[bytes], T], body: bytes) -> T:
    return read(body) if len(body) <= LARGE_BYTES else await asyncio.to_thread(read, body)


def _integer(text: str, what: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise BadInput(f"{what} is not an integer: {text[:40]!r}")
    return int(text)


def _json(value: Any) -> Response:
    return Response(200, msgspec.json.encode(value), (JSON,))
