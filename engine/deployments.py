"""Which deployment of a tenant new messages begin on: a pointer that may move at any time, kept for a second."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Protocol

from engine.plan import Plan

FRESH_S = 1.0


class Plans(Protocol):
    """Where plans come from; the composition root hands the worker the one of `chains`."""

    def plan_for(self, tenant: str, deployment: int) -> Awaitable[Plan]:
        """The plan of a deployment; raises NotFound or InvalidDocument."""
        ...

    def current_number(self, tenant: str) -> Awaitable[int]:
        """The deployment that new messages begin on."""
        ...


class Deployments:
    """Current deployment numbers, at most a second old; the bus makes them older at once."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans
        self._known: dict[str, tuple[int, float]] = {}

    def moved(self, tenant: str) -> None:
        """A tenant's pointer has moved."""
        self._known.pop(tenant, None)

    async def current(self, tenant: str) -> int:
        """The deployment that a tenant's new messages begin on."""
        known = self._known.get(tenant)
        now = time.monotonic()
        if known is not None and now - known[1] < FRESH_S:
            return known[0]
        number = await self._plans.current_number(tenant)
        self._known[tenant] = (number, now)
        return number
