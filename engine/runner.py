"""Walks a plan with a batch. Touches no Redis: gives Effects, which `commit` or a chain test takes from there.

A node gets a list of messages, merged by position (ties by connection), so that it sees a device's messages as they
arrived, whatever branches they took. A failure inside a node call belongs to its own message.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace

from engine import metrics
from engine.effects import DISCARDED, ENDED, RETRIED, Effects
from engine.ends import Ends
from engine.entries import Item, LaneItem
from engine.errors import StateUnavailable
from engine.failpoints import failpoint
from engine.message import MAX_HOPS, Message
from engine.node import CallNode, Resumed
from engine.outcomes import FAILURE, Discard, Outcomes, Park, Retry, Write
from engine.plan import Plan, PlanNode
from engine.view import View

log = logging.getLogger("rulemill.runner")

TOO_OFTEN = 1 << 20
"""Attempts beyond every policy: wherever the item asks for another, it fails."""

Placed = tuple[int, Message]


async def run(
    plan: Plan,
    items: Sequence[tuple[int, Item]],
    view: View,
    *,
    trace: bool = False,
    room: Callable[[PlanNode], int] | None = None,
) -> Effects:
    """Run items (position, what) through the plan; `room` tells how many more calls a node's outbox takes."""
    walk = _Walk(plan, view, trace, room)
    if plan.rounds:
        for some in _rounds(items):
            await walk.round(some)
    else:
        await walk.round(items)
    return walk.effects


def _rounds(items: Sequence[tuple[int, Item]]) -> list[list[tuple[int, Item]]]:
    """At most one message per originator in each round, in order."""
    rounds: list[list[tuple[int, Item]]] = []
    seen: dict[str, int] = {}
    for placed in items:
        originator = placed[1].message.originator
        number = seen.get(originator, 0)
        seen[originator] = number + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(placed)
    return rounds


