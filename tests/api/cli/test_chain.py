"""`rulemill chain` with a server: from a file to what messages run through, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.api.cli.serving import Demo, Ran

SAVE = {"chain": "keep", "start": "save", "nodes": {"save": {"kind": "save_timeseries"}}}
FAIL = {"chain": "keep", "start": "fail", "nodes": {"fail": {"kind": "script", "config": {"source": "error('no')"}}}}


class Tenant:
    """Verbs on a tenant of the test's own, in a folder of its own."""

    def __init__(self, demo: Demo, name: str, folder: Path) -> None:
        self.demo, self.name, self.folder = demo, name, folder
        assert demo("tenant", "add", name).code == 0

    def __call__(self, *arguments: str, text: str = "") -> Ran:
        return self.demo(*arguments, text=text, cwd=self.folder, RULEMILL_TENANT=self.name)

    def put(self, file: str, content: Any) -> str:
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return file


@pytest.fixture
def tenant(demo: Demo, tmp_path: Path, request: pytest.FixtureRequest) -> Tenant:
    return Tenant(demo, request.node.name.replace("_", "-")[:60], tmp_path)


class TestDeploy:
    def test_from_a_file_to_messages_and_back(self, tenant: Tenant) -> None:
        tenant.put("keep.json", SAVE)
        ran = tenant("chain", "deploy", "keep.json")
        saved, current, unreached = ran.out.splitlines()
        assert (ran.code, saved) == (0, "keep: version 1")
        assert current == (
            f"Deployment 2 of tenant {tenant.name} is current: messages start in root; chains: keep 1, root 1."
        )
        assert "start in root, which does not call it" in unreached
        ran = tenant("chain", "deploy", "keep.json", "--root", "keep", "--note", "now for real")
        assert ran.out.splitlines() == [
            "keep: version 1",
            f"Deployment 3 of tenant {tenant.name} is current: messages start in keep; chains: keep 1, root 1.",
        ]
        assert tenant("tenant", "show", tenant.name, "--json").json["root_chain"] == "keep"
        assert tenant("chain", "list").rows == [["keep", "1", "1", "messages", "start", "here"], ["root", "1", "1"]]
        rows = tenant("chain", "deployments").rows
        assert [(row[0], row[2]) for row in rows] == [("1", "root"), ("2", "root"), ("3", "keep")]
        assert rows[2][-4:] == ["now", "for", "real", "current"]
        assert "messages start in root" in tenant("chain", "rollback").out
        assert "messages start in keep" in tenant("chain", "rollback", "--to", "3").out
        ran = tenant("chain", "rollback", "--to", "99")
        assert (ran.code, ran.err) == (1, "rulemill: no deployment '99'\n")

    def test_what_has_not_changed_is_no_new_version(self, tenant: Tenant) -> None:
        tenant.put("keep.json", SAVE)
        tenant("chain", "deploy", "keep.json", "--root", "keep")
        ran = tenant("chain", "deploy", "keep.json")
        assert ran.out.splitlines() == [
            "keep: version 1", f"Deployment 2 of tenant {tenant.name} has this already; nothing changed.",
        ]  # fmt: skip
        tenant.put("keep.json", FAIL)
        assert tenant("chain", "deploy", "keep.json", "--json").json["chains"] == {"keep": 2, "root": 1}
        assert tenant("chain", "versions", "keep").rows == [["1"], ["2", "deployed"]]
        assert tenant("chain", "show", "keep", "--version", "1").json == SAVE
        assert tenant("chain", "show", "keep", "--json").json == {"chain": "keep", "version": 2, "document": FAIL}

    def test_a_folder_of_chains_that_call_each_other(self, tenant: Tenant) -> None:
        call = {"kind": "chain", "config": {"chain": "keep"}}
        tenant.put("all/chain.json", {"chain": "front", "start": "call", "nodes": {"call": call}})
        tenant.put("all/keep.json", SAVE)
        made = tenant("chain", "deploy", "all", "--root", "front", "--json").json
        assert (made["root"], made["chains"], made["unreached"]) == ("front", {"front": 1, "keep": 1, "root": 1}, [])

    def test_everything_wrong_is_told_and_nothing_deployed(self, tenant: Tenant) -> None:
        tenant.put("bad.json", {"chain": "bad", "start": "x", "nodes": {"a": {"kind": "sav", "to": {"Success": "b"}}}})
        tenant.put("keep.json", SAVE)
        ran = tenant("chain", "deploy", "keep.json", "bad.json")
        assert (ran.code, ran.out) == (1, "")
        lines = ran.err.splitlines()
        for pointer in ("/start", "/nodes/a/kind", "/nodes/a/to/Success"):
            assert sum(line.startswith(f"rulemill: bad.json: {pointer}: ") for line in lines) == 1, lines
        assert lines[-1] == "rulemill: nothing was deployed"
        assert "keep" not in tenant("chain", "deployments").out

    def test_files_that_cannot_be_read_never_reach_the_server(self, tenant: Tenant) -> None:
        tenant.put("one.json", SAVE)
        tenant.put("two.json", SAVE)
        ran = tenant("chain", "deploy", "one.json", "two.json", tenant.put("three.json", "{"))
        assert ran.code == 1
        assert "one.json and two.json both hold a chain 'keep'" in ran.err
        assert "three.json: is no JSON" in ran.err
        assert "keep" not in tenant("chain", "list").out
        assert tenant("chain", "deploy", "nowhere.json").code == 2

    def test_nothing_to_go_back_to(self, tenant: Tenant) -> None:
        ran = tenant("chain", "rollback")
        assert (ran.code, ran.err) == (1, "rulemill: there is no earlier deployment to go back to\n")
        ran = tenant("chain", "show", "nothing")
        assert (ran.code, ran.err) == (1, "rulemill: no chain 'nothing'\n")


