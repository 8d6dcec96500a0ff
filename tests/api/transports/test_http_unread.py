"""Requests that are answered before their body was read leave nothing behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from api.transports.http import Front, HttpError, Request, Response, Route
from engine.config import Tls
from tests.api.transports.serving import serving
from tests.certificates import certificate

pytestmark = pytest.mark.asyncio

Server = Literal["uvicorn", "hypercorn"]
HEAD = b"POST /refused HTTP/1.1\r\nHost: x\r\n"
CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100


class Refusing:
    """Wants nothing of anybody."""

    name, cors = "refusing", False

    def __init__(self) -> None:
        self.routes = (Route("POST", "/refused", self.refuse),)

    def owns(self, request: Request) -> bool:
        return True

    def error(self, request: Request, status: int, reason: str, headers: Any = ()) -> Response:
        return Response(status, reason.encode(), headers)

    async def refuse(self, request: Request, params: dict[str, str]) -> Response:
        await asyncio.sleep(0.05)  # all that was sent is there by now
        raise HttpError(401, "no")


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
@pytest.mark.parametrize("end", [b"0\r\n\r\n", b"", b"\r\n"], ids=["whole", "half", "broken"])
async def test_the_connection_ends_or_goes_on_but_does_not_hang(server: Server, end: bytes) -> None:
    async with serving(Front([Refusing()]), server) as served:
        reader, writer = await served.raw(HEAD + CHUNKS + end)
        async with asyncio.timeout(5):
            assert b" 40" in await reader.readline()
            writer.write(b"GET /other HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await reader.read()
        writer.close()


async def test_other_requests_of_the_same_connection_go_on_over_http_2(tmp_path: Path) -> None:
    async with serving(Front([Refusing()]), "hypercorn", tls=Tls(*certificate(tmp_path))) as served:
        url = f"https://127.0.0.1:{served.port}/refused"
        one = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(http1=False, http2=True, verify=False, limits=one, timeout=5) as client:
            for _ in range(3):
                answers = [client.post(url, content=b"x" * 2_000_000) for _ in range(3)]
                assert [answer.status_code for answer in await asyncio.gather(*answers)] == [401] * 3
