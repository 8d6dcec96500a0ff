"""Requests that are answered before their body was read leave nothing behind."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from api.transports.http import Front, HttpError, Request, Response, Route
from engine.config import Tls
from tests.api.transports.serving import serving
from tests.certificates import certificate
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio

Server = Literal["uvicorn", "hypercorn"]
HEAD = b"POST /refused HTTP/1.1\r\nHost: x\r\n"
CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100


class Refusing:
    """Takes one thing late, and wants nothing else."""

    name, cors = "refusing", False

    def __init__(self) -> None:
        self.took: list[int] = []
        self.routes = (Route("POST", "/refused", self.refuse), Route("POST", "/taken", self.take))

    def owns(self, request: Request) -> bool:
        return True

    def error(self, request: Request, status: int, reason: str, headers: Any = ()) -> Response:
        return Response(status, reason.encode(), headers)

    async def refuse(self, request: Request, params: dict[str, str]) -> Response:
        await asyncio.sleep(0.05)  # all that was sent is there by now
        raise HttpError(401, "no")

    async def take(self, request: Request, params: dict[str, str]) -> Response:
        await asyncio.sleep(0.05)  # the client has left by now
        self.took.append(len(await request.body(1000)))
        return Response(200, b"ok")


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


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
async def test_a_client_that_leaves_before_the_answer_is_let_go(server: Server) -> None:
    async with serving(Front([Refusing()]), server) as served:
        await served.http.get("/")
        tasks = len(asyncio.all_tasks())
        _, writer = await served.raw(HEAD + CHUNKS + b"0\r\n\r\n", pause_s=0.02)
        reset = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        writer.transport.abort()
        await until(lambda: len(asyncio.all_tasks()) <= tasks, 5)


@pytest.mark.parametrize("count", [1, 8, 9, 10, 100])
async def test_what_came_whole_is_taken_though_its_client_has_left(count: int) -> None:
    surface = Refusing()
    async with serving(Front([surface]), "hypercorn") as served:
        sent = HEAD.replace(b"refused", b"taken") + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * count
        _, writer = await served.raw(sent + b"0\r\n\r\n")
        writer.close()
        await until(lambda: surface.took == [count], 5)


async def test_other_requests_of_the_same_connection_go_on_over_http_2(tmp_path: Path) -> None:
    async with serving(Front([Refusing()]), "hypercorn", tls=Tls(*certificate(tmp_path))) as served:
        url = f"https://127.0.0.1:{served.port}/refused"
        one = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(http1=False, http2=True, verify=False, limits=one, timeout=5) as client:
            for _ in range(3):
                answers = [client.post(url, content=b"x" * 2_000_000) for _ in range(3)]
                assert [answer.status_code for answer in await asyncio.gather(*answers)] == [401] * 3