class TestCheck:
    def test_against_the_server(self, tenant: Tenant) -> None:
        call = {"kind": "chain", "config": {"chain": "root"}, "to": {"nowhere": "note"}}
        nodes = {"call": call, "note": {"kind": "log"}}
        tenant.put("front.json", {"chain": "front", "start": "call", "nodes": nodes})
        assert tenant("chain", "check", "front.json").code == 0
        ran = tenant("chain", "check", "--server", "front.json")
        assert ran.code == 1
        assert ran.out.splitlines()[0] == "front.json: 1 error"
        assert ran.out.splitlines()[1].startswith("  /nodes/call/to/nowhere: ")
        ran = tenant("chain", "check", "--server", "--json", "front.json")
        assert (ran.code, json.loads(ran.out)[0]["errors"][0]["pointer"]) == (1, "/nodes/call/to/nowhere")

    def test_holds(self, tenant: Tenant) -> None:
        assert tenant("chain", "check", "--server", tenant.put("keep.json", SAVE)).out == "keep.json: holds\n"
        ran = tenant("chain", "check", "--server", tenant.put("keep.json", "{"))
        assert (ran.code, ran.out.splitlines()[1].startswith("  /: is no JSON")) == (1, True)

    def test_without_a_server_none_is_looked_for(self, tmp_path: Path, demo: Demo) -> None:
        (tmp_path / "keep.json").write_text(json.dumps(SAVE))
        ran = demo("chain", "check", "keep.json", cwd=tmp_path, RULEMILL_DATA=str(tmp_path), RULEMILL_URL="nowhere")
        assert (ran.code, ran.out) == (0, "keep.json: holds\n")
        assert demo("chain", "schema", RULEMILL_DATA=str(tmp_path)).json["$schema"].startswith("https://json-schema")


