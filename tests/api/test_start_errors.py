"""What keeps a server from starting is told in a line that says what to change, never by a traceback."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from api.embedded_redis import find_binary
from tests.api.test_up import COMMAND, environment
from tests.services import free_port, running_influx


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[str]:
    """A Redis of the user's own; its URL."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [find_binary(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


def refused(folder: Path, *arguments: str, **more: str) -> str:
    """What a command says that cannot start."""
    done = subprocess.run(
        [*COMMAND, *arguments], env=environment(folder, **more), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("role", ["up", "api", "worker"])
def test_a_redis_without_a_log_is_refused_by_every_role(role: str, tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis", "--appendonly", "no") as url:
        wait_for(url)
        assert "set `appendonly yes`" in refused(tmp_path / "data", role, RULEMILL_REDIS_URL=url)


@pytest.mark.parametrize("role", ["up", "api", "worker"])
def test_a_redis_that_throws_keys_away_is_refused_by_every_role(role: str, tmp_path: Path) -> None:
    options = ("--appendonly", "yes", "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
    with redis_server(tmp_path / "redis", *options) as url:
        wait_for(url)
        assert "set `maxmemory-policy noeviction`" in refused(tmp_path / "data", role, RULEMILL_REDIS_URL=url)


def test_an_influxdb_that_does_not_let_us_in_is_told_by_every_role(tmp_path: Path) -> None:
    folder = tmp_path / "influx"
    folder.mkdir()
    with (
        redis_server(tmp_path / "redis", "--appendonly", "yes") as redis_url,
        running_influx(folder, "http.auth-enabled = true") as influx,
    ):
        wait_for(redis_url)
        root = {"q": "CREATE USER root WITH PASSWORD 'r00t' WITH ALL PRIVILEGES"}
        httpx.post(f"{influx.url}/query", data=root).raise_for_status()
        secret = {"RULEMILL_INFLUX_USERNAME": "joe", "RULEMILL_INFLUX_PASSWORD": "s3cret"}
        for role in ("up", "api", "worker"):
            said = refused(
                tmp_path / "data", role, RULEMILL_REDIS_URL=redis_url, RULEMILL_INFLUX_URL=influx.url, **secret
            )
            assert "InfluxDB refuses the credentials or the right (401)" in said
            assert "s3cret" not in said


def test_an_api_apart_says_where_it_is_and_lets_its_operator_in(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with redis_server(tmp_path / "redis", "--appendonly", "yes") as url:
        wait_for(url)
        process = subprocess.Popen(
            [*COMMAND, "api"], env=environment(folder, RULEMILL_REDIS_URL=url), stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            said = ""
            while "ready" not in said:
                said = process.stdout.readline()
                assert said, "ended before it was ready"
            facts = json.loads((folder / "ready.json").read_text())
            assert facts["http"] in said
            headers = {"Authorization": f"Bearer {facts['operator_token']}"}
            assert httpx.get(f"{facts['http']}/flow/v1/tenants", headers=headers).status_code == 200
        finally:
            process.terminate()
            process.communicate(timeout=15)
        assert process.returncode == 0
        assert not (folder / "ready.json").exists()


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = refused(tmp_path / "file" / "data", "up")
    assert f"{tmp_path}/file/data" in said
    assert "RULEMILL_DATA" in said


def test_a_redis_url_of_no_known_kind_is_named(tmp_path: Path) -> None:
    assert "cannot reach Redis at localhost:6379" in refused(
        tmp_path / "data", "up", RULEMILL_REDIS_URL="localhost:6379"
    )


def test_certificate_files_that_cannot_be_read_are_named_by_their_setting(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("no key")
    said = refused(
        tmp_path / "data", "up", RULEMILL_LISTEN_HTTPS="127.0.0.1:0",
        RULEMILL_TLS_CERTIFICATE=str(tmp_path / "none.pem"), RULEMILL_TLS_KEY=str(tmp_path / "key.pem"),
    )  # fmt: skip
    assert "tls.certificate" in said
    assert "none.pem" in said


def test_each_finding_is_one_line_with_its_hint(tmp_path: Path) -> None:
    said = refused(tmp_path / "data", "up", RULEMILL_HTP="x", RULEMILL_WORKRS="2")
    assert said.splitlines() == [
        "rulemill: RULEMILL_HTP: there is no variable of that name; did you mean RULEMILL_HTTP?",
        "rulemill: RULEMILL_WORKRS: there is no variable of that name; did you mean RULEMILL_WORKERS?",
    ]


def wait_for(url: str) -> None:
    import redis

    deadline = time.monotonic() + 10
    while True:
        try:
            with redis.Redis.from_url(url) as client:
                client.ping()
            return
        except redis.ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
