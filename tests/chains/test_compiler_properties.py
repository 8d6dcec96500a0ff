from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chains.compiler import check_chain, compile_tenant
from engine.errors import InvalidDocument
from engine.plan import Plan
from tests.chains.documents import in_order
from tests.chains.kinds import CATALOGUE

NODES = ["a", "b", "c", "d"]
CHAINS = ["root", "one", "two"]

targets = st.lists(st.sampled_from(NODES), min_size=1, max_size=2, unique=True)
nodes = st.fixed_dictionaries(
    {"kind": st.sampled_from(["step", "delay", "script", "state", "call"])},
    optional={
        "to": st.dictionaries(st.sampled_from(["Success", "Failure"]), targets, max_size=2),
    },
).map(lambda node: node | {"config": {"source": ""}} if node["kind"] == "script" else node)
calls = st.builds(
    lambda chain, to: {"kind": "chain", "config": {"chain": chain}, "to": to},
    st.sampled_from(CHAINS[1:]),
    st.dictionaries(st.sampled_from(NODES), targets, max_size=2),
)
graphs = st.dictionaries(
    st.sampled_from(NODES), st.one_of(nodes, nodes, calls, st.just({"kind": "output"})), min_size=1
)
documents = st.fixed_dictionaries(
    {name: st.builds(lambda nodes, name=name: {"chain": name, "start": "a", "nodes": nodes}, graphs) for name in CHAINS}
)


def outcome(documents: dict[str, Any]) -> Plan | InvalidDocument:
    try:
        return compile_tenant("t", 1, "root", {name: (1, text) for name, text in documents.items()}, CATALOGUE)
    except InvalidDocument as error:
        return error


@given(documents)
def test_chains_become_an_ordered_plan_or_findings(documents: dict[str, Any]) -> None:
    result = outcome(documents)
    alone = check_chain(documents["root"], CATALOGUE, documents)
    if isinstance(result, InvalidDocument):
        assert result.findings
        assert all(pointer == "" or pointer.startswith("/") for pointer, _ in result.findings)
        assert set(alone) <= set(result.findings), "a root chain is held to all that a chain is held to"
    else:
        assert alone == []
        assert in_order(result)
        assert len({node.name for node in result.nodes}) == len(result.nodes)
        assert reachable(result) == set(range(len(result.nodes)))


def reachable(plan: Plan) -> set[int]:
    found, todo = {plan.start}, [plan.start]
    while todo:
        for to in plan.nodes[todo.pop()].targets.values():
            todo += set(to) - found
            found |= set(to)
    return found


def in_a_line(graph: dict[str, Any]) -> dict[str, Any]:
    """The graph with only forward connections, and everything reached: it must hold."""
    names = sorted(graph)
    return {
        name: {"kind": "step", "to": {"Success": names[i + 1]} if i + 1 < len(names) else {}}
        for i, name in enumerate(names)
    }


@given(graphs)
def test_a_line_of_steps_always_compiles(graph: dict[str, Any]) -> None:
    line = in_a_line(graph)
    result = outcome({"root": {"chain": "root", "start": min(line), "nodes": line}})
    assert isinstance(result, Plan), result
    assert [node.name for node in result.nodes] == [f"root/{name}" for name in sorted(line)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(documents, st.data())
def test_any_damage_to_a_document_gives_findings_and_no_crash(documents: dict[str, Any], data: st.DataObject) -> None:
    damaged = json.loads(json.dumps(documents))
    place: Any = damaged["root"]
    while isinstance(place, dict) and place:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or data.draw(st.booleans()):
            place[key] = data.draw(json_values)
            break
        place = place[key]
    result = outcome(damaged)
    assert isinstance(result, Plan) or result.findings
    check_chain(damaged["root"], CATALOGUE)
