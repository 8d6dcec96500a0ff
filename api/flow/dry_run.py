"""Dry run: one message through a chain, with given state, and everything it would do; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from api.flow.messages import data_of
from api.flow.operation import BASE, Answer, Call, Operation, Parts
from api.flow.point_queries import PointShown, shown
from api.flow.tailing import shown_data
from chains.cases import START_MS, Given, State
from chains.compiler import compile_tenant
from chains.model import CALL, read_chain
from engine.effects import Effects, Step
from engine.entries import Item
from engine.errors import BadInput, NotFound
from engine.message import Message, new_id, now_ms
from engine.node import CallNode, Product
from engine.outcomes import Broadcast, Command, Effect, Hint, Index, Reply, Write
from engine.plan import Plan
from engine.runner import run
from engine.stores import alarms, attributes
from engine.view import Field, View

WRAPPER: Final = "dry run"


class DryRunBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to run. Without `chain` and `document`: the root of what is deployed."""

    message: Given
    chain: Annotated[str | None, Meta(description="A saved chain.")] = None
    version: Annotated[int | None, Meta(description="Of that chain; the latest by default.")] = None
    document: Annotated[dict[str, Any] | None, Meta(description="A chain document that need not be saved.")] = None
    state: Annotated[State, Meta(description="What the server knows; products not given are the tenant's.")] = State()


