"""Runs parked calls: outside the partition, so that a dead endpoint holds up nobody but those who wait for it.

Per node at most `concurrency` at a time, per originator and node one at a time in the order they were parked (unless
the node says otherwise), a retry holding only those behind it. The result comes back through `take.lua`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from engine import metrics
from engine.entries import Parked, encode
from engine.lanes import backoff_s
from engine.leases import Owned
from engine.message import Message, now_ms
from engine.node import CallNode, Resumed
from engine.outcomes import Discard, Retry
from engine.plan import Plan, PlanNode
from engine.redis_scripts import POSTPONE, TAKE
from engine.service import end_all
from engine.wire import Wire, call, failed

log = logging.getLogger("rulemill.outward")

MAX_WAITING = 10_000
"""Copies that may wait for one node in one partition; more of them fail with `outbox full`."""

Place = tuple[int, str, str]
"""(partition, tenant, node)"""


@dataclass(slots=True)
class _CallContext:
    now_ms: int
    tenant: str
    idempotency_key: str
    lookup: Callable[[str], str | None]
    read_state: Callable[[str, str], Awaitable[bytes | None]]

    def secret(self, name: str) -> str | None:
        return self.lookup(name)

    async def read(self, table: str, field: str) -> bytes | None:
        return await self.read_state(table, field)


@dataclass(slots=True)
class _Queue:
    """What waits for one node in one partition: per originator in order, and how many are under way."""

    waiting: dict[str, deque[Parked]] = field(default_factory=dict)
    count: int = 0


class Outward:
    """The calls of one worker."""

    def __init__(
        self,
        wire: Wire,
        plan_for: Callable[[str, int], Awaitable[Plan]],
        secret: Callable[[str, str], str | None],
    ) -> None:
        self._wire, self._plan_for, self._secret = wire, plan_for, secret
        self._queues: dict[Place, _Queue] = {}
        self._limits: dict[tuple[str, str, int], asyncio.Semaphore] = {}
        self._tasks: dict[asyncio.Task[None], int] = {}
        self._owned: dict[int, Owned] = {}
        self._in_hand: set[tuple[int, str]] = set()

    def has(self, number: int, id: str) -> bool:
        """Whether a parked call of a partition is under way or waits here."""
        return (number, id) in self._in_hand

    def room(self, tenant: str, plan_node: PlanNode) -> int:
        """How many more copies may wait for a node, in the partition where most of them wait."""
        counts = [queue.count for place, queue in self._queues.items() if place[1:] == (tenant, plan_node.name)]
        return MAX_WAITING - max(counts, default=0)

    def add(self, owned: Owned, parked: Parked) -> None:
        """Call, as soon as it is this message's turn; what is in hand already is not called twice."""
        number, message = owned.keys.number, parked.message
        if self.has(number, parked.id):
            return
        self._in_hand.add((number, parked.id))
        self._owned[number] = owned
        place = (number, message.tenant, message.node)
        queue = self._queues.setdefault(place, _Queue())
        queue.count += 1
        metrics.PARKED.labels("call").set(len(self._in_hand))
        line = queue.waiting.get(message.originator)
        if line is not None:
            line.append(parked)
            return
        queue.waiting[message.originator] = deque([parked])
        task = asyncio.create_task(self._line(place, message.originator), name="outward")
        self._tasks[task] = number
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            log.error("outward calls ended: %r", task.exception())

    def disown(self, number: int) -> None:
        """Forget a partition; calls under way are cut (the next owner makes them again, under the same key)."""
        for task, partition in list(self._tasks.items()):
            if partition == number:
                task.cancel()
        self._queues = {place: queue for place, queue in self._queues.items() if place[0] != number}
        self._in_hand = {entry for entry in self._in_hand if entry[0] != number}
        self._owned.pop(number, None)
        metrics.PARKED.labels("call").set(len(self._in_hand))

    async def stop(self, finish_s: float = 3.0) -> None:
        """Let calls under way end for a moment, then cut them; what is parked stays parked."""
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=finish_s)
        await end_all(self._tasks)

    async def _line(self, place: Place, originator: str) -> None:
        """Make an originator's calls at one node, one after the other (or all at once, for a node without order)."""
        queue = self._queues[place]
        line = queue.waiting[originator]
        unordered: list[asyncio.Task[None]] = []
        while line:
            parked = line[0]
            plan_node = await self._find(parked.message)
            if isinstance(plan_node, PlanNode) and isinstance(plan_node.node, CallNode) and not plan_node.node.ordered:
                task = asyncio.create_task(self._until_done(place, plan_node, parked), name="outward-unordered")
                self._tasks[task] = place[0]
                task.add_done_callback(self._gone)
                unordered.append(task)
            else:
                await self._until_done(place, plan_node, parked)
            line.popleft()
        del queue.waiting[originator]
        if not queue.waiting and not queue.count:
            self._queues.pop(place, None)

    async def _find(self, message: Message) -> PlanNode | str:
        """The node that calls, or why there is none."""
        while True:
            try:
                plan = await self._plan_for(message.tenant, message.deployment)
            except (RedisConnectionError, RedisTimeoutError) as error:
                log.warning("a call waits for its plan: %s", error)
                await asyncio.sleep(0.25)
            except Exception as error:
                log.error("tenant %s, deployment %d: %s", message.tenant, message.deployment, error)
                return f"deployment {message.deployment} cannot be run: {error}"
            else:
                where = plan.index.get(message.node)
                return f"no node {message.node!r} that calls out" if where is None else plan.nodes[where]

    async def _until_done(self, place: Place, plan_node: PlanNode | str, parked: Parked) -> None:
        """Call, and call again while it makes sense, until the message is back in the stream."""
        id = parked.id
        try:
            # After a take-over, one that was to be called again later still waits.
            await asyncio.sleep(max(0, parked.due_ms - now_ms()) / 1000)
            while True:
                resumed = await self._attempt(place[0], plan_node, parked)
                if isinstance(resumed, Resumed):
                    await self._bring_back(place[0], parked, resumed)
                    return
                parked, after_s = resumed
                await self._postpone(place[0], parked)
                await asyncio.sleep(after_s)
        finally:
            self._in_hand.discard((place[0], id))
            metrics.PARKED.labels("call").set(len(self._in_hand))
            if (queue := self._queues.get(place)) is not None:
                queue.count -= 1

    async def _attempt(self, number: int, plan_node: PlanNode | str, parked: Parked) -> Resumed | tuple[Parked, float]:
        """One call: what to bring back, or the parked message with one attempt more and the seconds to wait."""
        message = parked.message
        if isinstance(plan_node, str):
            return Resumed("call", None, plan_node)
        if not isinstance(plan_node.node, CallNode):
            return Resumed("call", None, f"no node {message.node!r} that calls out")
        node, policy = plan_node.node, plan_node.retry
        if parked.attempts >= policy.attempts:
            return Resumed("call", None, f"gave up after {parked.attempts} attempts: the process died or was stopped")
        # A new deployment may allow another number.
        which = (message.tenant, message.node, node.concurrency)
        limit = self._limits.get(which)
        if limit is None:
            limit = self._limits[which] = asyncio.Semaphore(node.concurrency)
        async with limit:
            ctx = _CallContext(
                now_ms(), message.tenant, _key(message), lambda name: self._secret(message.tenant, name),
                lambda table, field: self._state(number, message.originator, table, field),
            )  # fmt: skip
            try:
                async with asyncio.timeout(node.timeout_s):
                    made = await node.call(message, ctx)
            except Discard:
                return Resumed("call", None)
            except Retry as retry:
                reason, after_s = retry.reason, retry.after_s
            except TimeoutError:
                reason, after_s = f"no answer within {node.timeout_s:g} s", None
            except Exception as error:
                log.info("call at %s: %s: %s", message.node, type(error).__name__, error)
                return Resumed("call", None, str(error) or type(error).__name__)
            else:
                return Resumed("call", [[relation, back] for relation, back in made])
        attempts, since_ms = parked.attempts + 1, parked.since_ms or now_ms()
        if policy.exhausted(attempts, now_ms() - since_ms):
            return Resumed("call", None, f"gave up after {attempts} attempts: {reason}")
        wait_s = backoff_s(attempts, after_s)
        due_ms = now_ms() + int(wait_s * 1000)
        return Parked(parked.id, message, "call", due_ms, parked.order, attempts, since_ms), wait_s

    async def _state(self, number: int, originator: str, table: str, field: str) -> bytes | None:
        key = self._owned[number].keys.state(table, originator)
        try:
            value = (await self._wire.execute([("HGET", key, field)]))[0]
        except RedisConnectionError as error:
            raise Retry(f"state cannot be read: {error}") from error
        if failed(value):
            raise Retry(f"state cannot be read: {value}")
        return None if value is None else bytes(value)

    async def _bring_back(self, number: int, parked: Parked, resumed: Resumed) -> None:
        keys = self._owned[number].keys
        try:
            why = encode(resumed)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            why = encode(Resumed("call", None, f"the call's result cannot be carried: {error}"))
        command = call(TAKE, (keys.inbox, keys.parked, keys.due), parked.id, why)
        while True:
            try:
                reply = (await self._wire.execute([command]))[0]
            except RedisConnectionError as error:
                log.warning("a call's result waits for Redis: %s", error)
            else:
                if not failed(reply):
                    return
                log.warning("a call's result waits: %s", reply)
            await asyncio.sleep(0.25)

    async def _postpone(self, number: int, parked: Parked) -> None:
        """Write the attempt. The index keeps calls at the present: whoever takes over must see all of them at once."""
        keys = self._owned[number].keys
        try:
            await self._wire.execute([call(POSTPONE, (keys.parked, keys.due), parked.id, encode(parked), now_ms())])
        except RedisConnectionError as error:
            log.warning("an attempt is not written: %s", error)


def _key(message: Message) -> str:
    """What marks repeats of one call: stays the same through retries and crashes."""
    return f"{message.id}/{message.node}/{message.copy}".replace(" ", "-")
