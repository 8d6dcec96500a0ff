"""Callbacks of the Sigfox backend (CT-50 to CT-52, CT-S11, CT-X5, CT-X6)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from api.callback_variables import variables
from api.dialects.cloudthing.connectors import Connectors, need_transform
from api.networks import Sigfox
from api.sigfox import ANSWER_WITHIN_S, MAX_BODY_BYTES, answered, downlink, payload_of, time_ms, wants_answer
from api.transports.http import Route
from api.transports.http_exchange import Request, Response
from engine.errors import BadInput, Refused
from engine.message import Message
from engine.replies import Answer
from engine.stores.links import SIGFOX
from engine.stores.registry import Device
from nodes.codecs.values import decode_json

log = logging.getLogger("rulemill.cloudthing")

_NUMBER: Final = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?")
_SERVICES: Final = (
    ("acknowledge", frozenset({"infoCode", "infoMessage", "downlinkAck"})),
    ("status", frozenset({"temp", "batt"})),
    ("geoloc", frozenset({"lat", "lng", "computedLocation"})),
)
"""Service callbacks by variables that only they have, and no data."""
_NUMBERS: Final = frozenset({"temp", "batt", "lat", "lng", "radius", "seqNumber", "rssi", "snr", "avgSnr", "infoCode"})


class _Callback(NamedTuple):
    """What a callback says. `service` names a service callback; empty for data."""

    id: str
    ts_ms: int | None
    data: bytes
    service: str
    key: str
    given: Mapping[str, str]


class SigfoxCallbacks:
    """`/sigfox/{productId}`, by POST and GET."""

    def __init__(self, connectors: Connectors) -> None:
        self._connectors = connectors
        self.answer_within_s = ANSWER_WITHIN_S
        path = "/sigfox/{productId}"
        self.routes = (Route("POST", path, self._callback), Route("GET", path, self._callback))

    async def _callback(self, request: Request, names: dict[str, str]) -> Response:
        connectors = self._connectors
        product, facet = await connectors.product(request, names["productId"], Sigfox, "sigfox")
        callback = _read(await variables(request, MAX_BODY_BYTES))
        device = await connectors.device(
            product, SIGFOX, callback.id, create=facet.auto_generate, pointer="/id"
        )  # fmt: skip
        if callback.given.get("duplicate", "").lower() == "true":
            return Response(204)
        key = callback.key and f"{device.id}/{callback.key}"
        known = connectors.recent.get(key)
        if known is not None:
            return known
        service = connectors.service
        if callback.service:
            await service.intake.submit([self._message(device, callback, "DEVICE_EVENT", _event(callback))])
            answer = Response(204)
        else:
            need_transform(product)
            message = self._message(device, callback, "RAW_UPLINK", callback.data)
            if wants_answer(callback.given):
                answer = answered(callback.id, await self._downlink(request, device, message))
            else:
                await service.intake.submit([message])
                answer = Response(204)
        service.accepted(device)
        return connectors.recent.put(key, answer)

    def _message(self, device: Device, callback: _Callback, type: str, data: Any) -> Message:
        about = dict(callback.given)
        if callback.service:
            about["eventId"] = callback.service
        ts_ms = self._connectors.service.intake.stamp(device.id) if callback.ts_ms is None else callback.ts_ms
        return self._connectors.message(
            device, type, data, transport="sigfox", ts_ms=ts_ms, about=about, key=callback.key
        )  # fmt: skip

    async def _downlink(self, request: Request, device: Device, message: Message) -> bytes | None:
        """Store the message and wait for its chain: what that replies goes down, else the oldest command that can.

        So a command that this very message caused is in time.
        """
        service = self._connectors.service
        with service.replies.wait() as waiting:
            await service.intake.submit([replace(message, reply_to=waiting.to, awaited=True)])
            within_s = self.answer_within_s
            try:
                answer = await request.wait(asyncio.ensure_future(waiting.next(within_s)), within_s)
            except Refused:
                return None  # the server stops; the message is stored, and the commands stay for the next one
        found = _replied(device, answer)
        return found if found is not None else await self._command(device)

    async def _command(self, device: Device) -> bytes | None:
        """The oldest queued command that is eight bytes, which is thereby delivered (CT-X5)."""
        commands = self._connectors.service.commands
        for entry in await commands.undelivered(device.tenant, device.id):
            try:
                found = downlink(entry.command.payload)
            except BadInput as error:
                log.warning("command %r of device %s stays: %s", entry.command.name, device.id, error)
                continue
            await commands.delivered(device.tenant, device.id, entry)
            return found
        return None


def _read(given: dict[str, str]) -> _Callback:
    id = given.get("id") or given.get("device") or ""
    if not id:
        raise BadInput("id is missing", "/id")
    ts_ms = time_ms(given)
    data = given.get("data")
    service = ""
    if data is None:
        service = next((name for name, some in _SERVICES if not some.isdisjoint(given)), "")
        if not service:
            raise BadInput("data is missing", "/data")
    payload = payload_of(data or "")
    number = given.get("seqNumber", "")
    # Without a time or a number nothing tells the same message sent twice from two equal messages.
    key = f"{service}/{given.get('time', '')}/{number}/{(data or '').lower()}" if ts_ms is not None or number else ""
    return _Callback(id, ts_ms, payload, service, key, given)


def _event(callback: _Callback) -> dict[str, Any]:
    """The variables of a service callback with their types."""
    found: dict[str, Any] = {}
    for name, text in callback.given.items():
        found[name] = text
        if name in _NUMBERS and _NUMBER.fullmatch(text):
            found[name] = float(text) if "." in text else int(text)
        elif text[:1] in ("{", "["):
            with contextlib.suppress(BadInput):  # else a text that looks like JSON
                found[name] = decode_json(text.encode())
    return found


def _replied(device: Device, answer: Answer | None) -> bytes | None:
    """The chain's own answer, bare or as `downlinkData`."""
    if answer is None or answer.kind != "reply" or answer.error:
        return None
    data = answer.data
    if isinstance(data, dict) and "downlinkData" in data:
        data = data["downlinkData"]
    try:
        return downlink(data)
    except BadInput as error:
        log.warning("the chain's answer to device %s is no downlink: %s", device.id, error)
        return None
