"""The scripts of examples/thethingsio against the demo, as its README says."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.api.test_up import running
from tests.examples.folders import EXAMPLES
from tests.services import require

FOLDER = EXAMPLES / "thethingsio"

STEPS: list[tuple[str, list[tuple[int, Any]]]] = [
    # What is shown of each step: status and body of each answer that comes with its head; ... is any body.
    ("Register", [(201, {"status": "success", "message": "user created"})]),
    ("Login", [(200, {"expirationDate": 31536000})]),
    ("Link the thing", [(201, {"status": "success", "message": "created"})]),
    ("Which resources there are", [(200, ...)]),
    ("Let a friend read", [(200, {"status": "success", "message": "granted"})]),
    ("Write a value", [(201, {"status": "Success", "message": "Created"})]),
    ("Read it: of all things, then of one, page by page", [(200, ...), (200, ...), (200, [])]),
    (
        "Where the thing is",
        [
            (201, {"status": "created"}),
            (200, [{"key": "$geo", "value": {"type": "Point", "coordinates": [2.154007, 41.390205]}}]),
        ],
    ),
    (
        "What is set of the thing",
        [
            (200, [{"key": "$settings", "value": {"name": "My Thing", "foo": "bar"}}]),
            (200, [{"key": "$settings.name", "value": "My Thing"}]),
        ],
    ),
    (
        "What the user keeps",
        [
            (200, {"status": "success", "message": "updated"}),
            (200, {"hair-color": "pink", "phones": ["13246578", "99833212"]}),
        ],
    ),
    ("The server's clock", [(200, ...)]),
    (
        "An alert, from its raising to its end",
        [
            (201, {"status": "success", "message": "raised"}),
            (200, ...),
            (200, {"status": "success", "message": "deleted"}),
        ],
    ),
    (
        "An object, from its making to its end",
        [
            (201, {"status": "success", "message": "created", "id": "25"}),
            (400, {"status": "error", "code": 400, "message": "object already exists"}),
            (200, {"status": "success", "message": "updated"}),
            (200, {"results": [{"_id": "25", "name": "Dubstep Mix", "duration": 180}]}),
            (200, {"results": [{"_id": "25", "name": "Dubstep Mix", "duration": 180}]}),
            (200, {"status": "success", "message": "deleted"}),
        ],
    ),
]

ANSWER = re.compile(r"HTTP/1\.1 (\d+).*?\r\n\r\n([\[{].*?)(?=HTTP/1\.1 |\Z)", re.DOTALL)


def output(tmp_path: Path, facts: dict[str, Any], script: str, *arguments: str) -> str:
    done = subprocess.run(
        [str(FOLDER / script), *arguments], env=environment(tmp_path, facts), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def environment(tmp_path: Path, facts: dict[str, Any]) -> dict[str, str]:
    more = {"SESSION": str(tmp_path / "session"), "RULEMILL_DATA": str(tmp_path / "data")}
    return {**os.environ, **more, "MQTT_PORT": facts["mqtt"].rpartition(":")[2]}


def steps(shown: str) -> dict[str, str]:
    return {each.partition("\n")[0]: each.partition("\n")[2].strip("\n") for each in shown.split("== ")[1:]}


@pytest.mark.spec("TTI-3", "TTI-10", "TTI-13", "TTI-20", "TTI-22", "TTI-23", "TTI-35", "TTI-55", "TTI-66", "TTI-86")
def test_the_calls_as_printed(tmp_path: Path) -> None:
    for program in ("curl", "python3"):
        require(program)
    with running(tmp_path / "data", "--demo") as (_, facts):
        shown = steps(output(tmp_path, facts, "app.sh"))
        told = {"status": "error", "code": 401, "message": "Invalid session token"}
        assert json.loads(shown["Without a session"]) == told
        for step, wanted in STEPS:
            text = shown[step].replace("\r\n", "\n").replace("\n", "\r\n")
            answers = [(int(status), json.loads(body)) for status, body in ANSWER.findall(text)]
            assert [status for status, _ in answers] == [status for status, _ in wanted], (step, text)
            for (_, body), (_, expected) in zip(answers, wanted, strict=True):
                if isinstance(expected, dict):
                    assert body | expected == body, step
                elif expected is not ...:
                    assert body == expected, step
        assert shown["What is set of the thing"].startswith('{"status":"created"}{"status":"created"}')
        thing = facts["thethingsio"]["thing_id"]
        assert f'"things":["{thing}"]' in shown["Which resources there are"]
        assert f'{{"{thing}":[{{"value":15,' in shown["Read it: of all things, then of one, page by page"]
        assert '"type":"Help","severity":"MAJOR","active":true' in shown["An alert, from its raising to its end"]
        again = steps(output(tmp_path, facts, "app.sh"))
        assert "user already exists" in again["Register"]
        assert "HTTP/1.1 200" in again["Link the thing"]
        follows(tmp_path, facts)


def follows(tmp_path: Path, facts: dict[str, Any]) -> None:
    """The demo's chain tells apps what things send."""
    thing = facts["thethingsio"]["thing_id"]
    with subprocess.Popen(
        [str(FOLDER / "follow.sh")], env=environment(tmp_path, facts), stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        try:
            seen = process.stdout.read(1000)
            assert seen == b'{"status":"success","message":"subscribed"}'
            assert "created" in output(tmp_path, facts, "thing.sh", "22")
            while b'"value":22' not in seen:
                chunk = process.stdout.read(1000)
                assert chunk
                seen += chunk
            assert b'[{"value":22,"id":"%s"}]' % thing.encode() in seen
        finally:
            process.terminate()
