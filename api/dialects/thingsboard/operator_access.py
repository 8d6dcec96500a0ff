"""Operators: who calls, and which devices they may touch (`TB-X5`)."""

from __future__ import annotations

import time
from typing import Final

import redis.asyncio as redis

from api.auth import DeviceAuth
from api.dialects.thingsboard.errors import EXPIRED
from api.dialects.thingsboard.tokens import Claims, ExpiredToken, Tokens, WrongToken
from api.transports.http import HttpError, Request
from engine.stores.people import People, Person
from engine.stores.register import P
from engine.stores.registry import Device

HEADERS: Final = ("x-authorization", "authorization")
"""Where the token may stand, the vendor's own first."""
NO_PERMISSION: Final = "You don't have permission to perform this operation!"
NO_DEVICE: Final = "Device with requested id wasn't found!"


class Denied(HttpError):
    """A 401, 403 or 404 with the vendor's code, where it is not the usual one of the status."""

    def __init__(self, status: int, reason: str, code: int | None = None) -> None:
        super().__init__(status, reason)
        self.code = code


class Access:
    """Tells who calls and what they may. Asks Redis at every call, so that what was revoked ends at once."""

    def __init__(self, people: People, tokens: Tokens, auth: DeviceAuth, client: redis.Redis) -> None:
        self._people, self._tokens, self._auth, self._client = people, tokens, auth, client

    async def caller(self, request: Request) -> Person:
        """The person whose token the request carries; Denied."""
        return (await self.session(request))[0]

    async def tenant_admin(self, request: Request) -> Person:
        """The same, and a tenant's administrator; Denied."""
        person = await self.caller(request)
        if person.role != "tenant_admin":
            raise Denied(403, NO_PERMISSION)
        return person

    async def session(self, request: Request) -> tuple[Person, Claims]:
        """The person and what their token says; Denied."""
        for name in HEADERS:
            scheme, _, token = (request.header(name) or "").partition(" ")
            if scheme.lower() == "bearer" and token:
                return await self.owner(token.strip())
        raise Denied(401, "Authentication failed")

    async def owner(self, token: str, *, refresh: bool = False) -> tuple[Person, Claims]:
        """Whose token this is, and what it says; Denied unless that person still stands by it."""
        try:
            claims = self._tokens.read(token, refresh=refresh)
        except ExpiredToken:
            raise Denied(401, "Token has expired", EXPIRED) from None
        except WrongToken:
            raise Denied(401, "Authentication failed") from None
        person = await self._people.find(claims.person)
        if person is None or not person.enabled or person.generation != claims.generation:
            raise Denied(401, "Authentication failed")
        if await self._client.exists(_ended(claims.session)):
            raise Denied(401, "Authentication failed")
        return person, claims

    async def end(self, claims: Claims, life_s: int) -> None:
        """End a login: none of its tokens, which live `life_s` at most, is taken any more."""
        await self._client.set(_ended(claims.session), int(time.time()), ex=life_s)

    async def device(self, person: Person, id: str) -> Device:
        """A device that the person may touch; Denied, and nothing tells that another tenant has it."""
        device = await self._auth.by_id(id)
        return self.allowed(person, device)

    def allowed(self, person: Person, device: Device | None) -> Device:
        """The device, if there is one that the person may touch; Denied."""
        if device is None or device.tenant != person.tenant:
            raise Denied(404, NO_DEVICE)
        if person.role == "customer" and device.owner != person.id:
            raise Denied(403, NO_PERMISSION)
        return device


def _ended(session: str) -> str:
    return f"{P}login-ended:{session}"
