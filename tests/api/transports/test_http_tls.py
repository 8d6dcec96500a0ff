"""TLS listeners: which protocol is offered, and that both servers take a client that other people wrote."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Literal

import pytest

from api.transports.http import Front
from api.transports.http_deadlines import Deadlines
from engine.config import Tls
from tests.api.transports.serving import serving
from tests.api.transports.test_http_deadlines import Taking
from tests.certificates import certificate
from tests.services import require

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls(*certificate(tmp_path_factory.mktemp("tls")))


@pytest.mark.spec("TB-1", "G-1", "G-3")
@pytest.mark.parametrize(
    ("server", "http2", "version"), [("uvicorn", True, "1.1"), ("hypercorn", True, "2"), ("hypercorn", False, "1.1")]
)
async def test_curl_over_tls(tls: Tls, server: Literal["uvicorn", "hypercorn"], http2: bool, version: str) -> None:
    curl = require("curl")
    taking = Taking()
    async with serving(Front([taking]), server, tls=tls, http2=http2) as made:
        command = [
            curl,
            "-sk",
            "-w",
            " %{http_code} %{http_version}",
            "-d",
            "12345",
            f"https://127.0.0.1:{made.port}/x",
        ]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=10, check=True)
        assert done.stdout == f"ok 200 {version}"
        assert taking.took == [5]


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
async def test_who_does_not_shake_hands_is_cut(tls: Tls, server: Literal["uvicorn", "hypercorn"]) -> None:
    async with serving(Front([Taking()]), server, Deadlines(handshake_s=0.3), tls=tls) as made:
        reader, writer = await made.raw(b"")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
