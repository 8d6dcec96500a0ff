"""Alarms, dead letters, the live view, the overview, tenants and secrets, on a served demo."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from api.cli.status import _stores
from tests.api.cli.serving import Demo
from tests.api.test_up import COMMAND, environment

# What happens to the device itself goes its own way.
SWITCH = {"kind": "message_type_switch", "to": {"Post telemetry": "first"}}
SAVE = {"chain": "keep", "start": "switch", "nodes": {"switch": SWITCH, "first": {"kind": "save_timeseries"}}}
FAIL = {
    "chain": "keep",
    "start": "switch",
    "nodes": {"switch": {**SWITCH, "to": {"Post telemetry": "fail"}},
              "fail": {"kind": "script", "config": {"source": "error('no')"}, "to": {"Success": "save"}},
              "save": {"kind": "save_timeseries"}},
}  # fmt: skip


class TestAlarm:
    def test_seen_acknowledged_and_cleared(self, demo: Demo) -> None:
        token = demo.new_device("hot")
        demo.send(token, {"temperature": 50})
        only = ("--device", "hot")
        ran = demo.until(lambda ran: "Too hot" in ran.out, "alarm", "list", *only)
        id, *words = ran.rows[0]
        assert words[:5] == ["Too", "hot", "CRITICAL", "ACTIVE_UNACK", "hot"]
        assert demo("alarm", "ack", id, "--by", "ada").out == f"{id}  Too hot of hot: ACTIVE_ACK\n"
        shown = demo("alarm", "show", id).out
        assert " by ada\n" in shown
        assert [one["id"] for one in demo("alarm", "list", *only, "--status", "active", "--json").json] == [id]
        assert demo("alarm", "list", *only, "--status", "cleared", "--json").json == []
        assert demo("alarm", "clear", id, *only).out == f"{id}  Too hot of hot: CLEARED_ACK\n"
        assert demo("alarm", "list", *only, "--status", "CLEARED_ACK").rows[0][0] == id
        assert "no such alarms" in demo("alarm", "list", *only, "--status", "active").out

    def test_ids_that_there_are_not(self, demo: Demo) -> None:
        ran = demo("alarm", "ack", "x", "y")
        assert (ran.code, len(ran.err.splitlines())) == (1, 2)
        assert ran.err.startswith("rulemill: there is no alarm 'x'; ")

    def test_none_at_all(self, demo: Demo) -> None:
        demo("tenant", "add", "calm")
        assert "rulemill node show create_alarm" in demo("alarm", "list", "--tenant", "calm").out


class TestDead:
    @pytest.fixture
    def failing(self, demo: Demo, tmp_path: Path, request: pytest.FixtureRequest) -> str:
        """A tenant in which 3 messages of device `unlucky` have failed; `keep.json` would save them."""
        name = request.node.name.replace("_", "-")
        demo("tenant", "add", name)
        (tmp_path / "fail.json").write_text(json.dumps(FAIL))
        (tmp_path / "keep.json").write_text(json.dumps(SAVE))
        assert demo("chain", "deploy", "fail.json", "--root", "keep", "--tenant", name, cwd=tmp_path).code == 0
        token = demo.new_device("unlucky", "--tenant", name)
        for n in range(3):
            demo.send(token, {"n": n})
        demo.until(lambda ran: ran.out.count("unlucky") == 3, "dead", "list", "--tenant", name)
        return name

    def test_what_failed_where_and_why(self, demo: Demo, failing: str) -> None:
        of = ("--tenant", failing)
        rows = demo("dead", "list", *of).rows
        assert all(row[2:4] == ["unlucky", "keep/fail"] and row[-1].endswith("no") for row in rows), rows
        shown = demo("dead", "show", rows[0][0], *of).out
        assert 'data      {"n": 2}' in shown
        assert "chain     keep version 1, deployment 2" in shown
        assert demo("dead", "show", rows[2][0], *of, "--json").json["data"] == {"n": 0}
        cut = demo("dead", "list", *of, "--limit", "2", "--json")
        assert (len(cut.json), "more than 2" in cut.err) == (2, True)

    def test_run_again_after_the_chain_was_mended(self, demo: Demo, tmp_path: Path, failing: str) -> None:
        of = ("--tenant", failing)
        one, *_ = demo("dead", "list", "--json", *of).json
        assert demo("dead", "redrive", one["id"], *of).out == "Run again: 1 of 1\n"
        demo.until(lambda ran: [each["at_ms"] for each in json.loads(ran.out) if each["id"] == one["id"]]
                   > [one["at_ms"]], "dead", "list", "--json", *of)  # fmt: skip
        assert demo("chain", "deploy", "keep.json", *of, cwd=tmp_path).code == 0
        assert demo("dead", "redrive", "--all", "--from-start", *of).out == "Run again: 3 of 3\n"
        ran = demo.until(
            lambda ran: len(json.loads(ran.out)) == 3, "points", "query", "unlucky", "-k", "n", "--json", *of
        )  # fmt: skip
        assert sorted(one["value"] for one in ran.json) == [0, 1, 2]
        assert "no dead letters" in demo("dead", "list", *of).out
        assert demo("dead", "redrive", "--all", *of).out == "Run again: 0 of 0\n"

    def test_forget(self, demo: Demo, failing: str) -> None:
        of = ("--tenant", failing)
        one, *_ = demo("dead", "list", *of).rows[0]
        ran = demo("dead", "drop", one, "x", *of)
        assert (ran.code, ran.out, ran.err) == (1, "Forgotten: 1 of 2\n", "rulemill: x: no dead letter 'x'\n")
        assert "Say --yes" in demo("dead", "drop", "--all", *of).err
        assert demo("dead", "drop", "--all", "--yes", *of).out == "Forgotten: 2 of 2\n"
        assert demo("dead", "list", "--json", *of).json == []

    def test_a_person_at_a_terminal_is_asked_and_sees_progress(self, demo: Demo, failing: str) -> None:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [*COMMAND, "dead", "drop", "--all", "--tenant", failing], env=environment(demo.folder),
            stdin=theirs, stdout=subprocess.PIPE, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        os.write(ours, b"y\n")
        out, _ = process.communicate(timeout=30)
        said = os.read(ours, 10_000).decode()
        os.close(ours)
        assert (process.returncode, out) == (0, b"Forgotten: 3 of 3\n")
        assert f"Forget 3 dead letters of tenant {failing} for good?" in said
        assert "\rForgotten: 3 of 3" in said

    def test_which_must_be_said(self, demo: Demo) -> None:
        for arguments in ((), ("x", "--all")):
            ran = demo("dead", "redrive", *arguments)
            assert (ran.code, "name the dead letters, or say --all" in ran.err) == (2, True)


class TestTail:
    def tailing(self, demo: Demo, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, "tail", *arguments], env=environment(demo.folder, TZ="UTC", PYTHONUNBUFFERED="1"), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # Whoever runs the tests in the background has told them, and so their children, to ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        assert process.stderr is not None
        assert "; Ctrl-C ends it." in process.stderr.readline()
        return process

    def lines(self, process: subprocess.Popen[str], demo: Demo, token: str, count: int) -> list[str]:
        """At least `count` lines about messages that are sent until they are seen: workers notice a new reader late."""
        assert process.stdout is not None
        seen = b""
        deadline = time.monotonic() + 20
        while seen.count(b"\n") < count:
            assert time.monotonic() < deadline, seen
            demo.send(token, {"temperature": 20, "text": "\u001b[31m"})
            if select.select([process.stdout], [], [], 0.1)[0]:
                seen += os.read(process.stdout.fileno(), 100_000)
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, "")
        return (seen.decode() + rest).splitlines()

    def test_lines_of_one_device(self, demo: Demo) -> None:
        token = demo.new_device("watched")
        noise = demo.new_device("noisy")
        process = self.tailing(demo, "--device", "watched")
        demo.send(noise, {"noise": 1})
        lines = self.lines(process, demo, token, 5)
        assert not any("noise" in line or "END" in line for line in lines)
        # That the device is active now is told of too, before or after.
        first = next(line for line in lines if "by type" in line and "ACTIVITY_EVENT" not in line)
        _, device, type, step, data = first.split("  ")
        assert (device, type, step) == ("watched", "POST_TELEMETRY_REQUEST", "demo/by type → Post telemetry")
        assert json.loads(data) == {"temperature": 20, "text": "\u001b[31m"}

    def test_json(self, demo: Demo) -> None:
        token = demo.new_device("watched-as-json")
        lines = self.lines(self.tailing(demo, "--json", "--device", "watched-as-json"), demo, token, 5)
        steps = [json.loads(line) for line in lines]
        assert {step["message"]["metadata"]["deviceName"] for step in steps} == {"watched-as-json"}

    def test_a_device_that_there_is_not(self, demo: Demo) -> None:
        ran = demo("tail", "--device", "nobody")
        assert (ran.code, ran.err) == (1, "rulemill: no device 'nobody'\n")


class TestStatus:
    def test_a_store_that_failed_once_is_not_said_to_take_points(self) -> None:
        fine = {"store": "influxdb", "worker": "w1", "circuit": "closed", "reason": "", "for_ms": 5}
        failed = {**fine, "worker": "w2", "reason": "no connection"}
        away = {**failed, "worker": "w3", "circuit": "open", "for_ms": 2500}
        assert _stores([fine, failed, away]) == [
            "influxdb: takes points",
            "influxdb: failed when it was last asked (w2: no connection)",
            "influxdb: has taken no points for 2.5 s (w3: no connection)",
        ]

    def test_overview(self, demo: Demo) -> None:
        ran = demo("status")
        facts, table = ran.out.split("\n\n")
        assert facts.splitlines()[0].split() == ["server", demo.facts["http"]]
        assert facts.splitlines()[1].startswith("workers       1: worker-")
        assert "store         sqlite: takes points" in facts.splitlines()
        assert "spool         0 B of points on their way to the store; messages are refused at 1.0 GiB" in facts
        assert len(table.splitlines()) == 17

    def test_json(self, demo: Demo) -> None:
        found = demo("status", "--json").json
        assert (found["ready"], found["failing"], len(found["partitions"])) == (True, {}, 16)


def test_tenants(demo: Demo) -> None:
    ran = demo("tenant", "add", "mill")
    assert ran.out.splitlines()[0] == "Made tenant mill; its messages start in root."
    assert ["mill", "root"] in demo("tenant", "list").rows
    assert "deployment         1 of 2" in demo("tenant", "show", "mill").out
    again = demo("tenant", "add", "mill")
    assert (again.code, "there is a tenant 'mill' already" in again.err) == (1, True)
    ran = demo("tenant", "add", "no such name")
    assert (ran.code, len(ran.err.splitlines())) == (1, 1)


def test_secrets(demo: Demo) -> None:
    demo("tenant", "add", "secretive")
    of = ("--tenant", "secretive")
    assert "rulemill secret set NAME" in demo("secret", "list", *of).out
    assert demo("secret", "set", "pw", *of, text="hush hush\n").out == "Set pw. Use it in a chain: ${secret:pw}\n"
    assert demo("secret", "list", *of).out == "pw\n"
    assert demo("secret", "list", "--json", *of).json == ["pw"]
    empty = demo("secret", "set", "pw", *of, text="\n")
    assert (empty.code, empty.err.startswith("rulemill: /value: ")) == (1, True)
    assert demo("secret", "delete", "pw", *of).out == "Removed pw.\n"
    assert demo("secret", "delete", "pw", *of).err == "rulemill: no secret 'pw'\n"