class _Walk:
    """One run: inboxes of the plan's nodes, and what has come of it so far."""

    def __init__(self, plan: Plan, view: View, trace: bool, room: Callable[[PlanNode], int] | None) -> None:
        self.plan, self.view, self.trace, self.room = plan, view, trace, room
        self.effects = Effects()
        self.ends = Ends(self.effects, trace, view.now_ms)
        self.inboxes: list[list[Placed]] = [[] for _ in plan.nodes]
        self.mixed: list[bool] = [False] * len(plan.nodes)
        self.attempts: dict[tuple[int, str, str], tuple[int, int]] = {}
        """(position, copy, node) of messages tried before: attempts so far, and since when."""
        self.last_try: set[int] = set()
        """Positions that may not be retried any more, at whatever node."""
        self.held: set[str] = set()
        """Originators whose lane this run opened: their later items join it."""

    async def round(self, items: Sequence[tuple[int, Item]]) -> None:
        """Run items to their ends."""
        for position, item in items:
            await self._enter(position, item)
        waiting = any(self.inboxes)
        while waiting:
            waiting = False
            for i, plan_node in enumerate(self.plan.nodes):
                batch = self.inboxes[i]
                if not batch:
                    continue
                self.inboxes[i] = []
                if self.mixed[i]:
                    batch.sort(key=_position)
                    self.mixed[i] = False
                waiting |= await self._call(i, plan_node, batch)
                self.view.progress()
                failpoint("mid-batch")

    async def _enter(self, position: int, item: Item) -> None:
        """Put an item where it starts: at the plan's start, at the node it stopped at, or through `resume`."""
        message = item.message
        if message.originator in self.held:
            self.ends.lane(position, LaneItem(message, item.resumed, item.attempts, item.since_ms), "")
            return
        if message.deployment != self.plan.deployment:
            message = replace(message, deployment=self.plan.deployment)
        where = self.plan.index.get(message.node, -1) if message.node else self.plan.start
        if where < 0:
            node = PlanNode(message.node, None, "", 0)  # type: ignore[arg-type]
            self.ends.dead(position, message, node, f"no node {message.node!r} in deployment {self.plan.deployment}")
            return
        plan_node = self.plan.nodes[where]
        if message.hops > MAX_HOPS:
            self.ends.dead(position, message, plan_node, f"loop: came back more than {MAX_HOPS} times")
            return
        if item.attempts >= TOO_OFTEN:
            self.last_try.add(position)
        if item.attempts:
            self.attempts[position, message.copy, plan_node.name] = (item.attempts, item.since_ms)
        if item.resumed is None:
            self._put(where, position, message)
            return
        out = Outcomes(1)
        started = time.perf_counter()
        try:
            await self._resume(plan_node, message, item.resumed, out)
        except Retry as retry:
            out.retried[0] = retry
        except Discard as discard:
            out.discarded[0] = discard.reason
        except StateUnavailable:
            raise
        except Exception as error:
            out.failed[0] = _reason(plan_node, error)
        self._count(plan_node, 1, started)
        self._settle(where, plan_node, [(position, message)], out, item.resumed)

    async def _resume(self, plan_node: PlanNode, message: Message, resumed: Resumed, out: Outcomes) -> None:
        if not isinstance(plan_node.node, CallNode):
            await plan_node.node.resume(0, message, resumed, out, self.view)
        elif resumed.error:
            out.fail(0, resumed.error)
        elif resumed.body is None:
            out.discard(0)
        else:
            # From the stream the result comes as plain lists.
            for relation, made in msgspec.convert(resumed.body, list[tuple[str, Message]]):
                out.emit(0, relation, made)

    async def _call(self, i: int, plan_node: PlanNode, batch: list[Placed]) -> bool:
        """Give a node its batch and send on what comes of it; True when something went backwards."""
        node = plan_node.node
        out = Outcomes(len(batch))
        started = time.perf_counter()
        if isinstance(node, CallNode):
            self._park_calls(plan_node, batch, out)
        else:
            messages = [message for _, message in batch]
            try:
                await node.process(messages, out, self.view)
            except StateUnavailable:
                raise
            except Exception as error:
                out = await self._one_by_one(plan_node, messages, error)
        self._count(plan_node, len(batch), started)
        return self._settle(i, plan_node, batch, out, None)

    async def _one_by_one(self, plan_node: PlanNode, messages: Sequence[Message], error: Exception) -> Outcomes:
        """A node call failed as a whole: ask message by message, so that only the guilty one fails."""
        out = Outcomes(len(messages))
        for i, message in enumerate(messages):
            single = Outcomes(1)
            try:
                if len(messages) == 1:
                    raise error
                await plan_node.node.process([message], single, self.view)
            except Retry as retry:
                out.retried[i] = retry
                continue
            except Discard as discard:
                out.discarded[i] = discard.reason
                continue
            except StateUnavailable:
                raise
            except Exception as own:
                out.failed[i] = _reason(plan_node, own)
                continue
            _move(single, out, i)
        return out

    def _park_calls(self, plan_node: PlanNode, batch: list[Placed], out: Outcomes) -> None:
        room = len(batch) if self.room is None else self.room(plan_node)
        for i in range(len(batch)):
            if i < room:
                out.parked[i] = Park(self.view.now_ms)
            else:
                out.fail(i, "outbox full")

    def _settle(
        self, at: int, plan_node: PlanNode, batch: list[Placed], out: Outcomes, resumed: Resumed | None
    ) -> bool:
        """Turn one node call's outcomes into emissions, effects and ends."""
        emitted = out.emitted
        told: set[int] = set()
        for pairs in emitted.values():
            told.update([i for i, _ in pairs])
        if len(told) != len(batch) or out.failed or out.retried or out.parked:
            gone = self._ends(plan_node, batch, out, told, resumed)
            if gone:
                emitted = {
                    relation: [pair for pair in pairs if pair[0] not in gone] for relation, pairs in emitted.items()
                }
                out.points = [pair for pair in out.points if pair[0] not in gone]
                out.effects = [pair for pair in out.effects if pair[0] not in gone]
        self._collect(batch, out)
        if sum(map(len, emitted.values())) > len(told):
            emitted = _number_copies(at, emitted)
        back = False
        for relation, pairs in emitted.items():
            if pairs:
                back |= self._send(at, plan_node, relation, pairs, batch)
        for i, reason in out.failed.items():
            if FAILURE in plan_node.targets and i not in out.retried:
                message = batch[i][1]
                failed = replace(message, metadata={**message.metadata, "error": reason})
                back |= self._send(at, plan_node, FAILURE, [(i, failed)], batch, reason)
        return back

    def _ends(
        self, plan_node: PlanNode, batch: list[Placed], out: Outcomes, told: set[int], resumed: Resumed | None
    ) -> set[int]:
        """Deal with everything but emissions; the indexes whose emissions and effects fall away."""
        gone: set[int] = set()
        self._retries(plan_node, batch, out, gone, resumed)
        for i, (position, message) in enumerate(batch):
            if i in gone:
                continue
            if i in out.failed:
                gone.add(i)
                if FAILURE not in plan_node.targets:
                    self.ends.dead(position, message, plan_node, out.failed[i], resumed)
            elif i in out.parked:
                self.ends.park(position, message, plan_node, out.parked[i])
            elif i in out.discarded:
                self.ends.step(position, message, plan_node, DISCARDED, out.discarded[i])
            elif i not in told:
                gone.add(i)
                self.ends.dead(position, message, plan_node, "node gave no outcome", resumed)
        return gone

    def _retries(
        self, plan_node: PlanNode, batch: list[Placed], out: Outcomes, gone: set[int], resumed: Resumed | None
    ) -> None:
        """Open lanes for what is to be retried; the originator's later messages here join behind."""
        if not out.retried:
            return
        held: set[str] = set()
        for i, (position, message) in enumerate(batch):
            retry = out.retried.get(i)
            if message.originator in held:
                self.ends.lane(position, LaneItem(replace(message, node=plan_node.name), resumed), "")
                out.failed.pop(i, None)
                out.parked.pop(i, None)
                gone.add(i)
            elif retry is not None:
                key = (position, message.copy, plan_node.name)
                attempts, since_ms = self.attempts.get(key, (0, self.view.now_ms))
                attempts += 1
                if position in self.last_try:
                    out.failed[i] = f"too many wait behind it: {retry.reason}"
                elif plan_node.retry.exhausted(attempts, self.view.now_ms - since_ms):
                    out.failed[i] = f"gave up after {attempts} attempts: {retry.reason}"
                if i in out.failed:
                    del out.retried[i]
                    continue
                held.add(message.originator)
                self.held.add(message.originator)
                self.effects.retry_after_s[message.originator] = retry.after_s
                waiting = replace(message, node=plan_node.name)
                self.ends.lane(position, LaneItem(waiting, resumed, attempts, since_ms), retry.reason)
                self.ends.step(position, message, plan_node, RETRIED, retry.reason)
                metrics.RETRIES.labels(plan_node.node.spec.kind).inc()
                gone.add(i)

    def _collect(self, batch: list[Placed], out: Outcomes) -> None:
        if out.points:
            self.effects.points += [(batch[i][0], point) for i, point in out.points]
        for i, effect in out.effects:
            position, message = batch[i]
            self.effects.effects.append((position, message, effect))
            if isinstance(effect, Write):
                self.view.put(message.originator, effect.table, effect.field, effect.value)

    def _send(
        self, at: int, plan_node: PlanNode, relation: str, pairs: list[Placed], batch: list[Placed], error: str = ""
    ) -> bool:
        """Put messages into the inboxes behind a relation; several connections make copies."""
        targets = plan_node.targets.get(relation)
        if self.trace:
            for i, message in pairs:
                self.ends.step(batch[i][0], message, plan_node, relation, error)
                if not targets:
                    self.ends.step(batch[i][0], message, plan_node, ENDED, "")
        if not targets:
            return False
        back = False
        placed = [(batch[i][0], message) for i, message in pairs]
        for copy, target in enumerate(targets):
            mine = [(position, _named(message, f"{at}-{copy}")) for position, message in placed] if copy else placed
            if target <= at:
                back = True
                mine = self._hop(mine, plan_node)
            inbox = self.inboxes[target]
            if inbox:
                self.mixed[target] = True
                inbox += mine
            else:
                self.inboxes[target] = list(mine)
        return back

    def _hop(self, placed: list[Placed], plan_node: PlanNode) -> list[Placed]:
        """Messages that go back to an earlier node count a hop."""
        hopped = []
        for position, message in placed:
            if message.hops >= MAX_HOPS:
                self.ends.dead(position, message, plan_node, f"loop: came back more than {MAX_HOPS} times")
            else:
                hopped.append((position, replace(message, hops=message.hops + 1)))
        return hopped

    def _put(self, where: int, position: int, message: Message) -> None:
        inbox = self.inboxes[where]
        if inbox and inbox[-1][0] > position:
            self.mixed[where] = True
        inbox.append((position, message))

    def _count(self, plan_node: PlanNode, messages: int, started: float) -> None:
        kind = plan_node.node.spec.kind
        metrics.RUN_S.labels(kind).inc(time.perf_counter() - started)
        metrics.RUN_MESSAGES.labels(kind).inc(messages)


