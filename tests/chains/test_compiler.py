from __future__ import annotations

from typing import Any

import pytest

from chains.compiler import check_chain, compile_tenant
from engine.errors import InvalidDocument
from tests.chains.documents import call, chain, compiled, findings, output, root
from tests.chains.kinds import CATALOGUE


def test_a_chain_becomes_a_plan() -> None:
    plan = compiled(
        {
            "$schema": "https://rulemill/chain.json",
            "chain": "root",
            "title": "Root",
            "description": "All of it.",
            "start": "a",
            "nodes": {
                "last": {"kind": "step", "retry": {"attempts": 2, "within_s": 30}},
                "b": {"kind": "step", "to": {"Success": "last"}},
                "a": {"kind": "step", "config": {"key": "x"}, "to": {"Success": ["b", "last"], "Failure": "last"}},
            },
        }
    )
    assert (plan.tenant, plan.deployment, plan.rounds) == ("acme", 7, False)
    assert [node.name for node in plan.nodes] == ["root/a", "root/b", "root/last"]
    assert plan.nodes[plan.start].name == "root/a"
    assert plan.nodes[0].targets == {"Success": [1, 2], "Failure": [2]}
    assert plan.nodes[0].node.config.key == "x"
    assert (plan.nodes[0].chain, plan.nodes[0].chain_version) == ("root", 1)
    assert (plan.nodes[2].retry.attempts, plan.nodes[2].retry.within_s) == (2, 30)
    assert plan.nodes[0].retry.attempts == 5
    build = plan.nodes[0].node.build  # type: ignore[attr-defined]
    assert (build.tenant, build.chain, build.node) == ("acme", "root", "a")


def test_files_and_secrets_reach_the_node() -> None:
    document = root(
        a={"kind": "step", "config": {"file": "in.lua", "secret": "KEY"}, "to": {"Success": "b"}},
        b={"kind": "step", "config": {"file": "beside.lua"}},
    )
    document["files"] = {"in.lua": "inside"}
    beside = {("root", "beside.lua"): "outside"}
    plan = compiled(document, files=lambda name, file: beside.get((name, file)), secrets={"KEY": "s3"}.get)
    a, b = (node.node for node in plan.nodes)
    assert (a.file, a.secret, b.file) == ("inside", "s3", "outside")  # type: ignore[attr-defined]


