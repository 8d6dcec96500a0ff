"""Subscriptions of users: they follow sessions and rights as they change, and end with them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from api.dialects.thethingsio.bodies import error_body
from api.dialects.thethingsio.callers import INVALID_SESSION, Caller, Callers
from api.dialects.thethingsio.concerns import on_change
from api.dialects.thethingsio.parts import Parts
from api.dialects.thethingsio.subscriptions import Subscription, Subscriptions
from api.live import Recheck
from api.live_values import Told
from engine.stores.apps.rights import GET
from engine.stores.registry import Device

EVERY_S: Final = 3600.0
"""How often it is looked whether the session has run out."""

Value = Callable[[Told, Any], None]
"""Called with what was told, and the value of the resource."""
Ended = Callable[[dict[str, Any]], None]


class SessionEnd:
    """Looks whether a session still holds, when it may have changed and now and then; `check` does what is to be done.

    `ended` is called with an error object when it holds no longer.
    """

    def __init__(
        self, parts: Parts, callers: Callers, caller: Caller, ended: Ended,
        check: Callable[[Caller], Awaitable[None]] | None = None,
    ) -> None:  # fmt: skip
        self._parts, self._callers, self._caller = parts, callers, caller
        self._ended, self._more = ended, check
        self._checking = Recheck("rights of a subscription", self.check)
        self._unlisten: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look; also at once, since it may have changed while nobody did."""
        self._unlisten = on_change(self._parts, self._caller.app.id, self._caller.user.key, self._checking.ask)
        self._wait()
        self._checking.ask()

    def stop(self) -> None:
        """Look no more; may be called twice."""
        if self._unlisten is not None:
            self._unlisten()
            self._unlisten = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._checking.cancel()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._due)

    def _due(self) -> None:
        self._checking.ask()
        self._wait()

    async def check(self) -> None:
        """Look now."""
        caller = await self._callers.by_print(self._caller.print_)
        if caller is None:
            self._ended(error_body(401, INVALID_SESSION))
        elif self._more is not None:
            await self._more(caller)


class Watch:
    """One subscription of a session to a resource, of one thing or (None) of all that the user may read.

    `value` is called for every new value, `ended` once, with an error object, when the right to it is gone.
    """

    def __init__(
        self, parts: Parts, callers: Callers, caller: Caller, resource: str, thing: str | None, value: Value,
        ended: Ended,
    ) -> None:  # fmt: skip
        self._callers, self._caller = callers, caller
        self._resource, self._thing = resource, thing
        self._value, self._ended = value, ended
        self._subscription: Subscription | None = None
        self._session = SessionEnd(parts, callers, caller, self._give_up, self._check)

    async def begin(self, subscriptions: Subscriptions) -> None:
        """Follow what the user may read now; raises redis ConnectionError."""
        self._subscription = await subscriptions.begin(self._caller.tenant, self._heard)
        self._session.start()
        try:
            await self._session.check()
        except BaseException:
            await self.end()
            raise

    async def end(self) -> None:
        """Follow nothing more; may be called twice."""
        self._session.stop()
        if self._subscription is not None:
            subscription, self._subscription = self._subscription, None
            await subscription.end()

    async def _check(self, caller: Caller) -> None:
        denied = error_body(401, "Permission denied")
        if self._resource not in caller.resources:
            return self._give_up(denied)
        rights = await self._callers.things(caller)
        things = {thing for thing, each in rights.items() if each.of(caller.user.key, self._resource) & GET}
        if self._thing is not None:
            if self._thing not in things:
                return self._give_up(denied)
            things = {self._thing}
        if self._subscription is not None:
            self._subscription.follow(things)
        return None

    def _give_up(self, error: dict[str, Any]) -> None:
        if self._subscription is not None:
            self._subscription.follow(())
        self._ended(error)

    def _heard(self, told: Told) -> None:
        value = told.values.get(self._resource)
        if value is not None:
            self._value(told, value)


class ThingToken:
    """A subscription to all values of a thing, while its token holds."""

    def __init__(self, parts: Parts, device: Device, print_: str, heard: Callable[[Told], None], ended: Ended) -> None:
        self._auth, self._device, self._print = parts.auth, device, print_
        self._heard, self._ended = heard, ended
        self._subscription: Subscription | None = None
        self._checking = Recheck("the token of a thing that is followed", self._verify)
        self._unwatch: Callable[[], None] | None = None

    async def begin(self, subscriptions: Subscriptions) -> None:
        """Follow the thing; raises redis ConnectionError."""
        self._unwatch = self._auth.on_change(self._changed)
        self._subscription = await subscriptions.begin(self._device.tenant, self._heard)
        self._subscription.follow([self._device.id])
        # It may have changed since it was looked up, and nobody told.
        self._checking.ask()

    async def end(self) -> None:
        """Follow it no more; may be called twice."""
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        self._checking.cancel()
        if self._subscription is not None:
            subscription, self._subscription = self._subscription, None
            await subscription.end()

    def _changed(self, device_id: str) -> None:
        if device_id in ("", self._device.id):
            self._checking.ask()

    async def _verify(self) -> None:
        known = await self._auth.find(self._print)
        if known is None or known.id != self._device.id or not known.enabled:
            self._ended(error_body(401, "Invalid thing token"))
