"""The runner by itself: every copy of a message ends exactly once, in order, and a failure belongs to its message."""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from redis.exceptions import ConnectionError as RedisConnectionError

from engine.effects import DISCARDED, ENDED, Effects
from engine.entries import Item
from engine.errors import StateUnavailable
from engine.message import MAX_HOPS, Message, now_ms
from engine.node import Context, Node, NodeSpec, Resumed
from engine.outcomes import FAILURE, Outcomes, Park, Write
from engine.plan import DEFAULT_RETRY, Plan
from engine.runner import run
from engine.view import View
from tests.engine.toy import Call, Do, message, plan, spec

ACTIONS = ("a", "b", "both", "twice", "none", "discard", "fail", "raise", "park")


async def _nothing(tenant: str, fields: Sequence[Any]) -> list[None]:
    return [None] * len(fields)


def view() -> View:
    return View("acme", _nothing)


def items(*messages: Message) -> list[tuple[int, Item]]:
    return [(position, Item(made)) for position, made in enumerate(messages)]


def start(plan: Plan, placed: Sequence[tuple[int, Item]], **options: Any) -> Effects:
    return asyncio.run(run(plan, placed, view(), **options))


class Dice(Node):
    """Does with each message what its id and the node's number say, and notes what it was given."""

    spec: ClassVar[NodeSpec] = spec("dice", "a", "b", parks=True)

    def __init__(self, number: int, actions: Sequence[str]) -> None:
        self.number, self.actions = number, actions
        self.given: list[list[Message]] = []

    def action(self, id: str) -> str:
        return self.actions[zlib.crc32(f"{self.number} {id}".encode()) % len(self.actions)]

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        todo = [self.action(one.id) for one in batch]
        if "raise" in todo:
            raise ValueError("a bad die")
        self.given.append(list(batch))
        for i, (one, action) in enumerate(zip(batch, todo, strict=True)):
            if action == "twice":
                out.emit(i, "a", one)
                out.emit(i, "a", replace(one, type="second"))
            elif action in ("a", "b", "both"):
                for relation in ("a", "b"):
                    if action in (relation, "both"):
                        out.emit(i, relation, one)
            elif action == "discard":
                out.discard(i)
            elif action == "fail":
                out.fail(i, "failed")
            elif action == "park":
                out.park(i, Park(0))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(1, 6))
    nodes = []
    for i in range(count):
        later = [str(n) for n in range(i + 1, count)]
        to = {
            relation: draw(st.lists(st.sampled_from(later), max_size=3, unique=True)) if later else []
            for relation in ("a", "b", FAILURE)
        }
        actions = draw(st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=4))
        nodes.append((str(i), Dice(i, actions), {relation: found for relation, found in to.items() if found}))
    return plan(*nodes)


def ends_of(made: Plan, id: str, where: int = 0) -> Counter[tuple[str, str, str]]:
    """What must become of one message, by walking the plan for it alone: (id, node, end) and how often."""
    place = made.nodes[where]
    action = place.node.action(id)
    if action in ("fail", "raise", "none") and (action == "none" or FAILURE not in place.targets):
        return Counter([(id, place.name, "dead")])
    if action in ("discard", "park"):
        return Counter([(id, place.name, action)])
    if action in ("fail", "raise"):
        relations = [FAILURE]
    else:
        relations = {"both": ["a", "b"], "twice": ["a", "a"]}.get(action, [action])
    ends: Counter[tuple[str, str, str]] = Counter()
    for relation in relations:
        targets = place.targets.get(relation, [])
        if not targets:
            ends[id, place.name, "end"] += 1
        for target in targets:
            ends += ends_of(made, id, target)
    return ends


def tokens(effects: Effects) -> list[tuple[str, str, str, str]]:
    """Every end: (message id, copy, node, what)."""
    ends = [(letter.message.id, letter.message.copy, letter.node, "dead") for _, letter in effects.dead]
    ends += [(p.message.id, p.message.copy, p.message.node, "park") for _, p in effects.parked]
    for _, step in effects.steps:
        if step.relation in (ENDED, DISCARDED):
            what = "end" if step.relation == ENDED else "discard"
            ends.append((step.message.id, step.message.copy, step.node, what))
    return ends


@settings(max_examples=300, deadline=None)
@given(plans(), st.integers(1, 12))
def test_every_copy_ends_exactly_once_where_it_would_alone(made: Plan, count: int) -> None:
    batch = [message(f"d{n % 3}", id=f"m{n}") for n in range(count)]
    ends = tokens(start(made, items(*batch), trace=True))
    expected: Counter[tuple[str, str, str]] = Counter()
    for one in batch:
        expected += ends_of(made, one.id)
    assert Counter((id, node, what) for id, _, node, what in ends) == expected
    copies = Counter((id, copy) for id, copy, _, _ in ends)
    assert max(copies.values()) == 1, "two copies bear one name"