def _position(placed: Placed) -> int:
    return placed[0]


def _reason(plan_node: PlanNode, error: Exception) -> str:
    """What the operator reads: our own errors speak for themselves, others are named."""
    if type(error).__module__.startswith(("engine.", "nodes.")):
        return str(error)
    log.error("node %s: %s: %s", plan_node.name, type(error).__name__, error)
    return f"{type(error).__name__}: {error}"


def _number_copies(at: int, emitted: dict[str, list[Placed]]) -> dict[str, list[Placed]]:
    """A node that made several messages of one, or sent one along several relations: each becomes a copy of its own."""
    seen: dict[int, int] = {}
    numbered: dict[str, list[Placed]] = {}
    for relation, pairs in emitted.items():
        mine = numbered[relation] = []
        for i, message in pairs:
            count = seen.get(i, 0)
            seen[i] = count + 1
            mine.append((i, _named(message, f"{at}m{count}") if count else message))
    return numbered


def _named(message: Message, way: str) -> Message:
    """A copy of a message, named for the way it took; a loop takes the same way again, but never at the same hop."""
    return replace(message, copy=f"{message.copy}.{way}{f'h{message.hops}' if message.hops else ''}")


def _move(single: Outcomes, out: Outcomes, i: int) -> None:
    """Carry the outcomes of a batch of one over to index `i` of a larger one."""
    for relation, pairs in single.emitted.items():
        for _, message in pairs:
            out.emit(i, relation, message)
    out.points += [(i, point) for _, point in single.points]
    out.effects += [(i, effect) for _, effect in single.effects]
    if single.failed:
        out.failed[i] = single.failed[0]
    if single.retried:
        out.retried[i] = single.retried[0]
    if single.discarded:
        out.discarded[i] = single.discarded[0]
    if single.parked:
        out.parked[i] = single.parked[0]
