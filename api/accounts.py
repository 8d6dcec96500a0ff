"""People's accounts: made, changed, and logged in to."""

from __future__ import annotations

from msgspec.structs import replace

from api.login_throttle import LoginThrottle
from api.passwords import Busy, Passwords
from engine.errors import RulemillError
from engine.stores.people import People, Person, Role, folded


class WrongLogin(RulemillError):
    """No such person, or not this password: which of both is told to nobody."""


class NotActive(RulemillError):
    """The password is right, but the person is disabled."""


class Accounts:
    """What may be done with accounts. Raises redis errors, and Busy (a Refused) when too many log in at once."""

    def __init__(self, people: People, passwords: Passwords, throttle: LoginThrottle) -> None:
        self.people = people
        self._passwords, self._throttle = passwords, throttle

    async def add(self, tenant: str, username: str, password: str, role: Role, *, enabled: bool = True) -> Person:
        """Create a person. BadInput for a name or password that will not do, Conflict for a name that is taken."""
        kept = await self.hashed(password)
        return await self.people.add(
            Person(tenant=tenant, username=username, role=role, enabled=enabled, password=kept)
        )

    async def log_in(self, username: str, password: str, address: str) -> Person:
        """The person of this name and password; WrongLogin, NotActive, TooManyAttempts.

        Costs the same whether or not there is such a person. `address` is where they are, for the count of attempts.
        """
        name = folded(username)
        await self._throttle.attempt(name, address)
        person = await self.people.named(name)
        try:
            right = await self._passwords.verify(person.password if person else "", password)
        except Busy:
            await self._throttle.withdraw(name, address)
            raise
        if person is None or not right:
            raise WrongLogin
        await self._throttle.succeeded(name, address)
        if not person.enabled:
            raise NotActive
        return person

    async def is_password(self, person: Person, password: str) -> bool:
        """Whether this is the person's password."""
        return await self._passwords.verify(person.password, password)

    async def change_password(self, person: Person, current: str, wanted: str, address: str) -> Person:
        """Set another password for somebody who knows the current one; WrongLogin, TooManyAttempts, BadInput."""
        await self.log_in(person.username, current, address)
        return await self.set_password(person.tenant, person.id, wanted)

    async def set_password(self, tenant: str, id: str, password: str) -> Person:
        """Set another password; everything given to the person before ends. NotFound, BadInput."""
        kept = await self.hashed(password)
        return await self.people.change(tenant, id, lambda person: replace(person, password=kept))

    async def hashed(self, password: str) -> str:
        """What to keep of a new password; BadInput."""
        return await self._passwords.hash(password)