@settings(max_examples=300, deadline=None)
@given(plans(), st.integers(1, 12))
def test_every_node_sees_messages_as_they_arrived(made: Plan, count: int) -> None:
    batch = [message(f"d{n % 3}", id=f"m{n}") for n in range(count)]
    position = {one.id: n for n, one in enumerate(batch)}
    start(made, items(*batch))
    for place in made.nodes:
        if "raise" in {place.node.action(one.id) for one in batch}:
            continue  # asked one by one: each call is a batch of its own
        assert len(place.node.given) <= 1, "without cycles a node is called once a batch"
        for given_batch in place.node.given:
            order = [position[one.id] for one in given_batch]
            assert order == sorted(order)
            names = [(one.id, one.copy) for one in given_batch]
            assert len(set(names)) == len(names)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["ok", "raise", "fail"]), min_size=1, max_size=20))
def test_a_failure_belongs_to_its_message_with_its_effects(todo: list[str]) -> None:
    def act(i: int, m: Message, out: Outcomes, ctx: Context) -> None:
        what = todo[m.data["n"]]
        out.effect(i, Write("attr", f"f{m.data['n']}", b"1"))
        if what == "raise":
            raise ZeroDivisionError(str(m.data["n"]))
        out.emit(i, "Success", m)
        if what == "fail":
            out.fail(i, "no")

    effects = start(plan(("act", Do(act), {})), items(*[message("d", {"n": n}) for n in range(len(todo))]))
    bad = [n for n, what in enumerate(todo) if what != "ok"]
    assert sorted(position for position, _ in effects.dead) == bad
    written = [effect.field for _, _, effect in effects.effects]
    assert sorted(written) == sorted(f"f{n}" for n, what in enumerate(todo) if what == "ok")


class Counting(Node):
    """Adds one to a field of the originator's state."""

    spec: ClassVar[NodeSpec] = spec("counting")

    def __init__(self) -> None:
        pass

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        await ctx.load((one.originator, "attr", "n") for one in batch)
        for i, one in enumerate(batch):
            seen = int(ctx.get(one.originator, "attr", "n") or 0)
            out.effect(i, Write("attr", "n", b"%d" % (seen + 1)))
            out.emit(i, "Success", one)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=20))
def test_rounds_see_the_writes_of_the_round_before(devices: list[str]) -> None:
    made = plan(("count", Counting(), {"Success": ["again"]}), ("again", Counting(), {}), rounds=True)
    effects = start(made, items(*[message(device) for device in devices]))
    last: dict[str, int] = {}
    for _, one, effect in effects.effects:
        last[one.originator] = max(last.get(one.originator, 0), int(effect.value))
    assert last == {device: 2 * count for device, count in Counter(devices).items()}


def test_a_loop_through_a_parking_node_ends_at_its_limit() -> None:
    made = plan(("wait", Waiting(), {"timer": ["wait"]}))
    [(_, parked)] = start(made, items(message("d"))).parked
    assert parked.message.hops == 1
    times = 0
    while True:
        effects = start(made, [(0, Item(parked.message, Resumed("timer")))])
        if effects.dead:
            break
        [(_, parked)] = effects.parked
        times += 1
        assert times <= MAX_HOPS
    assert effects.parked == []
    assert "loop" in effects.dead[0][1].reason


class Waiting(Node):
    """Parks whatever it is given, for as long as its data says."""

    spec: ClassVar[NodeSpec] = spec("waiting", "timer", parks=True)

    def __init__(self, ms: int = 0) -> None:
        self.ms = ms

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        for i, _ in enumerate(batch):
            out.park(i, Park(self.ms))

    async def resume(self, i: int, message: Message, resumed: Resumed, out: Outcomes, ctx: Context) -> None:
        out.emit(i, "timer", message)


