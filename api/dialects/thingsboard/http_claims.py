"""Claiming over HTTP: the device's side, and the user's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from api.device_record import device_record
from api.dialects.thingsboard.claims import Response as Ended
from api.dialects.thingsboard.claims import claim, open_window, read_claim, read_secret, release
from api.dialects.thingsboard.parts import Parts
from api.dialects.thingsboard.requests import OK, TRANSPORT, as_json, decoded, device_of
from api.transports.http import HttpError, Request, Response, Route
from engine.stores.people import Person
from engine.stores.registry import Device

Caller = Callable[[Request], Awaitable[Person]]
"""The person who calls; raises HttpError for nobody that is known."""


class ClaimRoute:
    """A device lets itself be claimed (`TB-50`)."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.routes: Sequence[Route] = (Route("POST", "/api/v1/{token}/claim", self._post),)

    async def _post(self, request: Request, params: dict[str, str]) -> Response:
        device = await device_of(self._parts, params)
        wanted = await decoded(request, partial(read_claim, default_ms=self._parts.settings.claim_ms))
        await self._parts.intake.submit(await open_window(self._parts, device, wanted, TRANSPORT))
        return OK


class UserClaims:
    """A user claims a device, and gives it back (`TB-S26`)."""

    def __init__(self, parts: Parts, caller: Caller) -> None:
        self._parts, self._caller = parts, caller
        self.routes: Sequence[Route] = (
            Route("POST", "/api/customer/device/{name}/claim", self._claim),
            Route("DELETE", "/api/customer/device/{name}/claim", self._release),
        )

    async def _claim(self, request: Request, params: dict[str, str]) -> Response:
        person = await self._caller(request)
        if person.role != "customer":
            raise HttpError(403, "Only a customer's user can claim a device")
        secret = await decoded(request, read_secret)
        device = await self._device(person, params["name"])
        response, device = await claim(self._parts, device, person.id, secret)
        if response is Ended.SUCCESS:
            return as_json({"device": device_record(device), "response": response})
        return as_json(response, 400)

    async def _release(self, request: Request, params: dict[str, str]) -> Response:
        person = await self._caller(request)
        device = await self._device(person, params["name"])
        if person.role == "customer" and device.owner not in ("", person.id):
            raise HttpError(403, "The device belongs to somebody else")
        await release(self._parts, device)
        return OK

    async def _device(self, person: Person, name: str) -> Device:
        device = (await self._parts.registry.find_names(person.tenant, [name])).get(name)
        if device is None:
            raise HttpError(404, "there is no such device")
        return device
