"""Several deployments in one batch: a device's order and state hold across them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.message import Message
from engine.outcomes import Outcomes, Write
from tests.engine.bench import Bench
from tests.engine.toy import Do, Plans, message, plan, until

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
