"""The CoAP listener of a whole server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.test_up import COMMAND, environment, latest, running
from tests.services import free_port, require


@pytest.mark.spec("G-1", "CT-X4", "TB-X3", "TTI-X9")
def test_the_listener_opens_when_it_is_named_and_one_of_two_processes_serves_it(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    more = {"RULEMILL_LISTEN_COAP": "127.0.0.1:0", "RULEMILL_API_PROCESSES": "2"}
    with running(folder, "--demo", **more) as (_, facts):
        device = facts["devices"]["cloudthing"]
        where = f"coap://{facts['listeners']['coap']}/v1/{device['device_id']}/data?t={device['token']}"
        for n in range(1, 6):
            body = f'{{"r":[{{"k":"n","v":{n}}}]}}'
            done = subprocess.run(
                [require("coap-client-notls"), "-m", "post", "-t", "50", "-B", "10", "-e", body, where],
                capture_output=True, timeout=20, check=True,
            )  # fmt: skip
            assert (done.stdout, done.stderr) == (b"", b"")
        assert latest(facts, "demo-sensor", "n", 5) == 5
        # Clients that leave before the answer, of which the network tells: others are served on.
        host, _, port = facts["listeners"]["coap"].rpartition(":")
        for n in range(20):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as leaving:
                leaving.sendto(b"\x40\x01\x12%c\xb3api\x02v1\x01x\x0aattributes" % n, (host, int(port)))
        # Another dialect, at its own paths of the same listener.
        token = facts["devices"]["thingsboard"]["token"]
        where = f"coap://{facts['listeners']['coap']}/api/v1/{token}/telemetry"
        done = subprocess.run(
            [require("coap-client-notls"), "-m", "post", "-B", "10", "-e", '{"temperature":21}', where],
            capture_output=True, timeout=20, check=True,
        )  # fmt: skip
        assert (done.stdout, done.stderr) == (b"", b"")
        assert latest(facts, "demo-thermometer", "temperature") == 21
        thing = f"coap://{facts['listeners']['coap']}/v2/things/{facts['thethingsio']['thing_token']}"
        done = subprocess.run(
            [require("coap-client-notls"), "-m", "get", "-B", "10", f"{thing}/resources"],
            capture_output=True, timeout=20, check=True,
        )  # fmt: skip
        assert json.loads(done.stdout)["status"] == "success"


def test_without_the_extra_the_start_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['aiocoap'] = None\n"
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'aiocoap' else real(name, package)\n"
        "from api.cli import main; sys.argv = ['rulemill', 'up']; main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path / "data", RULEMILL_LISTEN_COAP="127.0.0.1:0"),
        capture_output=True, text=True, timeout=30, check=False, cwd=os.getcwd(),
    )  # fmt: skip
    assert done.returncode == 2
    assert "pip install 'rulemill[coap]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_name_it_stays_closed_and_its_library_is_not_needed(tmp_path: Path) -> None:
    with running(tmp_path / "data") as (_, facts):
        assert "coap" not in facts["listeners"]


@pytest.mark.spec("G-2")
def test_a_taken_port_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    port = f"127.0.0.1:{free_port()}"
    with running(tmp_path / "one", RULEMILL_LISTEN_COAP=port):
        second = subprocess.run(
            [*COMMAND, "up"], env=environment(tmp_path / "two", RULEMILL_LISTEN_COAP=port),
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert second.returncode == 2
    assert f"RULEMILL_LISTEN_COAP={port}" in second.stderr
