"""What operators read and set of devices (`TB-X5`): time series, and attributes of every scope."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from api.dialects.thingsboard.operator_access import Access
from api.dialects.thingsboard.operators import json_body, json_response
from api.dialects.thingsboard.payload import keys_of
from api.dialects.thingsboard.requests import OK, integer
from api.dialects.thingsboard.series import FUNCTIONS, MANY, aggregated, as_text, latest, newest
from api.server_messages import ServerMessages
from api.transports.http import Request, Response, Route
from engine.errors import BadInput
from engine.message import Point, now_ms
from engine.stores.attribute_store import Attributes
from engine.stores.attributes import SCOPES, Attribute, Scope, scope_named
from engine.stores.registry import Device
from engine.stores.timeseries import Timeseries

MAX_BYTES: Final = 1 << 20
LIMIT: Final = 100
MOST_POINTS: Final = 100_000
"""Of one key in one answer."""
MOST_KEYS: Final = 500

_BASE: Final = "/api/plugins/telemetry"


class OperatorTelemetry:
    """The routes."""

    def __init__(self, access: Access, messages: ServerMessages, attributes: Attributes, store: Timeseries) -> None:
        self._access, self._messages = access, messages
        self._attributes, self._store = attributes, store
        one = _BASE + "/DEVICE/{id}"
        self.routes: Sequence[Route] = (
            Route("GET", one + "/values/timeseries", self._timeseries),
            # Its name since the REST client's 4.4.
            Route("GET", one + "/values/timeseries/history", self._history),
            Route("GET", one + "/keys/timeseries", self._timeseries_keys),
            Route("GET", one + "/values/attributes", self._values),
            Route("GET", one + "/values/attributes/{scope}", self._values),
            Route("GET", one + "/keys/attributes", self._keys),
            Route("GET", one + "/keys/attributes/{scope}", self._keys),
            Route("POST", one + "/{scope}", self._save),
            Route("POST", one + "/attributes/{scope}", self._save),
            Route("POST", _BASE + "/{id}/{scope}", self._save),
            Route("DELETE", one + "/{scope}", self._delete),
            Route("DELETE", _BASE + "/{id}/{scope}", self._delete),
        )

    # Time series

    async def _timeseries(self, request: Request, params: dict[str, str]) -> Response:
        """The latest values; with keys and a range, those within it."""
        device = await self._device(request, params)
        keys = _keys(request)
        if keys and "startTs" in request.query and "endTs" in request.query:
            return await _told(request, await self._range(request, device, keys))
        points = await latest(self._store, device, keys)
        shown = {point.key: [point] for point in points}
        for key in keys or ():
            # What was never told is told as nothing, now.
            shown.setdefault(key, [Point(device.tenant, device.id, key, now_ms(), None)])
        return await _told(request, shown)

    async def _history(self, request: Request, params: dict[str, str]) -> Response:
        device = await self._device(request, params)
        keys = _keys(request)
        if not keys:
            raise BadInput("Empty keys")
        return await _told(request, await self._range(request, device, keys))

    async def _range(self, request: Request, device: Device, keys: Sequence[str]) -> dict[str, list[Point]]:
        query = request.query
        start_ms, end_ms = (integer(query.get(name) or "", name) for name in ("startTs", "endTs"))
        interval_ms = integer(query.get("interval") or "0", "interval")
        limit = integer(query.get("limit") or str(LIMIT), "limit")
        function = query.get("agg") or "NONE"
        order = (query.get("orderBy") or "DESC").upper()
        if not 1 <= limit <= MOST_POINTS:
            raise BadInput(f"limit is 1 to {MOST_POINTS}")
        if order not in ("ASC", "DESC"):
            raise BadInput("orderBy is ASC or DESC")
        if function not in (*FUNCTIONS, "NONE"):
            raise BadInput(f"agg is NONE or one of {', '.join(FUNCTIONS)}")
        if query.get("intervalType") not in (None, "", "MILLISECONDS"):
            raise BadInput("an interval is of MILLISECONDS")
        if interval_ms < 0 or start_ms > end_ms:
            raise BadInput("startTs is not after endTs, and interval not below 0")
        found = {}
        for key in keys:
            if function == "NONE" or not interval_ms:
                first = order == "DESC"
                points = await newest(self._store, device, key, start_ms, end_ms, limit, newest_first=first)
            else:
                points = await aggregated(self._store, device, key, start_ms, end_ms, interval_ms, function)
            found[key] = points
        return found

    async def _timeseries_keys(self, request: Request, params: dict[str, str]) -> Response:
        device = await self._device(request, params)
        return json_response([point.key for point in await latest(self._store, device, None)])

    # Attributes

    async def _values(self, request: Request, params: dict[str, str]) -> Response:
        device = await self._device(request, params)
        wanted = _keys(request)
        return json_response(
            [
                {"lastUpdateTs": each.ts_ms, "key": key, "value": each.value}
                for values in await self._read(device, params)
                for key, each in values.items()
                if wanted is None or key in wanted
            ]
        )

    async def _keys(self, request: Request, params: dict[str, str]) -> Response:
        device = await self._device(request, params)
        return json_response(sorted({key for values in await self._read(device, params) for key in values}))

    async def _read(self, device: Device, params: dict[str, str]) -> list[Mapping[str, Attribute]]:
        """Attributes of the scope in the path, or of all."""
        scopes = [_scope(params["scope"])] if "scope" in params else SCOPES
        found = await self._attributes.read(device.tenant, device.id)
        return [found[scope] for scope in scopes]

    async def _save(self, request: Request, params: dict[str, str]) -> Response:
        device = await self._device(request, params)
        scope = _scope(params["scope"])
        if scope == "CLIENT":
            raise BadInput("Invalid scope: CLIENT_SCOPE")
        body = await json_body(request, MAX_BYTES)
        values = {key: value for key, value in body.items() if value is not None}
        if not values:
            raise BadInput("No attributes data found in request body!")
        if any(not key.strip() for key in values):
            raise BadInput("Key cannot be empty or contains only spaces")
        self._messages.admit()
        await self._attributes.write(device.tenant, device.id, scope, values)
        await self._messages.attributes_updated(device, scope, values)
        return OK

    async def _delete(self, request: Request, params: dict[str, str]) -> Response:
        device = await self._device(request, params)
        scope, keys = _scope(params["scope"]), _keys(request)
        if not keys:
            raise BadInput("Empty keys")
        self._messages.admit()
        if await self._attributes.delete(device.tenant, device.id, scope, keys):
            await self._messages.attributes_deleted(device, scope, keys)
        return OK

    async def _device(self, request: Request, params: dict[str, str]) -> Device:
        person = await self._access.caller(request)
        return await self._access.device(person, params["id"])


def _keys(request: Request) -> list[str] | None:
    """The keys that are asked for, `keys=` with commas and `key=` one at a time; None for all."""
    keys = [*(keys_of(request.query.get("keys")) or ()), *filter(None, request.repeated("key"))]
    if len(keys) > MOST_KEYS:
        raise BadInput(f"more than {MOST_KEYS} keys at once")
    return list(dict.fromkeys(keys)) or None


def _scope(name: str) -> Scope:
    if not name.endswith("_SCOPE"):
        raise BadInput(f"Invalid scope: {name[:40]}")
    return scope_named(name)


async def _told(request: Request, shown: Mapping[str, Sequence[Point]]) -> Response:
    """Points by key, as texts unless types are asked for. Many are written in a thread."""
    strict = request.query.get("useStrictDataTypes") == "true"

    def answer() -> Response:
        return json_response(
            {key: [_value(point, strict) for point in points] for key, points in shown.items() if points}
        )

    return await asyncio.to_thread(answer) if sum(map(len, shown.values())) > MANY else answer()


def _value(point: Point, strict: bool) -> dict[str, Any]:
    value = point.value
    return {"ts": point.ts_ms, "value": value if strict or value is None else as_text(value)}
