"""What things can ask for, by whatever transport: activation, values in both directions, their description."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from api.auth import Unknown, token_print
from api.dialects.thethingsio.bodies import text_of
from api.dialects.thethingsio.dates import iso
from api.dialects.thethingsio.magic import READABLE_S
from api.dialects.thethingsio.parts import Parts
from api.dialects.thethingsio.reading import Asked, flag, shown, wanted
from api.dialects.thethingsio.settings import DIALECT
from api.dialects.thethingsio.thing_values import thing_messages
from api.dialects.thethingsio.writing import How, Value, error_of, messages_of, submit
from api.transports.http_exchange import HttpError
from engine.errors import BadInput
from engine.stores.apps.apps import DESCRIPTION, resource_fault
from engine.stores.registry import THING_TOKEN, Credential, Device
from engine.stores.values import problem


class ThingCalls:
    """Calls of things; answers are what is said as JSON. Raises BadInput, HttpError and what storing raises."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def thing(self, names: Mapping[str, str]) -> Device:
        """The thing of the token in a path; 401."""
        device = await find_thing(self._parts, names["token"])
        if device is None:
            raise HttpError(401, "Invalid thing token")
        return device

    async def activate(self, body: dict[str, Any], transport: str = "http") -> dict[str, Any]:
        """Make a thing (`TTI-X1`)."""
        device, token = await activate(self._parts, text_of(body, "activationCode"), transport)
        return {"status": "created", "message": "thing activated", "thingToken": token, "thingId": device.id}

    async def write(self, device: Device, body: Any, asked: Asked, transport: str) -> dict[str, Any]:
        """Take values (`TTI-X2`)."""
        how = How(flag(asked, "store"), flag(asked, "broadcast"))
        messages = thing_messages(self._parts.intake, device, body, how, transport)
        await submit(self._parts.intake, messages, asked.query.get("sync") == "true")
        return {"status": "created", "message": "values created"}

    async def names(self, device: Device) -> dict[str, Any]:
        """Which resources have values (`TTI-X4`)."""
        keys = await self._parts.store.keys(device.tenant, device.id)
        return {"status": "success", "resources": [key for key in keys if not resource_fault(key)]}

    async def everything(self, device: Device, asked: Asked) -> list[dict[str, Any]]:
        """Values of all resources (`TTI-X4`)."""
        found: dict[str, list[dict[str, Any]]] = {}
        for point in await wanted(asked).read(self._parts.store, device.tenant, [device.id], None):
            if not resource_fault(point.key):
                found.setdefault(point.key, []).append({"value": point.value, "datetime": iso(point.ts_ms)})
        return [{"key": key, "values": values} for key, values in found.items()]

    async def read(self, device: Device, key: str, asked: Asked) -> list[dict[str, Any]]:
        """Values of a resource (`TTI-X3`)."""
        if fault := resource_fault(key):
            raise BadInput(fault)
        points = await wanted(asked).read(self._parts.store, device.tenant, [device.id], [key])
        return [shown(point) for point in points]

    async def description(self, device: Device) -> list[dict[str, Any]]:
        """What the thing says of itself (`TTI-X6`)."""
        points = await self._parts.store.latest(device.tenant, [device.id], [DESCRIPTION])
        return [{"value": point.value} for point in points]

    async def describe(self, device: Device, body: dict[str, Any], transport: str) -> dict[str, Any]:
        """Say another."""
        if reason := problem(body):
            raise BadInput(reason)
        values = [Value(DESCRIPTION, body, None, None)]
        messages = messages_of(self._parts.intake, device, values, How(), transport, {})
        # It is stored; whether its reader sees it already is worth a moment's wait.
        failure = await self._parts.intake.settle(messages, READABLE_S)
        if failure is not None and failure.cause == "store":
            raise error_of(failure)
        return {"status": "success", "message": "updated"}


async def find_thing(parts: Parts, token: str) -> Device | None:
    """The thing of a token, unless it is disabled."""
    print_ = token_print(THING_TOKEN, token)
    device = parts.auth.known(print_)
    if isinstance(device, Unknown):
        device = await parts.auth.find(print_)
    return device if device is not None and device.enabled else None


async def activate(parts: Parts, code: str, transport: str) -> tuple[Device, str]:
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
        device, "ENTITY_CREATED", {"id": device.id, "name": device.name}, dialect=DIALECT, transport=transport,
        ts_ms=parts.intake.stamp(device.id),
    )  # fmt: skip
    await parts.intake.submit([message])
    return device, token
