"""A client that leaves takes its connection with it, whatever it was doing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from api.transports.http import Front
from engine.config import Tls
from tests.api.transports.serving import serving
from tests.api.transports.test_http_deadlines import HEAD, Taking
from tests.certificates import certificate
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio

GET = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"
TO_HTTP_2 = GET.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GE",
        GET,
        GET + GET,
        GET + b"GET",
        HEAD,
        HEAD + b"x" * 999,
        HEAD + b"x" * 1000,
        GET + HEAD,
        b"?\n",
        TO_HTTP_2,
    ],
)
async def test_nothing_is_left_of_a_connection(server: Literal["uvicorn", "hypercorn"], said: bytes) -> None:
    async with serving(Front([Taking()]), server) as served:
        assert (await served.http.get("/x")).status_code == 200
        tasks = len(asyncio.all_tasks())
        _, writer = await served.raw(said, pause_s=0.01)
        writer.close()
        _, other = await served.raw(said)
        other.transport.abort()
        await until(lambda: len(asyncio.all_tasks()) <= tasks, 5)


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
async def test_an_upgrade_to_http_2_is_answered_as_if_nobody_had_asked(server: Literal["uvicorn", "hypercorn"]) -> None:
    async with serving(Front([Taking()]), server) as served:
        reader, writer = await served.raw(TO_HTTP_2)
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_nothing_is_left_of_a_connection_over_http_2(tmp_path: Path) -> None:
    async with serving(Front([Taking()]), "hypercorn", tls=Tls(*certificate(tmp_path))) as served:
        url = f"https://127.0.0.1:{served.port}/x"
        options: Any = {"http1": False, "http2": True, "verify": False, "timeout": 5}
        async with httpx.AsyncClient(**options) as client, httpx.AsyncClient(**options) as other:
            assert (await client.get(url)).http_version == "HTTP/2"
            tasks = len(asyncio.all_tasks())
            assert [(await other.get(url)).http_version for _ in range(2)] == ["HTTP/2"] * 2
            assert len(asyncio.all_tasks()) > tasks
            await other.aclose()
            await until(lambda: len(asyncio.all_tasks()) <= tasks, 5)
