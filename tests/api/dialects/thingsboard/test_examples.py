"""The scripts of examples/thingsboard on a server as a user starts it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.test_up import running
from tests.examples.folders import EXAMPLES
from tests.services import require

FOLDER = EXAMPLES / "thingsboard"
DEVICE = "a7f2ba40-0000-4000-8000-000000000001"
FIVE = {
    "stringKey": "value1",
    "booleanKey": True,
    "doubleKey": 42.0,
    "longKey": 73,
    "jsonKey": {"someNumber": 42, "someArray": [1, 2, 3], "someNestedObject": {"key": "value"}},
}


def steps(output: str) -> dict[str, str]:
    """What the script has written below each of its headings."""
    parts = re.split(r"^# (.*)\n", output, flags=re.MULTILINE)
    return {title: text.strip() for title, text in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.spec(
    "TB-5", "TB-6", "TB-7", "TB-8", "TB-9", "TB-10", "TB-11", "TB-12", "TB-16", "TB-17", "TB-21", "TB-31", "TB-34",
    "TB-42", "TB-43", "TB-46", "TB-50", "TB-55", "TB-60", "TB-61", "TB-S20", "TB-S26",
)  # fmt: skip
def test_the_documented_commands_run_as_they_are_printed(tmp_path: Path) -> None:
    require("curl")
    with running(tmp_path / "data", "--bootstrap", str(FOLDER / "bootstrap.json"), RULEMILL_WORKERS="1") as (_, facts):
        ran = subprocess.run(
            [str(FOLDER / "seed.sh")], env={**os.environ, "TB_URL": facts["http"]}, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        # Two of them run at a time, and curl writes the mark of an answer's line apart from the line.
        statuses = re.findall(r"HTTP/1\.1 (\d{3})\b", ran.stderr)
        assert statuses == ["200"] * 14
        told = steps(ran.stdout)
        reads = "Request attribute values from the server"
        assert told[reads] == '{"client":{"attribute1":"value1","attribute2":true}}'
        updated = told["Subscribe to attribute updates; the operator sets shared attributes"]
        assert json.loads(updated) == {"attribute1": "value1", "attribute2": True}
        command = json.loads(told["Server-side RPC; the operator calls connect"])
        assert command == {"id": 1, "method": "connect", "params": {}}
        assert told["What the operator got"] == '{"result":"ok"}'
        assert list(json.loads(told["Client-side RPC"])) == ["time"]
        claimed = json.loads(told["Claiming devices; a customer claims the device, and gives it back"])
        assert (claimed["response"], claimed["device"]["name"]) == ("SUCCESS", "Test Device A1")
        provisioned = json.loads(told["Device provisioning"])
        assert provisioned.keys() == {"credentialsValue", "credentialsType", "status"}
        shared, image = told["Firmware API; which firmware it is stands in shared attributes"].split("}}")
        assert json.loads(shared + "}}")["shared"].keys() == {
            "fw_title", "fw_version", "fw_checksum", "fw_checksum_algorithm"
        }  # fmt: skip
        assert image == "This is firmware 1.2."
        check_what_was_kept(facts, provisioned["credentialsValue"])


def check_what_was_kept(facts: dict[str, Any], new_token: str) -> None:
    with httpx.Client(base_url=facts["http"], headers={"Authorization": f"Bearer {facts['operator_token']}"}) as flow:
        place = f"/flow/v1/tenants/thingsboard/devices/{DEVICE}"
        wanted = {**FIVE, "temperature": 42, "humidity": 73, "key1": "value1", "key2": True}
        points = flow.get(f"{place}/points/latest").json()["points"]
        values = {point["key"]: point["value"] for point in points}
        assert wanted.items() <= values.items()
        assert (type(values["doubleKey"]), type(values["longKey"])) == (float, int)
        old = flow.get(f"{place}/points", params={"start_ms": 1451649600512, "end_ms": 1451649600513}).json()["points"]
        assert {point["key"]: point["value"] for point in old} == FIVE
        client = flow.get(f"{place}/attributes", params={"scope": "CLIENT"}).json()["attributes"]["CLIENT"]
        assert {key: each["value"] for key, each in client.items()} == {
            "attribute1": "value1", "attribute2": True, "attribute3": 42.0, "attribute4": 73,
            "attribute5": FIVE["jsonKey"],
        }  # fmt: skip
        assert flow.get(f"/api/v1/{new_token}/attributes").status_code == 200
