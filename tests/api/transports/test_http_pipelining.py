"""Requests sent before the one ahead of them is answered: served in turn, in bounded memory, told when nobody waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.transports.http import Front, Gone, Request, Response, Route
from api.transports.http_deadlines import Deadlines
from api.transports.http_pipelining import SLICE_BYTES
from tests.api.transports.serving import Served, serving
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio

LIMITS = Deadlines(head_s=0.4, body_s=0.4, body_rate=100)


class Gated:
    """`/echo` answers its body, `/wait` once `gate` is open; who left while waiting is in `left`."""

    name, cors = "gated", False

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.waiting = 0
        self.left: list[str] = []
        self.unanswered = 0
        self.routes = (
            Route("POST", "/echo", self.echo), Route("GET", "/wait/{name}", self.wait), Route("GET", "/gone", self.go)
        )  # fmt: skip

    def owns(self, request: Request) -> bool:
        return True

    def error(self, request: Request, status: int, reason: str, headers: Any = ()) -> Response:
        return Response(status, reason.encode(), headers)

    async def echo(self, request: Request, params: dict[str, str]) -> Response:
        return Response(200, await request.body(10_000_000))

    async def wait(self, request: Request, params: dict[str, str]) -> Response:
        self.waiting += 1
        await self.gate.wait()
        return Response(200, params["name"].encode())

    async def go(self, request: Request, params: dict[str, str]) -> Response:
        self.waiting += 1
        await request.gone()
        self.left.append("gone")
        raise Gone


def get(path: str) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode()


def post(body: bytes) -> bytes:
    return b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def answer(reader: asyncio.StreamReader) -> bytes:
    """The body of the next answer, which must be a 200."""
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        size = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
        return await reader.readexactly(int(size.split(b":")[1]))


async def rest(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the server closes, which it must."""
    async with asyncio.timeout(5):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


def connections(served: Served) -> set[Any]:
    return served.listener._server._state.connections


async def test_all_are_answered_in_their_order_however_they_are_cut() -> None:
    async with serving(Front([Gated()])) as served:
        bodies = [b"%d" % i * (1 + i % 7) for i in range(3000)] + [b"x" * 300_000, b"", b"y" * SLICE_BYTES, b"last"]
        sent = b"".join(map(post, bodies))
        reader, writer = await served.raw()

        async def send() -> None:
            for at in range(0, len(sent), 70_001):
                writer.write(sent[at : at + 70_001])
                await writer.drain()

        sending = asyncio.create_task(send())
        assert [await answer(reader) for _ in bodies] == bodies
        await sending
        writer.close()


async def test_what_waits_behind_the_others_is_not_read_before_its_turn() -> None:
    surface = Gated()
    async with serving(Front([surface])) as served:
        reader, writer = await served.raw(get("/wait/first"))
        await until(lambda: surface.waiting == 1)
        many = 20_000
        writer.write(post(b"x") * many)
        surface.gate.set()
        [connection] = connections(served)
        most = 0
        assert await answer(reader) == b"first"
        for _ in range(many):
            assert await answer(reader) == b"x"
            most = max(most, len(connection.pipeline))
        assert 0 < most <= SLICE_BYTES // len(post(b"x")) + 1
        writer.close()


async def test_a_client_that_goes_is_noticed_by_the_request_that_others_wait_behind(caplog: Any) -> None:
    surface = Gated()
    async with serving(Front([surface])) as served:
        _, writer = await served.raw(get("/gone"), get("/wait/never"))
        await until(lambda: surface.waiting == 1 and any(each.pipeline for each in connections(served)))
        writer.close()
        await until(lambda: surface.left == ["gone"])
        assert surface.waiting == 1
    assert caplog.text == ""


async def test_an_answer_for_a_client_that_has_gone_is_dropped_without_a_word(caplog: Any) -> None:
    surface = Gated()
    async with serving(Front([surface])) as served:
        _, writer = await served.raw(get("/wait/a"), get("/wait/b"))
        await until(lambda: surface.waiting == 1 and any(each.pipeline for each in connections(served)))
        writer.close()
        await until(lambda: not connections(served))
        surface.gate.set()
        await until(lambda: not served.listener._server._state.tasks)
    assert caplog.text == ""


UPGRADE = (
    b"GET /flow/x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def test_a_websocket_takes_the_connection_once_and_in_its_turn_only(caplog: Any) -> None:
    accepted = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        accepted.append(scope["type"])
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    surface = Gated()
    async with serving(Front([surface], application)) as served:
        reader, writer = await served.raw(UPGRADE + UPGRADE * (3 * SLICE_BYTES // len(UPGRADE)))
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.close()
        reader, writer = await served.raw(get("/wait/first") + UPGRADE)
        assert await rest(reader) == b""
        surface.gate.set()
        writer.close()
    assert accepted == ["websocket"]
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("behind", [b"no request at all\r\n\r\n", post(b"abc").replace(b": 3", b": -3")])
async def test_what_cannot_be_read_is_not_answered_in_the_place_of_another(behind: bytes) -> None:
    surface = Gated()
    async with serving(Front([surface])) as served:
        reader, writer = await served.raw(get("/wait/stored"))
        await until(lambda: surface.waiting == 1)
        writer.write(behind)
        assert await rest(reader) == b""
        surface.gate.set()
        alone, other = await served.raw(behind)
        assert (await rest(alone)).startswith(b"HTTP/1.1 400 ")
        for each in (writer, other):
            each.close()


async def test_nor_is_what_comes_too_slowly() -> None:
    surface = Gated()
    async with serving(Front([surface]), deadlines=LIMITS) as served:
        late = post(b"abc").replace(b": 3", b": 300")
        reader, writer = await served.raw(get("/wait/stored"), late)
        assert await rest(reader) == b""
        surface.gate.set()
        alone, other = await served.raw(late)
        assert (await rest(alone)).startswith(b"HTTP/1.1 408 ")
        for each in (writer, other):
            each.close()


async def test_many_short_heads_are_not_one_long_head() -> None:
    async with serving(Front([Gated()])) as served:
        sent = post(b"x") * 2000
        reader, writer = await served.raw(sent[:-20], pause_s=0.05)
        writer.write(sent[-20:])
        assert [await answer(reader) for _ in range(2000)] == [b"x"] * 2000
        writer.close()
