"""Several deployments in one batch: a device's order and state hold across them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.errors import NotFound
from engine.message import Message
from engine.outcomes import Outcomes, Write
from engine.plan import Plan
from tests.engine.bench import Bench
from tests.engine.toy import Do, Plans, Save, message, plan, until

pytestmark = pytest.mark.asyncio


async def test_messages_of_several_deployments_see_each_others_writes_in_order(bench: Bench) -> None:
    order: list[int] = []

    async def count(i: int, m: Message, out: Outcomes, ctx: Any) -> None:
        order.append(m.data["n"])
        await ctx.load([(m.originator, "attr", "n")])
        seen = int(ctx.get(m.originator, "attr", "n") or 0)
        out.effect(i, Write("attr", "n", b"%d" % (seen + 1)))
        out.discard(i)

    plans = Plans(*(plan(("count", Do(count), {}), rounds=True, deployment=n) for n in (1, 2)))
    sent = [bench.ingress.submit([message("d", {"n": n}, deployment=1 + n % 2)]) for n in range(40)]
    await asyncio.gather(*set(sent))
    await bench.work(plans)
    await until(bench.drained)
    assert order == list(range(40))
    assert await bench.client.hget(bench.keys("d").state("attr", "d"), "n") == b"40"


async def test_a_deployment_that_cannot_be_run_ends_its_messages_and_tells_who_waits(bench: Bench) -> None:
    class Gone(Plans):
        async def plan_for(self, tenant: str, deployment: int) -> Plan:
            if deployment == 7:
                raise NotFound("deployment", "7")
            return await super().plan_for(tenant, deployment)

    await bench.work(Gone(plan(("save", Save(), {}))))
    with bench.replies.wait() as waiting:
        lost = message("d", {"n": 1}, deployment=7, reply_to=waiting.to, awaited=True)
        await bench.ingress.submit([lost, message("d", {"n": 2})])
        answer = await waiting.next(5)
    assert answer is not None
    assert (answer.kind, answer.error) == ("end", "deployment 7 cannot be run: no deployment '7'")
    [letter] = await until(lambda: bench.letters(1))
    assert letter.message.data == {"n": 1}
    await until(lambda: bench.stored("d"))
