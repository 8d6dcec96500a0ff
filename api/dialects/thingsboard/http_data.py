"""Telemetry and attributes over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from api.dialects.thingsboard.longpoll import Deleted, Polls
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
from api.dialects.thingsboard.requests import OK, TIMED_OUT, TRANSPORT, as_json, decoded, device_of, timeout_s
from api.dialects.thingsboard.settings import MAX_BODY_BYTES
from api.transports.http import HttpError, Request, Response, Route
from engine.message import Message

DELETED: Final = Response(403, b"Device was deleted!", ((b"content-type", b"text/plain"),))
"""To a poll whose device was deleted while it waited (`TB-S18`)."""


class DataRoutes:
    """Uploads, attribute reads, and the long poll for changes of attributes."""

    def __init__(self, parts: Parts, polls: Polls) -> None:
        self._parts, self._polls = parts, polls
        self._settings = parts.settings
        self._payloads = Payloads(parts.settings)
        self.routes: Sequence[Route] = (
            Route("POST", "/api/v1/{token}/telemetry", self._post_telemetry),
            Route("POST", "/api/v1/{token}/attributes", self._post_attributes),
            Route("GET", "/api/v1/{token}/attributes", self._get_attributes),
            Route("GET", "/api/v1/{token}/attributes/updates", self._get_updates),
        )

    async def _post_telemetry(self, request: Request, params: dict[str, str]) -> Response:
        device = await device_of(self._parts, params)
        if device.product and is_custom(await self._parts.auth.find_product(device.tenant, device.product)):
            body = await request.body(MAX_BODY_BYTES)
            return await self._store(request, [raw_message(self._parts.intake, device, body, TRANSPORT)])
        readings = await decoded(request, self._payloads.telemetry)
        return await self._store(request, telemetry_messages(self._parts.intake, device, readings, TRANSPORT))

    async def _post_attributes(self, request: Request, params: dict[str, str]) -> Response:
        device = await device_of(self._parts, params)
        values = await decoded(request, self._payloads.attributes)
        messages = [attributes_message(self._parts.intake, device, values, TRANSPORT)] if values else []
        return await self._store(request, messages)

    async def _store(self, request: Request, messages: list[Message]) -> Response:
        if messages and request.query.get("sync") == "true":
            failure = await self._parts.intake.submit_and_wait(messages, self._settings.sync_s)
            if failure:
                raise HttpError(500, failure)
        elif messages:
            await self._parts.intake.store(messages)
        return OK

    async def _get_attributes(self, request: Request, params: dict[str, str]) -> Response:
        device = await device_of(self._parts, params)
        found = await self._parts.attributes.read(device.tenant, device.id)
        query = request.query
        return as_json(visible(found, keys_of(query.get("clientKeys")), keys_of(query.get("sharedKeys"))))

    async def _get_updates(self, request: Request, params: dict[str, str]) -> Response:
        device = await device_of(self._parts, params)
        wait_s = timeout_s(request, self._settings.poll_s, self._settings.max_poll_s)
        try:
            update = await self._polls.attributes(request, device, wait_s) if wait_s > 0 else None
        except Deleted:
            return DELETED
        if update is None:
            return TIMED_OUT
        return as_json({"client": update} if self._settings.attribute_update_format == "seed" else update)
