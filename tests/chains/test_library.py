from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from chains.compiler import check_chain, compile_tenant
from chains.repository import default_root
from chains.schema import chain_schema
from nodes.catalogue import Catalogue

CATALOGUE = Catalogue()


def way(*relations: str) -> str:
    """Kind of the node that a message comes to along these relations of the default root chain."""
    plan = compile_tenant("acme", 1, "root", {"root": (1, default_root())}, CATALOGUE)
    at = plan.start
    for relation in relations:
        (at,) = plan.nodes[at].targets[relation]
    return plan.nodes[at].node.spec.kind


@pytest.mark.spec("G-19")
@pytest.mark.parametrize(
    ("relations", "kind"),
    [
        ([], "message_type_switch"),
        (["Raw uplink"], "decode"),
        (["Raw uplink", "Success", "Post telemetry"], "save_timeseries"),
        (["Raw uplink", "Failure"], "log"),
        (["Parse request"], "decode"),
        (["Parse request", "Success"], "rpc_reply"),
        (["Alarm request"], "create_alarm"),
        (["Alarm request", "Created"], "rpc_reply"),
        (["Alarm request", "Updated"], "rpc_reply"),
        (["Post telemetry"], "save_timeseries"),
        (["Post attributes"], "save_attributes"),
        (["RPC Request from Device"], "log"),
        (["RPC Request to Device"], "rpc_request"),
        (["Device event"], "save_event"),
        (["Device event", "Success"], "event_function"),
        (["Device event", "Success", "Success"], "rpc_reply"),
        (["Command response"], "log"),
        (["Inactivity Event"], "log"),
        (["RPC Expired"], "log"),
        (["RPC Failed"], "log"),
        (["Other"], "log"),
    ],
)
def test_the_default_root_chain(relations: list[str], kind: str) -> None:
    assert way(*relations) == kind


@pytest.mark.spec("G-19")
def test_telemetry_runs_through_the_default_root_chain_in_whole_batches() -> None:
    assert compile_tenant("acme", 1, "root", {"root": (1, default_root())}, CATALOGUE).rounds is False


def test_every_example_of_every_kind_is_of_the_chain_schema() -> None:
    validator = Draft202012Validator(chain_schema(CATALOGUE))
    for kind, node in CATALOGUE.kinds.items():
        for example in node.spec.examples:
            document = {"chain": "x", "start": "a", "nodes": {"a": {"kind": kind, "config": example.config}}}
            assert [error.message for error in validator.iter_errors(document)] == [], (kind, example.title)


def test_a_script_that_does_not_compile_names_its_line() -> None:
    source = ["msg.f = msg.c * 9 / 5 + 32", "return {msg = msg"]
    document = {"chain": "x", "start": "a", "nodes": {"a": {"kind": "script", "config": {"source": source}}}}
    ((place, message),) = check_chain(document, CATALOGUE)
    assert place == "/nodes/a/config/source"
    assert "line 2" in message
