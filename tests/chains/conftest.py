from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis


@pytest.fixture(scope="session")
def redis_socket() -> Iterator[str]:
    """The unix socket of a Redis server that holds nothing on disk."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        pytest.skip("there is no redis-server or valkey-server on PATH")
    with tempfile.TemporaryDirectory(prefix="rulemill-") as folder:
        socket = str(Path(folder) / "redis.sock")
        settings = ["--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder]
        server = subprocess.Popen([binary, *settings], stdout=subprocess.DEVNULL)
        try:
            for _ in range(500):
                if Path(socket).exists():
                    break
                time.sleep(0.01)
            yield socket
        finally:
            server.terminate()
            server.wait(10)


@pytest_asyncio.fixture
async def redis(redis_socket: str) -> AsyncIterator[Redis]:
    """A client of an empty Redis."""
    client = Redis(unix_socket_path=redis_socket)
    await client.flushall()
    yield client
    await client.aclose()
