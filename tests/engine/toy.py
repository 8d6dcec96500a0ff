"""Toy node kinds and plans for tests of the kernel, and a worker wired to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import msgspec

from engine.message import Message, Point, new_id, now_ms
from engine.node import CallContext, CallNode, Context, Node, NodeSpec, Relation, Resumed
from engine.outcomes import Command, Outcomes, Park, Reply, Write
from engine.plan import DEFAULT_RETRY, Plan, PlanNode, RetryPolicy
from engine.worker import Worker, WorkerParts


class NoConfig(msgspec.Struct):
    pass


def spec(kind: str, *relations: str, parks: bool = False) -> NodeSpec:
    return NodeSpec(
        kind=kind, category="flow", summary=kind, description=kind, config=NoConfig,
        relations=tuple(Relation(name, "") for name in relations or ("Success",)), open_relations=True, parks=parks,
    )  # fmt: skip


class Do(Node):
    """Runs a function per message: function(i, message, out, ctx)."""

    spec: ClassVar[NodeSpec] = spec("do")

    def __init__(self, function: Callable[[int, Message, Outcomes, Context], Any]) -> None:
        self.function = function

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        for i, message in enumerate(batch):
            made = self.function(i, message, out, ctx)
            if asyncio.iscoroutine(made):
                await made


class Save(Node):
    spec: ClassVar[NodeSpec] = spec("save")

    def __init__(self) -> None:
        pass

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        for i, message in enumerate(batch):
            out.save(
                i, [Point(message.tenant, message.originator, k, message.ts_ms, v) for k, v in message.data.items()]
            )
        out.emit_all("Success", enumerate(batch))


class Delay(Node):
    spec: ClassVar[NodeSpec] = spec("delay", parks=True)

    def __init__(self, delay_ms: int) -> None:
        self.delay_ms = delay_ms

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        for i, _ in enumerate(batch):
            out.park(i, Park(ctx.now_ms + self.delay_ms))

    async def resume(self, i: int, message: Message, resumed: Resumed, out: Outcomes, ctx: Context) -> None:
        out.emit(i, resumed.event, message)


class Ask(Node):
    spec: ClassVar[NodeSpec] = spec("ask", parks=True)

    def __init__(self, timeout_ms: int) -> None:
        self.timeout_ms = timeout_ms

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        for i, message in enumerate(batch):
            until = ctx.now_ms + self.timeout_ms
            out.park(i, Park(until, Command("ask", message.data, until)))

    async def resume(self, i: int, message: Message, resumed: Resumed, out: Outcomes, ctx: Context) -> None:
        out.effect(i, Reply(resumed.body, "" if resumed.event == "answer" else "timeout"))
        out.emit(i, resumed.event, message)


class Call(CallNode):
    spec: ClassVar[NodeSpec] = spec("call", parks=True)

    def __init__(self, function: Callable[[Message, CallContext], Any], **settings: Any) -> None:
        self.function = function
        for name, value in settings.items():
            setattr(self, name, value)

    async def call(self, message: Message, ctx: CallContext) -> list[tuple[str, Message]]:
        made = self.function(message, ctx)
        return await made if asyncio.iscoroutine(made) else made


PATIENT = RetryPolicy(attempts=1 << 19, within_s=86_400)
"""Of nodes that are to be retried for as long as it takes, also on a machine that is busy."""


def plan(
    *nodes: tuple[str, Node, dict[str, list[str]]],
    rounds: bool = False, deployment: int = 1, retry: RetryPolicy = DEFAULT_RETRY,
) -> Plan:  # fmt: skip
    """A plan from (name, node, {relation: [names]}), the first node being the start."""
    index = {name: i for i, (name, _, _) in enumerate(nodes)}
    made = [
        PlanNode(
            name, node, "test", 1, {relation: [index[t] for t in targets] for relation, targets in to.items()}, retry
        )
        for name, node, to in nodes
    ]
    return Plan("acme", deployment, made, 0, rounds)


class Plans:
    """One plan per deployment; `current` may be moved."""

    def __init__(self, *plans: Plan) -> None:
        self.plans = {plan.deployment: plan for plan in plans}
        self.current = plans[0].deployment

    async def plan_for(self, tenant: str, deployment: int) -> Plan:
        return self.plans[deployment]

    async def current_number(self, tenant: str) -> int:
        return self.current


def message(device: str, data: Any = None, **fields: Any) -> Message:
    return Message(
        id=fields.pop("id", new_id()), ts_ms=fields.pop("ts_ms", now_ms()), tenant="acme",
        type=fields.pop("type", "POST_TELEMETRY_REQUEST"), originator=device,
        data={} if data is None else data, **fields,
    )  # fmt: skip


def worker(url: str, plans: Plans, store: Any, name: str = "w1", partitions: int = 4) -> Worker:
    async def product(tenant: str, id: str) -> None:
        return None

    return Worker(
        WorkerParts(
            url=url, name=name, partitions=partitions, plans=plans, store=store,
            product=product, secret=lambda tenant, name: None,
        )
    )  # fmt: skip


async def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """Wait for a condition; its value, or a failure after the time."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError("did not come true in time")
        await asyncio.sleep(0.01)


__all__ = ["PATIENT", "Ask", "Call", "Delay", "Do", "Plans", "Save", "Write", "message", "plan", "until", "worker"]
