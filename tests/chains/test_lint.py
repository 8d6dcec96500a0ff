from __future__ import annotations

from typing import Any

import pytest

from chains.lint import lint_chain
from nodes.message_type_switch import MessageTypeSwitch
from nodes.rpc_reply import RpcReply
from tests.chains.documents import chain
from tests.chains.kinds import Call, Kinds, Script, Step

KINDS = Kinds(Step, Script, Call, MessageTypeSwitch, RpcReply)


def advice(**nodes: Any) -> list[tuple[str, str]]:
    return [tuple(finding) for finding in lint_chain(chain("root", "a", **nodes), KINDS)]


def switch(target: str) -> dict[str, Any]:
    return {"kind": "message_type_switch", "to": {"RPC Request from Device": target}}


def test_calls_that_may_fail_unheard() -> None:
    assert advice(a={"kind": "call"}) == [
        (
            "/nodes/a",
            "when a call of 'a' fails for good, the message becomes a dead letter: Failure is not wired",
        )
    ]
    assert advice(a={"kind": "call", "to": {"Failure": "b"}}, b={}) == []


def test_labels_that_differ_from_known_ones_in_case_only() -> None:
    assert advice(a={"kind": "script", "config": {"source": ""}, "to": {"success": "b", "mine": "b"}}, b={}) == [
        (
            "/nodes/a/to/success",
            "relations are case-sensitive: 'success' is not 'Success'; did you mean 'Success'?",
        )
    ]


def test_devices_that_wait_for_an_answer_in_vain() -> None:
    assert advice(a=switch("b"), b={"Success": "b"}) == [
        (
            "/nodes/a/to/RPC Request from Device",
            "no rpc_reply node follows: devices that call wait until they time out",
        )
    ]
    assert advice(a=switch("b"), b={"Success": "c"}, c={"kind": "rpc_reply"}) == []
    assert advice(a=switch("b"), b={"kind": "chain", "config": {"chain": "x"}}) == []


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"password": "hunter2"}, "/nodes/a/config/password"),
        ({"headers": {"X-Api-Key": "", "Authorization": "Basic eDp5"}}, "/nodes/a/config/headers/Authorization"),
        ({"rows": [{"apiKey": "k"}]}, "/nodes/a/config/rows/0/apiKey"),
    ],
)
def test_secrets_in_the_open(config: dict[str, Any], place: str) -> None:
    assert advice(a={"kind": "step", "config": config}) == [
        (place, "looks like a secret: keep it out of the chain and write ${secret:NAME}")
    ]


def test_secrets_by_name_are_as_they_should_be() -> None:
    assert advice(a={"kind": "step", "config": {"password": "${secret:MAIL}", "token": "$[token]"}}) == []
