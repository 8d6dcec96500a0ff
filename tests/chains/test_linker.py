from __future__ import annotations

import pytest

from tests.chains.documents import call, chain, compiled, edges, findings, in_order, output, root


def test_a_called_chain_is_inlined_under_its_call() -> None:
    plan = compiled(
        root(a={"Success": "climate"}, climate=call("sub", done="end", hot=["end", "alarm"]), end={}, alarm={}),
        chain(
            "sub",
            "x",
            x={"Success": ["y", "done"], "Failure": "z"},
            y={"Success": "out"},
            z={},
            done=output(),
            out=output("hot"),
        ),
    )
    assert edges(plan) == {
        "root/a": {"Success": ["root/climate/x"]},
        "root/climate/x": {"Success": ["root/climate/y", "root/end"], "Failure": ["root/climate/z"]},
        "root/climate/y": {"Success": ["root/end", "root/alarm"]},
        "root/climate/z": {},
        "root/end": {},
        "root/alarm": {},
    }
    assert in_order(plan)
    assert {node.name: (node.chain, node.chain_version) for node in plan.nodes}["root/climate/y"] == ("sub", 2)


def test_a_chain_called_twice_stands_in_the_plan_twice() -> None:
    plan = compiled(
        root(a=call("sub", out="b"), b=call("sub", out="c"), c={}),
        chain("sub", "x", x={"Success": "out"}, out=output()),
    )
    assert edges(plan) == {
        "root/a/x": {"Success": ["root/b/x"]},
        "root/b/x": {"Success": ["root/c"]},
        "root/c": {},
    }
    assert plan.nodes[plan.start].name == "root/a/x"
    assert plan.nodes[0].node is plan.nodes[1].node, "a node is built once for each chain version"


def test_outputs_pass_through_several_chains_and_unwired_ones_end() -> None:
    plan = compiled(
        root(a=call("outer", out="b"), b={}),
        chain("outer", "i", i=call("inner", out="out", other="out"), out=output()),
        chain("inner", "x", x={"Success": ["out", "other", "lost"]}, out=output(), other=output(), lost=output()),
    )
    assert edges(plan) == {"root/a/i/x": {"Success": ["root/b"]}, "root/b": {}}


@pytest.mark.parametrize("kind", ["delay", "call"])
def test_a_loop_through_a_node_that_holds_messages_is_allowed(kind: str) -> None:
    plan = compiled(root(a={"Success": "b"}, b={"kind": kind, "to": {"Success": "a"}}))
    assert [node.name for node in plan.nodes] == ["root/a", "root/b"]
    assert edges(plan)["root/b"] == {"Success": ["root/a"]}


def test_what_follows_a_node_that_holds_messages_comes_after_it() -> None:
    plan = compiled(
        root(a={"Success": "b"}, b={"kind": "delay", "to": {"Success": ["c", "a"]}}, c={"Success": "d"}, d={})
    )
    assert [node.name for node in plan.nodes] == ["root/a", "root/b", "root/c", "root/d"]


def test_a_called_chain_that_holds_messages_breaks_a_loop() -> None:
    waits = chain("waits", "d", d={"kind": "delay", "to": {"Success": "out"}}, out=output())
    plan = compiled(root(a={"Success": "w"}, w=call("waits", out="a")), waits)
    assert edges(plan) == {"root/a": {"Success": ["root/w/d"]}, "root/w/d": {"Success": ["root/a"]}}


def test_a_loop_through_a_called_chain_is_told_where_it_can_be_cut() -> None:
    runs = chain("runs", "d", d={"Success": "e"}, e={"Success": "out"}, out=output())
    assert findings(root(a={"Success": "r"}, r=call("runs", out="a")), runs) == [
        (
            "/nodes/r/to/out",
            "messages would go round for ever: a → r → a; cut this, or put a node that holds messages between",
        )
    ]
    assert findings(root(r=call("runs", out="r"), a={}) | {"start": "r"}, runs)[-1] == (
        "/nodes/r/to/out",
        "messages would go round for ever: r → r; cut this, or put a node that holds messages between",
    )


def test_findings_of_called_chains_name_their_chain_and_come_once() -> None:
    broken = chain("sub", "x", x={"Success": "y"}, y={"Success": "x"}, z={"kind": "stepp"})
    assert findings(root(a=call("sub")), broken) == [
        ("/nodes/z/kind", "chain 'sub': 'stepp' is not known here; did you mean 'step'?"),
        ("/nodes/z", "chain 'sub': no message ever gets to 'z': connect it, or remove it"),
        (
            "/nodes/y/to/Success",
            "chain 'sub': messages would go round for ever: x → y → x; cut this, or put a node that holds messages"
            " between",
        ),
    ]


def test_only_outputs_of_the_called_chain_can_be_wired() -> None:
    sub = chain("sub", "x", x={"Success": "hot"}, hot=output())
    assert findings(root(a=call("sub", hott="b", Failure="b"), b={}), sub) == [
        ("/nodes/a/to/hott", "chain 'sub' has no output 'hott'; did you mean 'hot'?"),
        ("/nodes/a/to/Failure", "chain 'sub' has no output 'Failure' (known: 'hot')"),
    ]
    assert findings(root(a=call("sub", hot="b"), b={}), chain("sub", "x", x={})) == [
        ("/nodes/a/to/hot", "chain 'sub' has no output 'hot', nor any other")
    ]


def test_an_output_leads_nowhere_and_starts_nothing() -> None:
    sub = chain("sub", "out", out={"kind": "output", "to": {"Success": "x"}}, x={})
    assert findings(root(a=call("sub", out="a")), sub) == [
        ("/nodes/out/to", "chain 'sub': must be empty"),
        ("/start", "chain 'sub': the start 'out' is an output: the chain would do nothing"),
    ]


def test_chains_that_call_each_other_are_refused() -> None:
    assert findings(root(a=call("b")), chain("b", "x", x=call("c")), chain("c", "y", y=call("b"))) == [
        ("/nodes/y/config/chain", "chain 'c': chains may not call each other in a circle: b → c → b")
    ]


def test_calls_cannot_multiply_without_limit() -> None:
    levels = [chain(f"c{i}", "n0", n0=call(f"c{i + 1}")) for i in range(20)]
    deep = [*levels, chain("c20", "n", n={})]
    assert findings(root(a=call("c0")), *deep) == [("", "calls are nested 22 chains deep; at most 16 are possible")]
    wide = [
        chain(
            f"w{i}", "a", a={"Success": [f"n{j}" for j in range(20)]}, **{f"n{j}": call(f"w{i + 1}") for j in range(20)}
        )
        for i in range(5)
    ]
    assert findings(root(a=call("w0")), *wide, chain("w5", "n", n={})) == [
        ("", "with all chains it calls this has 6736842 nodes; at most 5000 are possible")
    ]
