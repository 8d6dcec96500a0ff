"""Runs test cases of chains: real nodes under a virtual clock, with no server, no store and no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from chains.cases import Answer, Called, Case, Event, Given
from chains.comparison import compare
from chains.model import pointer
from engine.effects import ENDED, Effects, ParkRequest
from engine.entries import Item, LaneItem
from engine.errors import BadInput, Finding
from engine.message import Message, Point
from engine.node import Product, Resumed
from engine.outcomes import Broadcast, Command, Reply, Write
from engine.plan import Plan
from engine.runner import run
from engine.stores import alarms, attributes
from engine.view import Field, View

RETRY_S: Final = 1.0
"""Delay of a retry whose node does not say when."""

MAX_RUNS: Final = 10_000
"""A case that takes more turns goes round for ever."""


@dataclass(slots=True)
class Outcome:
    """Everything that a case did, as plain data; `attributes` and `alarms` are the state at its end."""

    points: list[dict[str, Any]] = field(default_factory=list)
    attributes: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    alarms: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    replies: list[dict[str, Any]] = field(default_factory=list)
    broadcasts: list[dict[str, Any]] = field(default_factory=list)
    commands: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    trace: list[tuple[str, str]] = field(default_factory=list)
    dead: list[dict[str, Any]] = field(default_factory=list)
    waiting: int = 0

    @property
    def relations(self) -> dict[str, list[str]]:
        """Node to the relations that messages left it by."""
        found: dict[str, list[str]] = {}
        for node, relation in self.trace:
            found.setdefault(node, []).append(relation)
        return found


@dataclass(slots=True)
class Report:
    """How a case went: it holds if there are no `findings`; their pointers are into the case."""

    case: str
    outcome: Outcome
    findings: list[Finding]


async def run_case(plan: Plan, case: Case) -> Report:
    """Run one case through a plan and compare. What the case asks for but cannot happen is a finding as well."""
    bench = _Bench(plan, case)
    findings = []
    try:
        await bench.arrive(case.messages)
    except BadInput as error:
        findings.append(Finding("/messages" + error.pointer, error.reason))
    for i, event in enumerate(case.then if not findings else ()):
        try:
            await bench.happen(event)
        except BadInput as error:
            findings.append(Finding(pointer("then", i) + error.pointer, error.reason))
            break
    outcome = bench.ended()
    for name in case.expect.__struct_fields__:
        expected = getattr(case.expect, name)
        if expected is not None:
            findings += compare(expected, getattr(outcome, name), pointer("expect", name))
    return Report(case.name, outcome, findings)


class _Bench:
    """One case under way: its clock, its state, and what waits."""

    def __init__(self, plan: Plan, case: Case) -> None:
        self.plan = plan
        self.root = plan.nodes[plan.start].name.partition("/")[0]
        self.now_ms = case.now_ms
        self.secrets = case.state.secrets
        self.products = {
            id: Product(id=id, tenant=plan.tenant, facets=facets) for id, facets in case.state.products.items()
        }
        self.state = _state(plan.tenant, case)
        self.parked: list[ParkRequest] = []
        self.lanes: dict[str, tuple[float, list[LaneItem]]] = {}
        self.outcome = Outcome()
        self.count = 0

    async def arrive(self, given: Sequence[Given]) -> None:
        """Messages come in together; those of a device whose lane is open wait at its end."""
        items = []
        for i, one in enumerate(given):
            message = self._message(i, one)
            if message.originator in self.lanes:
                self.lanes[message.originator][1].append(LaneItem(message))
            else:
                items.append(Item(message))
        await self._run(items)

    async def happen(self, event: Event) -> None:
        """What comes after; BadInput if nothing waits for it."""
        if event.messages is not None:
            await self.arrive(event.messages)
        elif event.answer is not None:
            await self._answer(event.answer)
        elif event.called is not None:
            await self._called(event.called)
        else:
            await self._pass(int((event.after_s or 0) * 1000))

    def ended(self) -> Outcome:
        """The outcome, with the state as it is now."""
        outcome = self.outcome
        tables: dict[str, dict[str, dict[str, bytes]]] = {attributes.TABLE: {}, alarms.TABLE: {}}
        for (originator, table, name), value in self.state.items():
            if value is not None and table in tables:
                tables[table].setdefault(originator, {})[name] = value
        for device, fields in tables[attributes.TABLE].items():
            outcome.attributes[device] = {
                scope: {key: attribute.value for key, attribute in found.items()}
                for scope, found in attributes.by_scope(fields).items()
            }
        for device, fields in tables[alarms.TABLE].items():
            outcome.alarms[device] = [alarms.as_json(alarm) for alarm in alarms.visible(fields)]
        outcome.waiting = len(self.parked) + sum(len(items) for _, items in self.lanes.values())
        return outcome

    def _message(self, i: int, given: Given) -> Message:
        self.count += 1
        data = given.data
        if given.raw_b64 is not None:
            try:
                data = base64.b64decode(given.raw_b64, validate=True)
            except ValueError as error:
                raise BadInput(f"is no base64: {error}", pointer(i, "raw_b64")) from error
        return Message(
            id=f"case-{self.count}",
            ts_ms=self.now_ms if given.ts_ms is None else given.ts_ms,
            tenant=self.plan.tenant,
            type=given.type,
            originator=given.originator,
            data=data,
            metadata=given.metadata,
            reply_to=f"case/{self.count}" if given.waits else "",
        )

    async def _run(self, items: Sequence[Item]) -> None:
        self.count += 1
        secret = self.secrets.get
        view = View(self.plan.tenant, self._load, product=self._product, secret=secret, now=self.now_ms)
        effects = await run(self.plan, list(enumerate(items)), view, trace=True)
        self._keep(effects)

    async def _load(self, tenant: str, wanted: Sequence[Field]) -> Sequence[bytes | None]:
        return [self.state.get(field) for field in wanted]

    async def _product(self, id: str) -> Product | None:
        return self.products.get(id)

    def _keep(self, effects: Effects) -> None:
        outcome = self.outcome
        outcome.points += [
            {name: value for name, value in msgspec.structs.asdict(point).items() if name != "tenant"}
            for _, point in sorted(effects.points, key=_place)
        ]
        for _, message, effect in effects.effects:
            if isinstance(effect, Write):
                self.state[message.originator, effect.table, effect.field] = effect.value
            elif isinstance(effect, Reply):
                outcome.replies.append({"data": effect.data, "error": effect.error})
            elif isinstance(effect, Broadcast):
                told = {"originator": message.originator, "ts_ms": effect.ts_ms, "values": effect.values}
                outcome.broadcasts.append(told)
            elif isinstance(effect, Command):
                self._command(message, effect)
        for _, request in effects.parked:
            self.parked.append(request)
            message = request.message
            if request.command is not None:
                self._command(message, request.command)
            if request.kind == "call":
                call = {"node": self._short(message.node), "originator": message.originator, "type": message.type}
                outcome.calls.append({**call, "data": message.data, "metadata": message.metadata})
        for _, item, _ in effects.lanes:
            originator = item.message.originator
            if originator not in self.lanes:
                after_s = effects.retry_after_s.get(originator)
                self.lanes[originator] = (self.now_ms + 1000 * (RETRY_S if after_s is None else after_s), [])
            self.lanes[originator][1].append(item)
        for _, letter in effects.dead:
            node = self._short(letter.node)
            outcome.dead.append({"node": node, "reason": letter.reason, "data": letter.message.data})
        outcome.trace += [
            (self._short(step.node), step.relation) for _, step in effects.steps if step.relation != ENDED
        ]

    def _command(self, message: Message, command: Command) -> None:
        told = {"name": command.name, "payload": command.payload, "oneway": command.oneway}
        self.outcome.commands.append({"originator": message.originator, **told, "expires_ms": command.expires_ms})

    def _short(self, path: str) -> str:
        """Nodes of the root chain by their own name, those of called chains by the way there."""
        return path.removeprefix(self.root + "/")

    async def _answer(self, answer: Answer) -> None:
        for request in self.parked:
            command, message = request.command, request.message
            if command is not None and (message.originator, command.name) == (answer.originator, answer.command):
                await self._resume(request, Resumed("answer", answer.data, answer.error))
                return
        raise BadInput(f"no command {answer.command!r} waits for {answer.originator!r} to answer", "/answer")

    async def _called(self, called: Called) -> None:
        for request in self.parked:
            message = request.message
            if request.kind != "call" or self._short(message.node) != called.node:
                continue
            body = [
                [
                    emitted.relation,
                    replace(
                        message,
                        data=message.data if emitted.data is msgspec.UNSET else emitted.data,
                        metadata={**message.metadata, **emitted.metadata},
                        type=emitted.type or message.type,
                    ),
                ]
                for emitted in called.emits
            ]
            await self._resume(request, Resumed("call", body or None, called.error))
            return
        raise BadInput(f"no call of {called.node!r} is under way", "/called")

    async def _resume(self, request: ParkRequest, resumed: Resumed) -> None:
        self.parked.remove(request)
        await self._run([Item(request.message, resumed)])

    async def _pass(self, for_ms: int) -> None:
        until = self.now_ms + for_ms
        while True:
            timers = [(request.due_ms, i) for i, request in enumerate(self.parked) if request.kind != "call"]
            retries = [(due_ms, originator) for originator, (due_ms, _) in self.lanes.items()]
            due = min((due for due, _ in [*timers, *retries]), default=until + 1)
            if due > until:
                break
            if self.count > MAX_RUNS:
                raise BadInput(f"after {MAX_RUNS} turns there is still something due: the chain goes round", "/after_s")
            self.now_ms = max(self.now_ms, int(due))
            if timers and min(timers)[0] == due:
                await self._resume(self.parked[min(timers)[1]], Resumed("timer"))
            else:
                _, items = self.lanes.pop(min(retries)[1])
                await self._run([Item(*msgspec.structs.astuple(item)) for item in items])
        self.now_ms = until


def _place(placed: tuple[int, Point]) -> tuple[int, str, int, str]:
    """Messages in their order, keys by name: a script's tables have no order that a test could rely on."""
    position, point = placed
    return position, point.device, point.ts_ms, point.key


def _state(tenant: str, case: Case) -> dict[Field, bytes | None]:
    state: dict[Field, bytes | None] = {}
    for device, scopes in case.state.attributes.items():
        for scope, values in scopes.items():
            for key, value in values.items():
                state[device, attributes.TABLE, attributes.field(scope, key)] = attributes.encode(value, case.now_ms)
    for device, given in case.state.alarms.items():
        for i, one in enumerate(given):
            alarm = alarms.Alarm(
                id=f"alarm-{i + 1}",
                tenant=tenant,
                device=device,
                type=one.type,
                severity=one.severity,
                start_ms=case.now_ms,
                end_ms=case.now_ms,
                details=one.details,
            )
            state[device, alarms.TABLE, alarms.active_field(one.type)] = alarms.encode(alarm)
            if one.acked:
                mark = alarms.Mark(alarm.id, case.now_ms)
                state[device, alarms.TABLE, alarms.acked_field(one.type)] = alarms.encode(mark)
    return state