BAD = [
    (
        root(a={"kind": "stepp"}),
        "/nodes/a/kind",
        "'stepp' is not known here; did you mean 'step'?",
    ),
    (
        root(a={"kind": "zzz"}),
        "/nodes/a/kind",
        "'zzz' is not known here (known: 'call', 'chain', 'delay', 'output', 'script', 'state', 'step')",
    ),
    (
        root(a={"kind": 3}),
        "/nodes/a/kind",
        "must be one of 'call', 'chain', 'delay', 'output', 'script', 'state', 'step', but is 3",
    ),
    (root(a={"sucess": "b"}, b={}), "/nodes/a/to/sucess", "'a' (step) never emits 'sucess'; did you mean 'Success'?"),
    (
        root(a={"kind": "script", "config": {"source": "", "relations": ["hot"]}, "to": {"cold": "b"}}, b={}),
        "/nodes/a/to/cold",
        "'a' (script) never emits 'cold' (known: 'Failure', 'hot')",
    ),
    (root(a={"Success": ["b", "bb"]}, b={}), "/nodes/a/to/Success/1", "there is no node 'bb'; did you mean 'b'?"),
    (root(a={"Success": ["b", "c/d"]}, b={}), "/nodes/a/to/Success/1", "there is no node 'c/d' (known: 'a', 'b')"),
    (root(a={"Success": ["b", "b"]}, b={}), "/nodes/a/to/Success", "names a node twice; once is enough"),
    (root(a={"Success": []}), "/nodes/a/to/Success", "must have at least 1 entry"),
    (root(a={"Success": 3}), "/nodes/a/to/Success", "must be text or a list, but is 3"),
    (root(a={"Success": [3]}), "/nodes/a/to/Success/0", "must be text, but is 3"),
    (chain("root", "A", a={}), "/start", "there is no node 'A' to start at; did you mean 'a'?"),
    (chain("root", 1, a={}), "/start", "must be text, but is 1"),  # type: ignore[arg-type]
    ({"chain": "root", "nodes": {"a": {"kind": "step"}}}, "", "the key 'start' is missing"),
    ({"chain": "root", "start": "a"}, "", "the key 'nodes' is missing"),
    ({"chain": "root", "start": "a", "nodes": {}}, "/nodes", "must have at least 1 entry"),
    ({**root(a={}), "titel": "x"}, "/titel", "unknown key 'titel'; did you mean 'title'?"),
    (
        {**root(a={}), "files": {"../x": "y"}},
        "/files/..~1x",
        "the name '../x' must be 1 to 64 letters, digits, blanks and '_', '.', '-', without a blank at the ends",
    ),
    (root(a={"kind": "step", "too": {}}), "/nodes/a/too", "unknown key 'too'; did you mean 'to'?"),
    (root(a={"kind": "step", "config": []}), "/nodes/a/config", "must be an object, but is a list"),
    (root(a={"kind": "step", "config": {"kee": 1}}), "/nodes/a/config/kee", "unknown key 'kee'; did you mean 'key'?"),
    (root(a={"kind": "step", "config": {"key": 1}}), "/nodes/a/config/key", "must be text, but is 1"),
    (root(a={"kind": "step", "config": {"key": ""}}), "/nodes/a/config/key", "must have at least 1 character"),
    (
        root(a={"kind": "step", "config": {"key": "x" * 11}}),
        "/nodes/a/config/key",
        "must have at most 10 characters, but has 11",
    ),
    (root(a={"kind": "step", "config": {"times": 0}}), "/nodes/a/config/times", "must be at least 1, but is 0"),
    (
        root(a={"kind": "step", "config": {"times": "x"}}),
        "/nodes/a/config/times",
        "must be a whole number or null, but is 'x'",
    ),
    (
        root(a={"kind": "step", "config": {"times": 2.0}}),
        "/nodes/a/config/times",
        "Expected `int | null`, got `float`",
    ),
    (
        root(a={"kind": "step", "config": {"limits": {"low": "x"}}}),
        "/nodes/a/config/limits/low",
        "must be a number, but is 'x'",
    ),
    (
        root(a={"kind": "step", "config": {"rows": [{}, {"lo": 1}]}}),
        "/nodes/a/config/rows/1/lo",
        "unknown key 'lo'; did you mean 'low'?",
    ),
    (
        root(a={"kind": "step", "config": {"by_name": {"x": "y"}}}),
        "/nodes/a/config/by_name/x",
        "must be a whole number, but is 'y'",
    ),
    (root(a={"kind": "script"}), "/nodes/a", "the key 'config' is missing"),
    (root(a={"kind": "script", "config": {}}), "/nodes/a/config", "the key 'source' is missing"),
    (
        root(a={"kind": "script", "config": {"source": "a syntax error"}}),
        "/nodes/a/config/source",
        "the script does not compile: line 3: unexpected symbol near 'syntax'",
    ),
    (root(a={"kind": "script", "config": {"source": "value"}}), "/nodes/a/config", "refused"),
    (root(a={"kind": "script", "config": {"source": "input"}}), "/nodes/a/config/source", "is refused here"),
    (
        root(a={"kind": "script", "config": {"source": "broken kind"}}),
        "/nodes/a/config",
        "kind 'script' broke on this configuration (KeyError: 'oops'): a fault of the kind",
    ),
    (
        root(a={"kind": "step", "config": {"secret": "KEY"}}),
        "/nodes/a/config",
        "there is no secret 'KEY'; add it to the tenant's secrets first",
    ),
    (
        root(a={"kind": "step", "config": {"file": "x.lua"}}),
        "/nodes/a/config",
        "there is no file 'x.lua' with the chain 'root'",
    ),
    (root(a={}, b={"Success": "a"}), "/nodes/b", "no message ever gets to 'b': connect it, or remove it"),
    (
        root(a={"Success": "b"}, b={"Success": "a"}),
        "/nodes/b/to/Success",
        "messages would go round for ever: a → b → a; cut this, or put a node that holds messages between",
    ),
    (
        root(a={"Success": "a"}),
        "/nodes/a/to/Success",
        "messages would go round for ever: a → a; cut this, or put a node that holds messages between",
    ),
    (
        root(a={"Success": "out"}, out={"kind": "output"}),
        "/nodes/out",
        "an output gives back to the chain that called, but nothing calls the root chain; remove it",
    ),
    (root(a={"Success": "b ~/c"}), "/nodes/a/to/Success", "there is no node 'b ~/c' (known: 'a')"),
    (
        root(a={"Su/cc~": "a"}),
        "/nodes/a/to/Su~1cc~0",
        "'a' (step) never emits 'Su/cc~'; did you mean 'Success'?",
    ),
    (
        root(a={"Success": "b/c"}, **{"b/c": {}}),
        "/nodes/b~1c",
        "the name 'b/c' must be 1 to 64 characters, without '/', '{', '}', line breaks, and blanks at the ends",
    ),
    (root(a={"kind": "step", "retry": {"attempts": 0}}), "/nodes/a/retry/attempts", "must be at least 1, but is 0"),
    (
        root(a={"kind": "step", "retry": {"attempts": 5.0}}),
        "/nodes/a/retry",
        "has a number of the wrong kind: attempts are whole, 5 and not 5.0",
    ),
    (
        root(a={"kind": "step", "retry": {"tries": 3}}),
        "/nodes/a/retry/tries",
        "unknown key 'tries' (known: 'attempts', 'within_s')",
    ),
    (root(a={"kind": "chain"}), "/nodes/a", "the key 'config' is missing"),
    (root(a={"kind": "chain", "config": {"chain": ""}}), "/nodes/a/config/chain", "must have at least 1 character"),
    (
        root(a={"kind": "chain", "config": {"chain": "rooot"}}),
        "/nodes/a/config/chain",
        "there is no chain 'rooot'; did you mean 'root'?",
    ),
    (
        root(a={"kind": "chain", "config": {"chain": "root"}}),
        "/nodes/a/config/chain",
        "chains may not call each other in a circle: root → root",
    ),
]


