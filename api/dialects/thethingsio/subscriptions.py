"""Who hears of which thing: one listener for each tenant, and for each thing the subscriptions that have it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

from redis.exceptions import ConnectionError as RedisConnectionError

from api.live_values import LiveValues, Told

Heard = Callable[[Told], None]
"""Called with what was told of a thing, in order. Must not wait."""


class Subscription:
    """One subscriber: the things it hears of, which may change."""

    __slots__ = ("_all", "heard", "tenant", "things")

    def __init__(self, everything: Subscriptions, tenant: str, heard: Heard) -> None:
        self._all = everything
        self.tenant, self.heard = tenant, heard
        self.things: frozenset[str] = frozenset()

    def follow(self, things: Iterable[str]) -> None:
        """Hear of these things, and of no others."""
        wanted = frozenset(things)
        self._all.move(self, wanted)
        self.things = wanted

    async def end(self) -> None:
        """Hear no more; may be called twice."""
        self.follow(())
        await self._all.leave(self)


class Subscriptions:
    """All subscriptions of a process."""

    def __init__(self, values: LiveValues) -> None:
        self._values = values
        self._by_thing: dict[str, set[Subscription]] = {}
        self._members: dict[str, set[Subscription]] = {}
        self._listening: dict[str, Callable[[], Awaitable[None]]] = {}

    async def begin(self, tenant: str, heard: Heard) -> Subscription:
        """A subscription to nothing yet, after whose return nothing is missed. Raises redis ConnectionError."""
        made = Subscription(self, tenant, heard)
        members = self._members.setdefault(tenant, set())
        members.add(made)
        if tenant not in self._listening:
            try:
                end = await self._values.listen(tenant, self._told)
            except BaseException:  # also when whoever asked has gone away meanwhile
                await self.leave(made)
                raise
            if tenant in self._listening:
                await end()  # another one was quicker
            else:
                self._listening[tenant] = end
        return made

    def move(self, subscription: Subscription, wanted: frozenset[str]) -> None:
        """Change what a subscription hears of; for itself."""
        for thing in subscription.things - wanted:
            followers = self._by_thing[thing]
            followers.discard(subscription)
            if not followers:
                del self._by_thing[thing]
        for thing in wanted - subscription.things:
            self._by_thing.setdefault(thing, set()).add(subscription)

    async def leave(self, subscription: Subscription) -> None:
        """Forget a subscription; for itself."""
        members = self._members.get(subscription.tenant, set())
        members.discard(subscription)
        if not members:
            self._members.pop(subscription.tenant, None)
            end = self._listening.pop(subscription.tenant, None)
            if end is not None:
                with suppress(RedisConnectionError):
                    await end()

    def _told(self, told: Sequence[Told]) -> None:
        for each in told:
            for subscription in list(self._by_thing.get(each.device, ())):
                subscription.heard(each)
