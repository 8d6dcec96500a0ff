"""Acme's gateways post `{"serial": "A-17", "readings": [{"at": 1700000000, "kind": "temp", "value": 21.5}]}`."""

from __future__ import annotations

import json
from typing import Any

from api.connectors import BadInput, Connector, Context, HttpError, Message, Request, Response, Route

MAX_BODY_BYTES = 65_536


class Acme(Connector):
    """`POST /acme/readings`, with the device's access token as `Authorization: Bearer …`."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.routes = (Route("POST", "/readings", self.readings),)

    async def readings(self, request: Request, names: dict[str, str]) -> Response:
        """Store what a gateway has measured; 204 once it is durable."""
        scheme, _, token = (request.header("authorization") or "").partition(" ")
        device = await self.context.device_of_token(token) if scheme.lower() == "bearer" else None
        if device is None:
            raise HttpError(401, "no device has this token")
        messages: list[Message] = []
        for ts_ms, kind, value in _parsed(await request.body(MAX_BODY_BYTES)):
            messages.append(self.context.message(device, {kind: value}, ts_ms=ts_ms))
        await self.context.store(messages)
        return Response(204)


def _parsed(body: bytes) -> list[tuple[int, str, Any]]:
    """Time in milliseconds, key and value of each reading; BadInput says what is wrong, and the server answers 400."""
    try:
        readings = json.loads(body)["readings"]
        return [(round(each["at"] * 1000), str(each["kind"]), each["value"]) for each in readings]
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise BadInput(f"these are no readings: {error!r}") from error
