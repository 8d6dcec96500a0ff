"""Clients that do not read what they asked for, on real sockets with small buffers."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from api.transports.http_deadlines import Deadlines
from tests.api.dialects.thethingsio.test_realtime import client
from tests.api.dialects.thethingsio.test_streams import SUBSCRIBED, stream, write
from tests.api.dialects.thethingsio.test_values import owner
from tests.api.dialects.thethingsio.world import World, world
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio

BIG = "x" * 100_000
"""A value of which a few fill the buffers of both ends."""
PATH = "/me/resources/temperature"
WARNING = "a client that does not read"


@asynccontextmanager
async def unread(w: World, head: str) -> AsyncIterator[socket.socket]:
    """A connection on which a request was sent, whose answer nobody reads."""
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.setblocking(False)
        where = urlsplit(w.url)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(made, (where.hostname, where.port))
        await loop.sock_sendall(made, (head + "\r\nHost: x\r\n\r\n").encode())
        yield made


async def is_cut(made: socket.socket) -> bool:
    """Whether the connection ends when it is read at last, without the end that an answer should have."""
    loop = asyncio.get_running_loop()
    last = b""
    async with asyncio.timeout(10):
        try:
            while chunk := await loop.sock_recv(made, 1 << 20):
                last = chunk
        except ConnectionResetError:
            return True
    return not last.endswith(b"0\r\n\r\n")


async def flood(w: World, token: str, thing: str, times: int) -> None:
    """Tell big values, without keeping them."""
    for _ in range(times):
        body = {"values": [{"value": BIG}] * 8}
        told = await w.call("POST", f"/v2{PATH}/{thing}", token, body, store="false")
        assert told.status_code == 201


@pytest.mark.spec("G-24", "TTI-S15")
async def test_a_stream_that_is_not_read_is_cut_and_others_go_on(redis_url: str, caplog: Any) -> None:
    async with world(redis_url) as w:
        ann, device, _ = await owner(w)
        head = f"GET /v2{PATH}?subscribe=true HTTP/1.1\r\nAuthorization: {ann}"
        async with unread(w, head) as slow, stream(w, f"/v2{PATH}", ann, subscribe="true") as good:
            assert await good.next() == SUBSCRIBED
            followers = w.dialect.http._streams._subscriptions._by_thing
            await until(lambda: len(followers.get(device.id, ())) == 2)
            reading = asyncio.create_task(taken(good))
            for _ in range(60):
                await flood(w, ann, device.id, 1)
                if WARNING in caplog.text:
                    break
            assert WARNING in caplog.text
            await until(lambda: len(followers[device.id]) == 1)
            assert await is_cut(slow)
            await write(w, ann, device.id, "after")
            async with asyncio.timeout(20):
                assert await reading == "after"


async def taken(texts: Any) -> Any:
    """Read until something that is not big comes."""
    buffer = b""
    async for chunk in texts._chunks:
        buffer = (buffer + chunk)[-200:]
        if b'"after"' in buffer:
            return "after"
    raise AssertionError("the stream has ended")


@asynccontextmanager
async def unread_socket(w: World, thing: str) -> AsyncIterator[socket.socket]:
    """A websocket that has subscribed to a thing, and which nobody reads."""
    key = base64.b64encode(os.urandom(16)).decode()
    head = (
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}"
    )
    async with unread(w, head) as made:
        sessions = w.dialect.sockets.server.eio.sockets
        await until(lambda: any(each.upgraded for each in sessions.values()))
        for text in ("40/v2,", f'42/v2,["subscribe",{{"resource":"/things/{thing}"}}]'):
            await asyncio.get_running_loop().sock_sendall(made, frame(text))
        yield made


@pytest.mark.spec("G-24", "TTI-S30")
async def test_a_socket_that_is_not_read_hears_no_more_and_others_go_on(redis_url: str, caplog: Any) -> None:
    async with world(redis_url) as w:
        ann, device, thing = await owner(w)
        followers = w.dialect.http._streams._subscriptions._by_thing
        async with unread_socket(w, thing), client(w.url, "socket.io-client-4", "websocket") as good:
            await good.ask("subscribe", {"resource": f"/things/{thing}"})
            await until(lambda: len(followers.get(device.id, ())) == 2)
            told = 0
            while WARNING not in caplog.text and told < 2000:
                await flood(w, ann, device.id, 1)
                told += 8
                for _ in range(8):
                    assert (await good.next(f"/things/{thing}"))[0]["value"] == BIG
            await until(lambda: len(followers[device.id]) == 1)
            assert caplog.text.count(WARNING) == 1
            await write(w, ann, device.id, "after")
            assert (await good.next(f"/things/{thing}"))[0]["value"] == "after"


@pytest.mark.spec("G-24")
async def test_a_socket_that_is_not_read_for_long_is_closed(redis_url: str) -> None:
    async with world(redis_url) as w:
        w.url = await w.stack.listen(deadlines=Deadlines(write_stall_s=0.2))
        ann, device, thing = await owner(w)
        followers = w.dialect.http._streams._subscriptions._by_thing
        async with unread_socket(w, thing) as slow:
            await until(lambda: followers.get(device.id))
            assert writers() == 1
            while device.id in followers:
                await flood(w, ann, device.id, 1)
            assert await is_cut(slow)
            await until(lambda: writers() == 0)


def writers() -> int:
    """Tasks of the library that write to somebody's websocket."""
    return sum("_websocket_handler.<locals>.writer" in str(each.get_coro()) for each in asyncio.all_tasks())


def frame(text: str) -> bytes:
    """A text as a client's websocket frame."""
    payload = text.encode()
    assert len(payload) < 65_536
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return b"\x81" + length + b"\0\0\0\0" + payload
