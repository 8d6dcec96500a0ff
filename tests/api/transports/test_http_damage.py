"""Damaged requests over real sockets: no answer blames the server, nothing is left behind, nobody else notices."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from typing import Any, Literal

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from api.transports.http import Front, HttpError, Request, Response, Route
from tests.api.transports.damage import damaged, damages
from tests.api.transports.serving import Served, serving
from tests.engine.toy import until

NOT_IMPLEMENTED = b"501"
"""What a transfer coding that nobody knows is answered with (RFC 9112, 6.1)."""


class Anything:
    """Takes bodies (`/take`), or refuses them unread (`/refuse`), at once or a little later (`?late=1`)."""

    name, cors = "anything", True

    def __init__(self) -> None:
        self.routes = (
            Route("POST", "/take", self.take), Route("POST", "/refuse", self.refuse), Route("GET", "/{name}", self.give)
        )  # fmt: skip

    def owns(self, request: Request) -> bool:
        return True

    def error(self, request: Request, status: int, reason: str, headers: Any = ()) -> Response:
        return Response(status, reason.encode(), headers)

    async def take(self, request: Request, params: dict[str, str]) -> Response:
        body = await request.body(2000)
        await asyncio.sleep(0.002 if request.query else 0)
        return Response(200, body)

    async def refuse(self, request: Request, params: dict[str, str]) -> Response:
        await asyncio.sleep(0.002 if request.query else 0)
        raise HttpError(401, "no")

    async def give(self, request: Request, params: dict[str, str]) -> Response:
        return Response(200, params["name"].encode())


def request(target: str, size: int, chunk: int) -> bytes:
    """A request with a body of so many bytes, in chunks unless they have none."""
    if target.startswith("/give"):
        return f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    head, body = f"POST {target} HTTP/1.1\r\nHost: x\r\n".encode(), b"x" * size
    if not chunk:
        return head + b"Content-Length: %d\r\n\r\n" % size + body
    parts = [body[at : at + chunk] for at in range(0, size, chunk)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


targets = st.sampled_from(["/take", "/take?late=1", "/refuse", "/refuse?late=1", "/give", "/give?late=1"])
requests = st.tuples(targets, st.sampled_from([0, 1, 40, 1900, 9000]), st.sampled_from([0, 0, 1, 500]))


async def say(served: Served, raw: bytes, cuts: Sequence[int], leave_early: bool) -> bytes:
    """Say it, in pieces; what is answered within a moment."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    heard = bytearray()

    async def hear() -> None:
        try:
            while data := await reader.read(65_536):
                heard.extend(data)
        except ConnectionError:
            pass

    hearing = asyncio.create_task(hear())
    at = 0
    for cut in [*cuts, len(raw)]:
        if writer.is_closing():
            break
        writer.write(raw[at : at + cut])
        at += cut
        await asyncio.sleep(0)
    if not leave_early:
        await asyncio.wait([hearing], timeout=0.02)
    writer.transport.abort()
    await hearing
    return bytes(heard)


async def run(server: Literal["uvicorn", "hypercorn"], raw: bytes, cuts: Sequence[int], leave_early: bool) -> None:
    async with serving(Front([Anything()], mounts={"live": Front([])}), server) as served:
        assert (await served.http.get("/before")).text == "before"
        tasks = len(asyncio.all_tasks())
        heard = await say(served, raw, cuts, leave_early)
        statuses = re.findall(rb"HTTP/1\.1 (\d\d\d) ", heard)
        assert [status for status in statuses if status >= b"500" and status != NOT_IMPLEMENTED] == []
        assert (await served.http.get("/after")).text == "after"
        await until(lambda: len(asyncio.all_tasks()) <= tasks)


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
def test_damaged_requests_hurt_their_own_connection_only(server: Literal["uvicorn", "hypercorn"]) -> None:
    logged: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(record.getMessage())

    @settings(max_examples=30)
    @given(
        st.lists(requests, min_size=1, max_size=4),
        st.lists(damages, max_size=2),
        st.lists(st.integers(1, 3000), max_size=4),
        st.booleans(),
    )
    def hold(
        said: list[tuple[str, int, int]], wounds: list[tuple[int, str, int]], cuts: list[int], leave_early: bool
    ) -> None:
        raw = b"".join(request(*each) for each in said)
        uvloop.run(run(server, damaged(raw, wounds), cuts, leave_early))
        assert logged == []

    handler = Kept(logging.ERROR)
    logging.getLogger().addHandler(handler)
    try:
        hold()
    finally:
        logging.getLogger().removeHandler(handler)
