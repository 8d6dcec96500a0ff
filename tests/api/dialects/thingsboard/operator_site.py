"""A ThingsBoard site with people who log in over the REST API."""

from __future__ import annotations

from typing import Any, Self

import httpx

from api.accounts import Accounts
from api.dialects.thingsboard.operator_access import Access
from api.dialects.thingsboard.operators import OperatorHttp
from api.dialects.thingsboard.tokens import Tokens
from api.login_throttle import Limits, LoginThrottle
from api.passwords import Passwords
from api.signing import signing_key
from api.transports.http import Route, Surface
from engine.message import now_ms
from engine.stores.people import People, Person
from engine.stores.registry import Tenant
from tests.api.dialects.thingsboard.site import Site
from tests.api.stack import TENANT

PASSWORD = "secret-1"
OTHER = "other"
"""Another tenant."""


class OperatorSite(Site):
    """`admin` is a client logged in as the tenant's administrator; `now_s` is the time by which tokens expire."""

    admin: httpx.AsyncClient
    ada: Person

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.now_s = now_ms() / 1000

    async def __aenter__(self) -> Self:
        passwords = Passwords()
        self._exit.callback(passwords.close)
        self.people = People(self.redis)
        throttle = LoginThrottle(self.redis, "person", Limits(pair=5))
        self.accounts = Accounts(self.people, passwords, throttle)
        self.tokens = Tokens(await signing_key(self.redis, "operators"), lambda: self.now_s)
        self.access = Access(self.people, self.tokens, self.auth, self.redis)
        await super().__aenter__()
        await self.registry.put_tenant(Tenant(name=OTHER))
        self.ada = await self.accounts.add(TENANT, "ada@example.com", PASSWORD, "tenant_admin")
        self.admin = await self.as_person(self.ada)
        return self

    def routes(self) -> list[Route]:
        """The routes besides those of logging in."""
        return []

    def more_surfaces(self) -> list[Surface]:
        return [OperatorHttp(self.access, self.accounts, self.tokens, self.registry, self.routes())]

    async def as_person(self, person: Person) -> httpx.AsyncClient:
        """A client that carries a token of that person."""
        token = self.tokens.pair(person)["token"]
        return await self.client(self.address, headers={"X-Authorization": f"Bearer {token}"})

    async def customer(self, name: str, tenant: str = TENANT) -> tuple[Person, httpx.AsyncClient]:
        """A customer, and a client of theirs."""
        person = await self.accounts.add(tenant, name, PASSWORD, "customer")
        return person, await self.as_person(person)
