"""`rulemill up` as users start it: a process, an empty folder, real sockets."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.dialect_settings import dialect_settings
from api.up import _environment
from engine.config import load
from tests.services import free_port

COMMAND = [str(Path(sys.executable).parent / "rulemill")]


def environment(folder: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RULEMILL_")}
    return {
        **kept, "RULEMILL_DATA": str(folder), "RULEMILL_HTTP": "127.0.0.1:0", "RULEMILL_MQTT": "127.0.0.1:0", **more
    }  # fmt: skip


@contextmanager
def running(folder: Path, *arguments: str, **more: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A started server and its ready.json."""
    process = subprocess.Popen(
        [*COMMAND, "up", *arguments], env=environment(folder, **more), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process, wait_ready(process, folder)
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=20)


def wait_ready(process: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode}: {process.communicate()[0]}")
        try:
            return json.loads((folder / "ready.json").read_text())
        except (OSError, ValueError):
            time.sleep(0.05)
    raise AssertionError("not ready in time")


def latest(facts: dict[str, Any], device: str, key: str, wanted: Any = None) -> Any:
    """The latest value of a key, waiting until there is one, or the `wanted`."""
    headers = {"Authorization": f"Bearer {facts['operator_token']}"}
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        url = f"{facts['http']}/flow/v1/tenants/demo/devices/{device}/points/latest"
        for point in httpx.get(url, headers=headers, params={"keys": key}).json()["points"]:
            if wanted is None or point["value"] == wanted:
                return point["value"]
        time.sleep(0.05)
    raise AssertionError(f"no point {key}" if wanted is None else f"{key} is never {wanted}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_the_demo_shows_a_point_an_alarm_and_an_answer(folder: Path) -> None:
    with running(folder, "--demo") as (_, facts):
        device = facts["devices"]["thingsboard"]
        api = f"{facts['http']}/api/v1/{device['token']}"
        assert httpx.post(f"{api}/telemetry", content=b'{"temperature": 42}').status_code == 200
        assert latest(facts, device["id"], "temperature") == 42
        answer = httpx.post(f"{api}/rpc", json={"method": "getTime", "params": {}})
        assert (answer.status_code, list(answer.json())) == (200, ["time"])
        headers = {"Authorization": f"Bearer {facts['operator_token']}"}
        [alarm] = httpx.get(f"{facts['http']}/flow/v1/tenants/demo/alarms", headers=headers).json()["alarms"]
        assert (alarm["type"], alarm["severity"]) == ("Too hot", "CRITICAL")
        cloudthing = facts["devices"]["cloudthing"]
        sent = httpx.post(
            f"http://{facts['listeners']['ct_http']}/v1/{cloudthing['device_id']}/data",
            content=b'{"r":[{"k":"temp","v":36.6}]}', headers={"Content-Type": "application/json"},
            auth=(cloudthing["device_id"], cloudthing["token"]),
        )  # fmt: skip
        assert sent.status_code == 200


@pytest.mark.spec("G-4", "G-7")
def test_each_path_answers_in_its_owners_shape(folder: Path) -> None:
    with running(folder, "--demo") as (_, facts):
        token = facts["devices"]["thingsboard"]["token"]
        nobody = httpx.get(f"{facts['http']}/nobody/owns/this")
        assert (nobody.status_code, nobody.json()) == (404, {"message": "Not Found"})
        thingsboard = httpx.get(f"{facts['http']}/api/v1/{token}/nothing")
        assert (thingsboard.status_code, thingsboard.json()["status"]) == (404, 404)
        cloudthing = httpx.get(f"{facts['http']}/v1/device/nothing")
        assert (cloudthing.status_code, cloudthing.json()["code"]) == (404, 404)
        flow = httpx.get(f"{facts['http']}/flow/v1/nothing", headers={"Authorization": "Bearer wrong"})
        assert flow.headers["content-type"] == "application/problem+json"
        assert httpx.get(f"{facts['http']}/livez").status_code == 200
        assert httpx.get(f"{facts['http']}/metrics").status_code == 401


def test_secrets_lie_in_files_that_only_their_owner_reads_and_stay_over_a_restart(folder: Path) -> None:
    with running(folder, "--demo") as (_, first):
        for name in ("ready.json", "demo.json", "operator-token"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert not (folder / "ready.json").exists()
    with running(folder, "--demo") as (_, second):
        assert second["devices"] == first["devices"]
        assert second["operator_token"] == first["operator_token"]


def test_sigterm_ends_it_in_order_and_nothing_is_lost(folder: Path) -> None:
    with running(folder, "--demo") as (process, facts):
        device = facts["devices"]["thingsboard"]
        for n in range(50):
            sent = httpx.post(f"{facts['http']}/api/v1/{device['token']}/telemetry", content=b'{"n": %d}' % n)
            assert sent.status_code == 200
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=20)[0]
        assert process.returncode == 0, output
        assert time.monotonic() - began < 10
        assert "Traceback" not in output
    with running(folder, "--demo") as (_, facts):
        headers = {"Authorization": f"Bearer {facts['operator_token']}"}
        url = f"{facts['http']}/flow/v1/tenants/demo/devices/{device['id']}/points"
        points = httpx.get(url, headers=headers, params={"keys": "n", "start_ms": 0}).json()["points"]
        assert [point["value"] for point in points] == list(range(50))


def test_a_second_server_on_the_same_folder_is_refused(folder: Path) -> None:
    with running(folder):
        second = subprocess.run(
            [*COMMAND, "up"], env=environment(folder), capture_output=True, text=True, timeout=30, check=False
        )
        assert second.returncode == 2
        assert "another server runs on" in second.stderr
        assert "Traceback" not in second.stderr


def test_everything_dies_with_a_killed_parent(folder: Path) -> None:
    with running(folder) as (process, facts):
        process.kill()
        process.wait(10)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{facts['http']}/livez", timeout=1)
            except httpx.HTTPError:
                break
            time.sleep(0.1)
        else:
            raise AssertionError("the API lives on without its parent")
        (folder / "ready.json").unlink()
        with running(folder) as (_, again):
            assert httpx.get(f"{again['http']}/readyz").status_code == 200


@pytest.mark.spec("G-2")
def test_a_named_port_that_is_taken_is_an_error_that_names_the_setting(folder: Path) -> None:
    with running(folder) as (_, facts):
        taken = facts["http"].removeprefix("http://")
        second = subprocess.run(
            [*COMMAND, "up", "--demo"], env=environment(folder.with_name("other"), RULEMILL_HTTP=taken),
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert second.returncode == 2
        assert f"RULEMILL_HTTP={taken}" in second.stderr


def test_unnamed_ports_fall_back_under_demo_so_that_servers_run_side_by_side(tmp_path: Path) -> None:
    def start(name: str) -> Any:
        return running(tmp_path / name, "--demo", RULEMILL_HTTP="", RULEMILL_MQTT="")

    with start("one") as (_, one), start("two") as (process, two):
        assert one["http"] != two["http"]
        assert one["mqtt"] != two["mqtt"]
        assert httpx.get(f"{two['http']}/livez").status_code == 200
        process.terminate()
        assert "is taken: http is at" in process.communicate(timeout=20)[0]


def test_roles_run_apart_on_one_redis(folder: Path) -> None:
    with running(folder, "--demo") as (_, facts):
        # A second API process beside the first, on the same Redis: its own door, the same devices.
        import redis

        socket = folder / "redis" / "redis.sock"
        url = f"unix://{socket}"
        if not socket.exists():
            pytest.skip("the data folder's path is too long for a socket in it")
        assert redis.Redis.from_url(url).ping()
        port = free_port()
        other = environment(folder, RULEMILL_REDIS_URL=url, RULEMILL_HTTP=f"127.0.0.1:{port}")
        process = subprocess.Popen([*COMMAND, "api"], env=other, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        try:
            device = facts["devices"]["thingsboard"]
            deadline = time.monotonic() + 20
            while True:
                try:
                    where = f"http://127.0.0.1:{port}/api/v1/{device['token']}/telemetry"
                    assert httpx.post(where, content=b'{"apart": 7}').status_code == 200
                    break
                except httpx.HTTPError:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            assert latest(facts, device["id"], "apart") == 7
        finally:
            process.terminate()
            assert process.wait(15) == 0


def test_a_worker_without_redis_says_what_to_set(folder: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "worker"], env=environment(folder), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert "RULEMILL_REDIS_URL" in done.stderr


@pytest.mark.parametrize("demo", [True, False])
def test_what_is_set_by_flags_reaches_every_process(demo: bool) -> None:
    """Flags are the parent's alone; its children come to the same settings by their environment."""
    flags = {"smtp_url": "smtp://u:p@h:25", "mail_from": "a@b.c", "retention_days": 3}
    loaded = load(flags, {})
    settings = load({}, _environment(loaded, "unix:///x", "t" * 32, demo)).settings
    for name, value in flags.items():
        assert getattr(settings, name) == getattr(loaded.settings, name) == value
    assert dialect_settings(settings).thethingsio.require_tls is not demo