class TestRun:
    def test_every_node_and_what_would_come_of_it(self, demo: Demo) -> None:
        demo.new_device("dry")
        ran = demo("chain", "run", "demo", "--message", '{"temperature": 41}', "--device", "dry")
        assert ran.code == 0, ran.err
        trace, effects = ran.out.split("\n\n")
        assert [line.split("  ")[0] for line in trace.splitlines()[1:]] == [
            "by type", "save telemetry", "tell apps", "temperature?", "too hot?", "raise alarm",
        ]  # fmt: skip
        assert "save_timeseries      → Success         {" in trace
        point, alarm = effects.splitlines()
        assert point.startswith("point  temperature = 41 at 20")
        assert alarm == 'alarm  Too hot CRITICAL ACTIVE_UNACK "41 degrees"'
        assert "no points yet" in demo("points", "latest", "dry").out

    def test_a_file_that_is_not_deployed(self, tenant: Tenant) -> None:
        tenant.put("fail.json", {**FAIL, "chain": "fail"})
        ran = tenant("chain", "run", "fail.json", "--message", "@m.json")
        assert (ran.code, ran.err) == (1, "rulemill: --message: m.json cannot be read: No such file or directory\n")
        tenant.put("m.json", {"a": 1})
        ran = tenant("chain", "run", "fail.json", "--message", "@m.json", "--metadata", "k=v", "--json")
        assert ran.json["steps"][0]["metadata"] == {"k": "v"}
        assert ran.json["dead"][0]["node"] == "fail"
        assert "dead letter  at fail: " in tenant("chain", "run", "fail.json", "--message", "@-", text="1").out
        assert tenant("chain", "list").rows == [["root", "1", "1", "messages", "start", "here"]]

    def test_the_device_brings_its_state(self, tenant: Tenant) -> None:
        tenant("device", "add", "known")
        tenant("device", "attributes", "known", "--scope", "server", "--set", "limit=7")
        nodes = {
            "raise": {"kind": "create_alarm", "config": {"type": "T"}, "to": {"Created": "new", "Updated": "old"}},
            "new": {"kind": "log"}, "old": {"kind": "log"},
        }  # fmt: skip
        tenant.put("raise.json", {"chain": "raise", "start": "raise", "nodes": nodes})
        dry = ("chain", "run", "raise.json", "--message", '{"a": 1}', "--device", "known", "--json")
        assert [step["node"] for step in tenant(*dry).json["steps"]][-1] == "new"
        tenant("chain", "deploy", "raise.json", "--root", "raise")
        token = tenant("device", "token", "known", "--json").json["secrets"][0]["value"]
        tenant.demo.send(token, {"a": 1})
        tenant.demo.until(lambda ran: " T " in ran.out, "alarm", "list", "--tenant", tenant.name)
        assert [step["node"] for step in tenant(*dry).json["steps"]][-1] == "old"
        assert tenant(*dry).json["steps"][0]["metadata"]["deviceName"] == "known"

    def test_bytes_are_decoded_as_those_of_the_devices_product(self, demo: Demo) -> None:
        ran = demo("chain", "run", "demo", "--hex", "01 a4", "--device", "demo-sensor", "--json")
        assert [(one["key"], one["value"]) for one in ran.json["points"]] == [("temperature", 42.0)]

    def test_a_call_gets_its_reply(self, demo: Demo) -> None:
        ran = demo("chain", "run", "--type", "TO_SERVER_RPC_REQUEST", "--message", '{"method": "getTime"}')
        assert 'reply  {"time": "' in ran.out

    @pytest.mark.parametrize(
        ("given", "code", "reason"),
        [
            ((), 2, "--message JSON, or --hex BYTES"),
            (("--message", "{"), 1, "--message is no JSON"),
            (("--hex", "0g"), 1, "--hex takes pairs of hexadecimal digits"),
            (("nowhere.json", "--message", "1"), 1, "there is no file nowhere.json"),
            (("nowhere", "--message", "1"), 1, "no chain 'nowhere'"),
            (("--version", "1", "--message", "1"), 2, "--version goes with the NAME of a chain"),
            (("--message", "1", "--device", "nobody"), 1, "no device 'nobody'"),
            (("--message", "1", "--metadata", "k"), 1, "--metadata takes key=value"),
        ],
    )
    def test_bad_words(self, demo: Demo, given: tuple[str, ...], code: int, reason: str) -> None:
        ran = demo("chain", "run", *given)
        assert (ran.code, ran.out) == (code, "")
        assert reason in ran.err