@pytest.mark.spec("G-26")
@pytest.mark.parametrize(
    ("document", "place", "message"), BAD, ids=[f"{i}:{place}" for i, (_, place, _) in enumerate(BAD)]
)
def test_finding(document: dict[str, Any], place: str, message: str) -> None:
    assert findings(document) == [(place, message)]


@pytest.mark.spec("G-26")
def test_all_findings_come_at_once() -> None:
    document = root(
        a={"kind": "stp", "to": {"Success": "b"}},
        b={"kind": "step", "config": {"key": 1, "limits": {"low": 2}}, "to": {"Sucess": "c"}},
        c={"kind": "step", "config": {"limits": {"low": 2}}, "to": {"Success": ["nowhere", "b"]}},
        d={},
    )
    document["title"] = 3
    assert findings(document) == [
        ("/nodes/a/kind", "'stp' is not known here; did you mean 'step'?"),
        ("/nodes/b/config/key", "must be text, but is 1"),
        ("/title", "must be text, but is 3"),
        ("/nodes/c/config/limits/low", "is above the high limit"),
        ("/nodes/c/config/limits/high", "is below the low limit"),
        ("/nodes/b/to/Sucess", "'b' (step) never emits 'Sucess'; did you mean 'Success'?"),
        ("/nodes/c/to/Success/0", "there is no node 'nowhere' (known: 'a', 'b', 'c', 'd')"),
        ("/nodes/d", "no message ever gets to 'd': connect it, or remove it"),
        (
            "/nodes/c/to/Success/1",
            "messages would go round for ever: b → c → b; cut this, or put a node that holds messages between",
        ),
    ]


def test_findings_beyond_the_limit_are_counted() -> None:
    document = root(a={"Success": [f"x{i}" for i in range(60)], "Failure": [f"y{i}" for i in range(60)]})
    found = findings(document)
    assert len(found) == 101
    assert found[-1] == ("", "and 20 more; mend these first")


def test_a_chain_of_too_many_nodes_is_not_looked_at_further() -> None:
    found = findings(root(**{f"n{i}": {"kind": "?"} for i in range(1001)}))
    assert found == [("/nodes", "has 1001 nodes; at most 1000 are possible: let it call other chains")]


def test_the_root_must_exist() -> None:
    assert findings(root(a={}), root="rot") == [
        ("", "there is no chain 'rot', which is to be the root; did you mean 'root'?")
    ]


def test_a_chain_must_be_called_what_it_calls_itself() -> None:
    with pytest.raises(InvalidDocument) as caught:
        compile_tenant("acme", 1, "main", {"main": (1, root(a={}))}, CATALOGUE)
    assert caught.value.findings == [("/chain", "this is stored as chain 'main', but names itself 'root'")]


@pytest.mark.parametrize(
    ("reads", "writes", "rounds"),
    [
        ([], ["attr"], False),
        (["attr"], [], False),
        (["attr"], ["attr"], True),
        (["attr:x"], ["attr:x"], True),
        (["attr:x"], ["attr:y"], False),
        (["attr:x"], ["attr"], True),
        (["attr"], ["attr:x"], True),
        (["attr"], ["alarm"], False),
        (["attr:x"], ["attr:x:y"], False),
    ],
)
def test_rounds_when_one_node_reads_what_another_writes(reads: list[str], writes: list[str], rounds: bool) -> None:
    reader = {"kind": "state", "config": {"reads": reads}, "to": {"Success": "b"}}
    plan = compiled(root(a=reader, b={"kind": "state", "config": {"writes": writes}}))
    assert plan.rounds is rounds


def test_a_node_that_reads_what_only_itself_writes_needs_no_rounds() -> None:
    both = {"kind": "state", "config": {"reads": ["node:x"], "writes": ["node:x"]}}
    assert compiled(root(a=both)).rounds is False
    assert compiled(root(a=both | {"to": {"Success": "b"}}, b=both)).rounds is True


def test_a_chain_can_be_checked_alone() -> None:
    alone = root(
        a=call("elsewhere", whatever="b"),
        b={"kind": "step", "config": {"secret": "S"}, "to": {"Success": "out"}},
        out=output(),
    )
    assert check_chain(alone, CATALOGUE) == []
    assert check_chain(alone, CATALOGUE, {"elsewere": root(a={})}, secrets=lambda name: None) == [
        ("/nodes/b/config", "there is no secret 'S'; add it to the tenant's secrets first"),
        ("/nodes/a/config/chain", "there is no chain 'elsewhere'; did you mean 'elsewere'?"),
    ]
    assert check_chain(root(a=call("root")), CATALOGUE) == [
        ("/nodes/a/config/chain", "chains may not call each other in a circle: root → root")
    ]


@pytest.mark.parametrize(
    "document", [None, [], "x", 1, {}, {"chain": {}, "start": [], "nodes": [1]}, {"nodes": {"a": 1}}]
)
def test_what_is_no_chain_at_all_is_told_so(document: object) -> None:
    assert check_chain(document, CATALOGUE)
