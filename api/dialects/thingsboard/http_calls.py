"""Calls in both directions over HTTP: commands by long poll, their answers, and calls of devices."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from api.dialects.thingsboard.http_data import DELETED
from api.dialects.thingsboard.longpoll import Deleted, Polls
from api.dialects.thingsboard.parts import Parts
from api.dialects.thingsboard.payload import Payloads
from api.dialects.thingsboard.requests import OK, TIMED_OUT, TRANSPORT, as_json, device_of, int32, timeout_s
from api.dialects.thingsboard.rpc import CallIds, call_message, own_answer, rendered, waiting_for
from api.dialects.thingsboard.settings import MAX_RPC_BYTES
from api.transports.http import JSON, Request, Response, Route
from engine.errors import BadInput
from engine.message import new_id


class CallRoutes:
    """The routes of `…/rpc`."""

    def __init__(self, parts: Parts, polls: Polls) -> None:
        self._parts, self._polls = parts, polls
        self._payloads = Payloads(parts.settings)
        self._requests = itertools.count(1)
        self.routes: Sequence[Route] = (
            Route("GET", "/api/v1/{token}/rpc", self._get_command),
            Route("POST", "/api/v1/{token}/rpc", self._post_call),
            Route("POST", "/api/v1/{token}/rpc/{id}", self._post_answer),
        )

    async def _get_command(self, request: Request, params: dict[str, str]) -> Response:
        device = await device_of(self._parts, params)
        wait_s = self._wait_s(request)
        try:
            command = await self._polls.command(request, device, wait_s) if wait_s > 0 else None
        except Deleted:
            return DELETED
        return TIMED_OUT if command is None else as_json(command)

    async def _post_answer(self, request: Request, params: dict[str, str]) -> Response:
        device = await device_of(self._parts, params)
        id = int32(params["id"], "the request id")
        body = await request.body(MAX_RPC_BYTES)
        if not body:
            raise BadInput("the answer has no body")
        # Whether anybody still waits for it is not the device's concern (TB-S21).
        await self._parts.commands.answer(device.tenant, device.id, id, self._payloads.answer(body))
        return OK

    async def _post_call(self, request: Request, params: dict[str, str]) -> Response:
        device = await device_of(self._parts, params)
        wait_s = self._wait_s(request)
        call = self._payloads.call(await request.body(MAX_RPC_BYTES))
        own = own_answer(call, device, self._parts.settings.rate_limit)
        if own is not None:
            return as_json(own)
        if wait_s <= 0:
            return TIMED_OUT
        ids = CallIds(new_id(), next(self._requests))
        with waiting_for(self._parts.replies, device, ids) as waiting:
            message = call_message(self._parts.intake, device, call, TRANSPORT, ids, waiting)
            await self._parts.intake.submit([message])
            answer = await request.wait(asyncio.ensure_future(waiting.next(wait_s)), wait_s + 1.0)
        return TIMED_OUT if answer is None else Response(200, rendered(answer), (JSON,))

    def _wait_s(self, request: Request) -> float:
        return timeout_s(request, self._parts.settings.poll_s, self._parts.settings.max_poll_s)