def test_what_is_parked_at_the_same_time_has_different_names() -> None:
    """A loop makes a copy each time round; a slow way and a fast way may hold copies of several rounds at once."""
    by_round = Do(lambda i, m, out, ctx: out.emit(i, "slow" if m.hops < 3 else "fast", m))
    made = plan(
        ("fork", Do(lambda i, m, out, ctx: out.emit(i, "Success", m)), {"Success": ["again", "first"]}),
        ("again", Waiting(1), {"timer": ["fork"]}),
        ("first", Waiting(1), {"timer": ["which"]}),
        ("which", by_round, {"slow": ["second"], "fast": ["last"]}),
        ("second", Waiting(3), {"timer": ["third"]}),
        ("third", Waiting(1), {"timer": ["last"]}),
        ("last", Waiting(99), {}),
    )
    waiting: dict[str, tuple[int, Message]] = {}
    todo = items(message("d", id="m"))
    for clock in range(12):
        for _, parked in start(made, todo).parked:
            name = f"{parked.message.id}{parked.message.copy}:{parked.message.hops}"
            assert name not in waiting, "one parked message would overwrite another"
            waiting[name] = (clock + parked.due_ms, parked.message)
        due = [name for name, (until, _) in waiting.items() if until <= clock]
        todo = [(n, Item(waiting.pop(name)[1], Resumed("timer"))) for n, name in enumerate(due)]
    assert len([1 for until, _ in waiting.values() if until > 90]) >= 3


def test_an_item_goes_on_at_its_node_and_says_so_when_that_is_gone() -> None:
    seen: list[str] = []
    note = Do(lambda i, m, out, ctx: (seen.append(m.id), out.discard(i))[1])
    made = plan(("start", Do(lambda i, m, out, ctx: out.fail(i, "not here")), {}), ("note", note, {}))
    effects = start(made, items(message("d", id="1", node="note"), message("d", id="2", node="gone")))
    assert seen == ["1"]
    assert [(letter.message.id, letter.reason) for _, letter in effects.dead] == [
        ("2", "no node 'gone' in deployment 1")
    ]


def test_a_retry_holds_the_later_messages_of_its_device_at_the_node() -> None:
    def gate(i: int, m: Message, out: Outcomes, ctx: Context) -> None:
        if m.id == "a1":
            out.retry(i, "closed")
        elif m.id == "a2":
            out.fail(i, "broken")
        else:
            out.emit(i, "Success", m)

    batch = [message(name[0], id=name) for name in ("a0", "a1", "b1", "a2", "a3", "b2")]
    effects = start(plan(("gate", Do(gate), {})), items(*batch), trace=True)
    assert [item.message.id for _, item, _ in effects.lanes] == ["a1", "a2", "a3"]
    assert [item.message.node for _, item, _ in effects.lanes] == ["gate"] * 3
    assert effects.dead == []
    assert [id for id, _, _, what in tokens(effects) if what == "end"] == ["a0", "b1", "b2"]


def test_a_retry_at_its_limit_fails_and_lets_the_next_one_try() -> None:
    gate = Do(lambda i, m, out, ctx: out.retry(i, "closed"))
    first = Item(message("a", id="1", node="gate"), None, DEFAULT_RETRY.attempts - 1, now_ms())
    effects = start(plan(("gate", gate, {})), [(0, first), (1, Item(message("a", id="2")))])
    assert [letter.message.id for _, letter in effects.dead] == ["1"]
    assert [(item.message.id, item.attempts) for _, item, _ in effects.lanes] == [("2", 1)]


def test_calls_beyond_the_outbox_fail_and_leave_by_failure() -> None:
    made = plan(
        ("post", Call(lambda m, ctx: []), {FAILURE: ["note"]}), ("note", Do(lambda i, m, out, ctx: out.discard(i)), {})
    )
    effects = start(made, items(*[message("d", id=str(n)) for n in range(5)]), room=lambda node: 2, trace=True)
    assert [parked.message.id for _, parked in effects.parked] == ["0", "1"]
    assert [id for id, _, _, what in tokens(effects) if what == "discard"] == ["2", "3", "4"]


def test_a_message_without_any_outcome_is_a_dead_letter() -> None:
    effects = start(plan(("mute", Do(lambda i, m, out, ctx: None), {})), items(message("d")))
    assert effects.dead[0][1].reason == "node gave no outcome"


@pytest.mark.parametrize("failing", ["load", "product"])
def test_state_that_cannot_be_read_is_nobodys_failure(failing: str) -> None:
    """Redis went away under a node: the batch is to be run again, no message may pay for it."""

    async def gone(*_: Any) -> Any:
        raise RedisConnectionError("gone")

    async def read(i: int, m: Message, out: Outcomes, ctx: Context) -> None:
        await (ctx.load([(m.originator, "attr", "n")]) if failing == "load" else ctx.product("p"))
        out.discard(i)

    broken = View("acme", gone, product=gone)
    with pytest.raises(StateUnavailable):
        asyncio.run(run(plan(("read", Do(read), {})), items(message("d"), message("e")), broken))
