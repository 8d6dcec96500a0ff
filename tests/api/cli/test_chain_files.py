from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from api.cli import chain_files
from chains.schema import chain_schema
from engine.errors import BadInput
from nodes.catalogue import Catalogue

GROUP = click.Group("chain", [chain_files.check, chain_files.test, chain_files.schema])
SAVE = {"chain": "keep", "start": "save", "nodes": {"save": {"kind": "save_timeseries"}}}
CASES = [{"name": "kept", "messages": [{"data": {"a": 1}}], "expect": {"points": [{"key": "a", "value": 1}]}}]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings of the folder or the environment; the time zone stays as it was."""
    monkeypatch.chdir(tmp_path)
    for name in ("RULEMILL_CONFIG", "RULEMILL_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(GROUP, list(arguments))


def put(name: str, content: Any) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def script(source: Any, **more: Any) -> dict[str, Any]:
    node = {"kind": "script", "config": {"source": source, **more}}
    return {"chain": "scripted", "start": "run", "nodes": {"run": node}}


def calling(name: str, relation: str = "done") -> dict[str, Any]:
    call = {"kind": "chain", "config": {"chain": name}, "to": {relation: "note"}}
    return {"chain": "caller", "start": "call", "nodes": {"call": call, "note": {"kind": "log"}}}


CALLED = {
    "chain": "called",
    "start": "note",
    "nodes": {"note": {"kind": "log", "to": {"Success": "done"}}, "done": {"kind": "output"}},
}


class TestCheck:
    def test_a_chain_that_holds(self) -> None:
        put("keep.json", SAVE)
        result = run("check", "keep.json")
        assert (result.exit_code, result.output) == (0, "keep.json: holds\n")

    def test_every_mistake_with_its_place(self) -> None:
        put("wrong.json", {"chain": "x", "start": "a", "nodes": {"a": {"kind": "sav", "to": {"Success": "b"}}}})
        result = run("check", "wrong.json")
        assert result.exit_code == 1
        lines = result.output.splitlines()
        assert lines[0] == "wrong.json: 2 errors"
        assert any(line.startswith("  /nodes/a/kind: ") for line in lines)
        assert any(line.startswith("  /nodes/a/to/Success: there is no node 'b'") for line in lines)

    def test_one_of_several_is_enough_to_fail(self) -> None:
        put("keep.json", SAVE)
        put("wrong.json", {**SAVE, "start": "nowhere"})
        result = run("check", "wrong.json", "keep.json")
        assert result.exit_code == 1
        assert "keep.json: holds" in result.output

    def test_json(self) -> None:
        put("wrong.json", {**SAVE, "start": "nowhere"})
        result = run("check", "--json", "wrong.json")
        assert result.exit_code == 1
        ((file, errors, advice, on_trust),) = (one.values() for one in json.loads(result.stdout))
        assert (file, advice, on_trust) == ("wrong.json", [], [])
        assert [error["pointer"] for error in errors] == ["/start"]
        assert "there is no node 'nowhere'" in errors[0]["message"]

    def test_advice_is_no_error(self) -> None:
        tell = {"kind": "forward_http", "config": {"url": "https://example.com"}}
        put("tell.json", {"chain": "tell", "start": "tell", "nodes": {"tell": tell}})
        result = run("check", "tell.json")
        assert result.exit_code == 0
        assert "  advice: /nodes/tell: " in result.output

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ('{"chain": }', "is no JSON: Expecting value in line 1, column 11"),
            ('{"nodes": {"a": {}, "a": {}}}', "the key 'a' comes twice"),
            ('{"chain": NaN}', "NaN is not a JSON number"),
            ("[" * 100_000, "nested too deep"),
        ],
    )
    def test_what_is_no_json(self, text: str, reason: str) -> None:
        put("chain.json", text)
        result = run("check", "chain.json")
        assert result.exit_code == 1
        assert reason in result.output

    @pytest.mark.parametrize("text", ["null", "[]", '{"nodes": [], "files": 1}', '{"nodes": {"a": {"config": 1}}}'])
    def test_json_that_is_no_chain(self, text: str) -> None:
        put("chain.json", text)
        result = run("check", "chain.json")
        assert (result.exit_code, type(result.exception)) == (1, SystemExit)

    def test_chains_beside_may_be_called(self) -> None:
        put("chain.json", calling("called", "don"))
        put("called.json", CALLED)
        result = run("check", "chain.json")
        assert result.exit_code == 1
        assert "/nodes/call/to/don: chain 'called' has no output 'don'; did you mean 'done'?" in result.output
        put("chain.json", calling("called"))
        assert run("check", "chain.json").output == "chain.json: holds\n"

    def test_other_calls_are_taken_on_trust_and_that_is_said(self) -> None:
        put("chain.json", calling("elsewhere"))
        result = run("check", "chain.json")
        assert result.exit_code == 0
        assert "note: calls 'elsewhere', which is not in this folder" in result.output

    def test_two_chains_of_one_name(self) -> None:
        put("chain.json", calling("called"))
        put("one.json", CALLED)
        put("two.json", CALLED)
        result = run("check", "chain.json")
        assert result.exit_code == 1
        assert "one.json and two.json both hold a chain 'called'" in result.output

    def test_a_folder_stands_for_its_chains_and_nothing_else(self) -> None:
        put("all/a/chain.json", calling("called"))
        put("all/a/called.json", CALLED)
        put("all/a/cases.json", CASES)
        put("all/a/bootstrap.json", {"chains": []})
        put("all/b/chain.json", SAVE)
        put("all/b/broken.json", "{")
        result = run("check", "--json", "all")
        assert result.exit_code == 1
        assert {one["file"]: len(one["errors"]) for one in json.loads(result.stdout)} == {
            "all/a/chain.json": 0,
            "all/a/called.json": 0,
            "all/b/chain.json": 0,
            "all/b/broken.json": 1,
        }

    def test_a_folder_without_chains(self) -> None:
        Path("empty").mkdir()
        assert isinstance(run("check", "empty").exception, BadInput)


class TestTest:
    def test_cases_that_hold(self) -> None:
        put("chain.json", SAVE)
        put("cases.json", CASES)
        result = run("test", ".")
        assert (result.exit_code, result.output) == (0, "chain.json\n  ok    kept\n1 passed, 0 failed\n")

    def test_a_difference_is_told_with_the_way_that_was_taken(self) -> None:
        put("chain.json", SAVE)
        put("cases.json", [*CASES, {**CASES[0], "name": "other", "messages": [{"data": {"a": 2}}, {"data": 3}]}])
        result = run("test", "chain.json")
        assert result.exit_code == 1
        assert result.output.splitlines() == [
            "chain.json",
            "  ok    kept",
            "  FAIL  other",
            "          /expect/points/0/value: expected 1, but it is 2",
            "          /expect/dead: expected 0 entries, but there are 1: "
            '[{"node":"save","reason":"telemetry is an object of keys and values, this is int","data":3}]',
            "          save → DEAD",
            "          save → Success",
            "          dead letter of save: telemetry is an object of keys and values, this is int",
            "1 passed, 1 failed",
        ]

    def test_verbose_tells_the_way_of_good_ones(self) -> None:
        put("chain.json", SAVE)
        put("cases.json", CASES)
        assert "          save → Success" in run("test", "-v", ".").output

    def test_cases_elsewhere(self) -> None:
        put("chain.json", SAVE)
        put("other.json", CASES)
        assert run("test", "--cases", "other.json", "chain.json").exit_code == 0
        put("b/chain.json", SAVE)
        assert run("test", "--cases", "other.json", "chain.json", "b").exit_code == 2

    def test_local_time_is_utc_everywhere(self) -> None:
        expect = {"trace": [["run", "Success"], ["reply", "Success"]], "replies": [{"data": {"hour": 22}}]}
        case = {"name": "hour", "now_ms": 1_700_000_000_000, "messages": [{"waits": True}], "expect": expect}
        document = script("return {msg: {hour: new Date().getHours()}}", lang="js")
        document["nodes"]["run"]["to"] = {"Success": "reply"}
        document["nodes"]["reply"] = {"kind": "rpc_reply"}
        put("chain.json", document)
        put("cases.json", [case])
        result = run("test", ".")
        assert result.exit_code == 0, result.output

    def test_secrets_need_not_exist_and_outward_calls_are_not_made(self) -> None:
        tell = {"kind": "forward_http", "config": {"url": "https://example.com/${secret:KEY}"}}
        put("chain.json", {"chain": "tell", "start": "tell", "nodes": {"tell": tell}})
        put("cases.json", [{"name": "told", "messages": [{}], "expect": {"calls": [{"node": "tell"}], "waiting": 1}}])
        result = run("test", ".")
        assert result.exit_code == 0, result.output

    def test_scripts_and_called_chains_beside_are_found(self) -> None:
        document = calling("called")
        document["nodes"]["note"] = {"kind": "script", "config": {"file": "mark.lua"}, "to": {"Success": "save"}}
        document["nodes"]["save"] = {"kind": "save_timeseries"}
        put("chain.json", document)
        put("called.json", CALLED)
        put("mark.lua", "msg.marked = true return {msg = msg}")
        expect = {"points": [{"key": "marked", "value": True}], "relations": {"call/note": ["Success"]}}
        put("cases.json", [{"name": "marked", "messages": [{"data": {}}], "expect": expect}])
        result = run("test", ".")
        assert result.exit_code == 0, result.output

    @pytest.mark.parametrize("name", ["../outside.lua", "missing.lua", "/etc/hostname"])
    def test_scripts_outside_of_the_folder_are_not_read(self, name: str) -> None:
        put("outside.lua", "return {}")
        put("in/chain.json", script("", file=name))
        put("in/cases.json", CASES)
        result = run("test", "in")
        assert result.exit_code == 1
        assert f"/nodes/run/config/file: there is no file '{name}' with the chain 'scripted'" in result.output

    def test_a_script_that_is_no_text(self) -> None:
        put("chain.json", script("", file="run.lua"))
        Path("run.lua").write_bytes(b"\xff")
        result = run("check", "chain.json")
        assert result.exit_code == 1
        assert "run.lua beside the chain is not UTF-8" in result.output

    @pytest.mark.parametrize(
        ("cases", "reason"),
        [
            (None, "/: there are no cases: cases.json is missing"),
            ([], "/: there are no cases: cases.json is an empty list"),
            ([{"name": "x", "messages": [{}], "expect": {"point": []}}], "/0/expect: cases.json: "),
        ],
    )
    def test_cases_that_cannot_be_run_are_a_failure(self, cases: Any, reason: str) -> None:
        put("chain.json", SAVE)
        if cases is not None:
            put("cases.json", cases)
        result = run("test", "chain.json")
        assert result.exit_code == 1
        assert reason in result.output
        assert "0 passed, 1 failed" in result.output

    def test_a_chain_that_does_not_hold(self) -> None:
        put("chain.json", {**SAVE, "start": "nowhere"})
        put("cases.json", CASES)
        result = run("test", ".")
        assert result.exit_code == 1
        assert "chain.json: cannot be tested\n  /start: there is no node 'nowhere'" in result.output


def test_schema_is_that_of_all_kinds() -> None:
    result = run("schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == chain_schema(Catalogue())


def test_the_time_zone_of_the_test_run_is_not_utc() -> None:
    """Otherwise the test of local time could not fail."""
    assert os.environ["TZ"] == "America/New_York"
    assert time.localtime(1_700_000_000).tm_hour != 22