class StepShown(msgspec.Struct, frozen=True, kw_only=True):
    """What one node did with the message that came in."""

    node: str
    kind: str
    relation: Annotated[str, Meta(description="The label it left by; in capitals: how it ended there.")]
    error: str
    type: str
    data: Any
    metadata: dict[str, str]


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the message would have done."""

    steps: list[StepShown]
    points: list[PointShown]
    attributes: Annotated[dict[str, dict[str, Any]], Meta(description="Scope to key to value, those written.")]
    alarms: Annotated[list[dict[str, Any]], Meta(description="The device's alarms afterwards.")]
    replies: list[dict[str, Any]]
    commands: list[dict[str, Any]]
    broadcasts: Annotated[list[dict[str, Any]], Meta(description="What live subscribers would have been told.")]
    hints: Annotated[list[dict[str, Any]], Meta(description="What connected devices would have been told.")]
    parked: Annotated[list[dict[str, Any]], Meta(description="Where it waits: for a call, a timer or an answer.")]
    dead: Annotated[list[dict[str, Any]], Meta(description="Dead letters.")]
    retried: Annotated[list[dict[str, Any]], Meta(description="Where it would be tried again.")]


async def dry_run(parts: Parts, call: Call) -> Answer:
    """Run the message up to where it ends or waits."""
    body: DryRunBody = call.body
    message = _message(call.tenant, body.message)
    root, documents = await _documents(parts, call.tenant, body)
    plan = await _plan(parts, call.tenant, root, documents, body.state)
    try:
        state = _state(call.tenant, body.state, message.ts_ms)
        view = await _view(parts, call.tenant, body.state, state)
        effects = await run(plan, [(0, Item(message))], view, trace=True)
        return Answer(200, _shown(effects, state, message.originator, root))
    finally:
        for node in {id(place.node): place.node for place in plan.nodes}.values():
            if isinstance(node, CallNode):
                await node.close()


def _message(tenant: str, given: Given) -> Message:
    return Message(
        id=new_id(), ts_ms=now_ms() if given.ts_ms is None else given.ts_ms, tenant=tenant, type=given.type,
        originator=given.originator, data=data_of(given.data, given.raw_b64, "/message"), metadata=given.metadata,
        reply_to="dry/run" if given.waits else "",
    )  # fmt: skip


async def _documents(parts: Parts, tenant: str, body: DryRunBody) -> tuple[str, dict[str, tuple[int, dict[str, Any]]]]:
    """The chain to start in, and every chain it may call: as deployed, else the latest."""
    if body.chain is not None and body.document is not None:
        raise BadInput("give either chain or document, not both", "/document")
    if body.version is not None and body.chain is None:
        raise BadInput("a version needs a chain", "/version")
    current = await parts.repository.current(tenant)
    documents = {}
    for info in await parts.repository.list(tenant):
        version = info.deployed or info.latest
        documents[info.name] = await parts.repository.get(tenant, info.name, version)
    if body.document is not None:
        name = body.document.get("chain")
        if not isinstance(name, str):
            raise BadInput("the key 'chain' is missing, or it is no text", "/document")
        documents[name] = (0, body.document)
        return name, documents
    if body.chain is not None:
        documents[body.chain] = await parts.repository.get(tenant, body.chain, body.version)
        return body.chain, documents
    if current is None:
        raise NotFound("deployment", "current")
    return current.root, documents


async def _plan(
    parts: Parts, tenant: str, root: str, documents: dict[str, tuple[int, dict[str, Any]]], given: State
) -> Plan:
    real = await parts.registry.secrets(tenant)

    def secret(name: str) -> str | None:
        # What a chain makes of a secret would stand in the answer: its real value stays here.
        return given.secrets.get(name, "(secret)" if name in real else None)

    if any(read_chain(documents[root][1]).outputs()):
        wrapper = {"chain": WRAPPER, "start": root, "nodes": {root: {"kind": CALL, "config": {"chain": root}}}}
        documents = {**documents, WRAPPER: (0, wrapper)}
        root = WRAPPER
    return compile_tenant(tenant, 0, root, documents, parts.catalogue, secrets=secret)


async def _view(parts: Parts, tenant: str, given: State, state: Mapping[Field, bytes | None]) -> View:
    real = await parts.registry.secrets(tenant)

    async def load(tenant: str, wanted: Sequence[Field]) -> list[bytes | None]:
        return [state.get(field) for field in wanted]

    async def product(id: str) -> Product | None:
        if id in given.products:
            return Product(id=id, tenant=tenant, facets=given.products[id])
        try:
            return await parts.registry.product(tenant, id)
        except NotFound:
            return None

    def secret(name: str) -> str | None:
        return given.secrets.get(name, "(secret)" if name in real else None)

    return View(tenant, load, product=product, secret=secret)


def _state(tenant: str, given: State, at_ms: int) -> dict[Field, bytes | None]:
    state: dict[Field, bytes | None] = {}
    for device, scopes in given.attributes.items():
        for scope, values in scopes.items():
            for key, value in values.items():
                name = attributes.field(scope, key)
                state[device, attributes.TABLE, name] = attributes.encode(value, at_ms)
    for device, active in given.alarms.items():
        for i, one in enumerate(active):
            alarm = alarms.Alarm(
                id=f"alarm-{i + 1}", tenant=tenant, device=device, type=one.type, severity=one.severity,
                start_ms=START_MS, end_ms=START_MS, acked_ms=START_MS if one.acked else 0, details=one.details,
            )  # fmt: skip
            state[device, alarms.TABLE, alarms.active_field(one.type)] = alarms.encode(alarm)
    return state


def _shown(effects: Effects, state: dict[Field, bytes | None], originator: str, root: str) -> DryRun:
    written: dict[str, dict[str, Any]] = {}
    made: dict[str, list[dict[str, Any]]] = {"replies": [], "commands": [], "broadcasts": [], "hints": []}
    for _, message, effect in effects.effects:
        _sort(message, effect, state, written, made)
    fields = {
        name: value
        for (device, table, name), value in state.items()
        if table == alarms.TABLE and device == originator and value is not None
    }
    parked = []
    for _, request in effects.parked:
        node, data = _short(request.message.node, root), shown_data(request.message.data)
        parked.append({"node": node, "waits_for": request.kind, "due_ms": request.due_ms, "data": data})
        if request.command is not None:
            made["commands"].append(_command(request.message, request.command))
    return DryRun(
        steps=[_step(step, root) for _, step in effects.steps],
        points=[shown(point) for _, point in effects.points],
        attributes=written,
        alarms=[alarms.as_json(alarm) for alarm in alarms.visible(fields)],
        parked=parked,
        dead=[
            {"node": _short(letter.node, root), "reason": letter.reason, "data": shown_data(letter.message.data)}
            for _, letter in effects.dead
        ],
        retried=[{"node": _short(item.message.node, root), "reason": reason} for _, item, reason in effects.lanes],
        **made,
    )


def _sort(
    message: Message,
    effect: Effect,
    state: dict[Field, bytes | None],
    written: dict[str, dict[str, Any]],
    made: dict[str, list[dict[str, Any]]],
) -> None:
    if isinstance(effect, Write):
        state[message.originator, effect.table, effect.field] = effect.value
        if effect.table == attributes.TABLE and effect.value is not None:
            scope, key = attributes.split(effect.field)
            written.setdefault(scope, {})[key] = attributes.decode(effect.value).value
    elif isinstance(effect, Reply):
        made["replies"].append({"data": shown_data(effect.data), "error": effect.error})
    elif isinstance(effect, Command):
        made["commands"].append(_command(message, effect))
    elif isinstance(effect, Broadcast):
        made["broadcasts"].append({"originator": message.originator, "ts_ms": effect.ts_ms, "values": effect.values})
    elif isinstance(effect, Hint):
        made["hints"].append({"kind": effect.kind, "body": effect.body})
    else:
        assert isinstance(effect, Index), "the vocabulary of effects is closed"


def _command(message: Message, command: Command) -> dict[str, Any]:
    return {
        "originator": message.originator, "name": command.name, "payload": command.payload,
        "oneway": command.oneway, "expires_ms": command.expires_ms,
    }  # fmt: skip


def _step(step: Step, root: str) -> StepShown:
    message = step.message
    return StepShown(
        node=_short(step.node, root), kind=step.kind, relation=step.relation, error=step.error,
        type=message.type, data=shown_data(message.data), metadata=message.metadata,
    )  # fmt: skip


def _short(path: str, root: str) -> str:
    """Nodes of the chain that is run by their own name, those of called chains by the way there."""
    return path.removeprefix(f"{WRAPPER}/").removeprefix(f"{root}/")


OPERATIONS: Final = (
    Operation(
        method="POST", path=BASE + "/tenants/{tenant}/dry-run", id="dry_run",
        summary="Run one message through a chain, and write nothing", handler=dry_run, answers={200: DryRun},
        body=DryRunBody,
    ),
)  # fmt: skip
