"""Plans of deployments, compiled when they are first asked for and kept while they are in use."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from chains.repository import ChainRepository
from engine.node import CallNode
from engine.plan import Plan

log = logging.getLogger("rulemill.plans")

Key = tuple[str, int]


class PlanSource:
    """Gives workers the plan of a deployment. Several that ask for the same at once wait for one compilation.

    At most `size` plans are kept, those used last. What a dropped plan's outward calls hold is given back when the
    calls that may still be under way must have timed out.
    """

    def __init__(self, repository: ChainRepository, size: int = 256) -> None:
        self._repository = repository
        self._size = size
        self._plans: OrderedDict[Key, Plan] = OrderedDict()
        self._making: dict[Key, asyncio.Task[Plan]] = {}
        self._dropping: dict[asyncio.Task[None], Plan] = {}

    async def plan_for(self, tenant: str, deployment: int) -> Plan:
        """The plan of a deployment; raises NotFound, or InvalidDocument if the kinds of today cannot run it.

        A failure is not kept: the next call tries again.
        """
        key = (tenant, deployment)
        plan = self._plans.get(key)
        if plan is not None:
            self._plans.move_to_end(key)
            return plan
        task = self._making.get(key)
        if task is None:
            task = self._making[key] = asyncio.create_task(self._make(key), name=f"plan {tenant}/{deployment}")
            # Its error belongs to whoever waits; if all of them went away, it is nobody's.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        # Shielded: a caller who goes away must not take the plan from the others.
        return await asyncio.shield(task)

    async def current_number(self, tenant: str) -> int:
        """The deployment that new messages begin on; a tenant without any gets the default root chain."""
        current = await self._repository.current(tenant)
        return current.number if current else await self._repository.ensure_default(tenant)

    def forget(self, tenant: str) -> None:
        """Compile the tenant's plans afresh when they are next asked for: one of its secrets has changed."""
        for key in [*self._plans, *self._making]:
            if key[0] == tenant:
                self._drop(self._plans.pop(key, None))
                self._making.pop(key, None)

    async def close(self) -> None:
        """Give back what all plans hold. Nothing may run any more."""
        making = list(self._making.values())
        for task in [*making, *self._dropping]:
            task.cancel()
        await asyncio.gather(*making, *self._dropping, return_exceptions=True)
        plans = [*self._plans.values(), *self._dropping.values()]
        self._plans.clear()
        self._making.clear()
        self._dropping.clear()
        for plan in plans:
            await _close(plan)

    async def _make(self, key: Key) -> Plan:
        task = asyncio.current_task()
        try:
            plan = await self._repository.compile(*key)
            if self._making.get(key) is task:
                self._plans[key] = plan
                while len(self._plans) > self._size:
                    self._drop(self._plans.popitem(last=False)[1])
            else:
                self._drop(plan)  # forgotten while it was made: only for those who waited for it
            return plan
        finally:
            if self._making.get(key) is task:
                del self._making[key]

    def _drop(self, plan: Plan | None) -> None:
        if plan is not None and (calls := _calls(plan)):
            task = asyncio.create_task(self._close_later(plan, max(call.timeout_s for call in calls)))
            self._dropping[task] = plan

    async def _close_later(self, plan: Plan, after_s: float) -> None:
        await asyncio.sleep(after_s + 1)
        task = asyncio.current_task()
        assert task is not None
        del self._dropping[task]
        await _close(plan)


def _calls(plan: Plan) -> list[CallNode]:
    """The plan's outward calls, each once: chains that are called twice share their nodes."""
    return list({id(place.node): place.node for place in plan.nodes if isinstance(place.node, CallNode)}.values())


async def _close(plan: Plan) -> None:
    for call in _calls(plan):
        try:
            await call.close()
        except Exception as error:
            log.warning("closing a %s of tenant %s: %s: %s", call.spec.kind, plan.tenant, type(error).__name__, error)
