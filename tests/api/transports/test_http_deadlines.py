"""Clients that are too slow are cut off; those that are only slow are not."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest

from api.transports.http import Front, Request, Response, Route
from api.transports.http_deadlines import MAX_HEAD_BYTES, Deadlines
from tests.api.transports.serving import serving

pytestmark = pytest.mark.asyncio

LIMITS = Deadlines(head_s=0.4, body_s=0.4, body_rate=100, write_stall_s=0.5)
Server = Literal["uvicorn", "hypercorn"]
HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"


class Taking:
    """Reads bodies, and notes how reading ended."""

    name, cors = "taking", False

    def __init__(self, answer: bytes = b"ok") -> None:
        self.answer = answer
        self.took: list[Any] = []
        self.routes = (Route("POST", "/x", self.take), Route("GET", "/x", self.give))

    def owns(self, request: Request) -> bool:
        return True

    def error(self, request: Request, status: int, reason: str, headers: Any = ()) -> Response:
        return Response(status, reason.encode(), headers)

    async def take(self, request: Request, params: dict[str, str]) -> Response:
        try:
            self.took.append(len(await request.body(10_000_000)))
        except Exception as error:
            self.took.append(type(error).__name__)
            raise
        return Response(200, self.answer)

    async def give(self, request: Request, params: dict[str, str]) -> Response:
        return Response(200, self.answer)


async def rest(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the server closes, which it must."""
    async with asyncio.timeout(5):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def trickle(writer: asyncio.StreamWriter, part: bytes, every_s: float) -> None:
    try:
        while True:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(every_s)
    except ConnectionError:
        pass


@pytest.mark.parametrize(
    "sent", [b"", b"POST", b"POST /x HTTP/1.1\r\nHost: x\r\n", b"GET /x HTTP/1.1\r\nHost: x\r\n\r\nGET /x HT"]
)
async def test_half_a_head_is_not_waited_for(sent: bytes) -> None:
    async with serving(Front([Taking()]), deadlines=LIMITS) as made:
        reader, writer = await made.raw(sent)
        answer = await rest(reader)
        assert answer.endswith(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        writer.close()


@pytest.mark.parametrize("part", [b"\r\n", b"X-A: b\r\n"])
async def test_a_head_that_trickles_is_cut(part: bytes) -> None:
    async with serving(Front([Taking()]), deadlines=LIMITS) as made:
        start = b"" if part == b"\r\n" else b"GET /x HTTP/1.1\r\n"
        for before in (b"", b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"):
            reader, writer = await made.raw(before)
            if before:
                await reader.readuntil(b"ok")
            writer.write(start)
            task = asyncio.create_task(trickle(writer, part, 0.05))
            assert b" 408 " in await rest(reader)
            task.cancel()
            writer.close()


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
async def test_a_body_that_trickles_is_cut(server: Server) -> None:
    taking = Taking()
    async with serving(Front([taking]), server, LIMITS) as made:
        reader, writer = await made.raw(HEAD)
        task = asyncio.create_task(trickle(writer, b"x", 0.05))
        answer = await rest(reader)
        assert b" 200 " not in answer
        if server == "uvicorn":
            assert b" 408 " in answer
        assert taking.took == ["Gone"]
        task.cancel()
        writer.close()


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
async def test_a_body_at_a_fair_rate_is_read_however_long_it_takes(server: Server) -> None:
    taking = Taking()
    async with serving(Front([taking]), server, LIMITS) as made:
        reader, writer = await made.raw(HEAD, *[b"x" * 100] * 10, pause_s=0.1)
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        assert taking.took == [1000]
        writer.close()


async def test_a_silent_connection_is_kept_between_requests() -> None:
    async with serving(Front([Taking()]), deadlines=LIMITS) as made:
        reader, writer = await made.raw(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(2):
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(1.0)
            writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_a_head_without_end_is_cut() -> None:
    async with serving(Front([Taking()]), deadlines=LIMITS) as made:
        reader, writer = await made.raw(b"GET /x HTTP/1.1\r\n")
        for i in range(2 * MAX_HEAD_BYTES // 1024):
            writer.write(b"X-%d: %s\r\n" % (i, b"y" * 1024))
        answer = await rest(reader)
        assert answer == b"" or b" 431 " in answer
        writer.close()
        assert (await made.http.get("/x")).status_code == 200


async def test_who_does_not_read_the_answer_is_cut() -> None:
    async with serving(Front([Taking(b"x" * 20_000_000)]), deadlines=LIMITS) as made:
        reader, writer = await made.raw(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(1.0)
        assert len(await rest(reader)) < 20_000_000
        writer.close()


async def test_a_thousand_trickles_do_not_keep_others_waiting() -> None:
    limits = Deadlines(head_s=2.0)
    async with serving(Front([Taking()]), deadlines=limits) as made:
        slow = [await made.raw(b"GET /x HTTP/1.1\r\n") for _ in range(300)]
        assert [(await made.http.get("/x")).status_code for _ in range(20)] == [200] * 20
        for reader, writer in slow:
            assert b" 408 " in await rest(reader)
            writer.close()
