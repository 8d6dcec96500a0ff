"""What no client of the library says, but anybody can."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from api.dialects.thethingsio.settings import Settings
from tests.api.dialects.thethingsio.world import World, world

pytestmark = pytest.mark.asyncio


class Raw:
    """A websocket of revision 4, connected to the namespace."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def emit(self, *event: Any) -> None:
        await self._socket.send_str("42/v2," + json.dumps(event))

    async def heard(self) -> Any:
        """The next event."""
        async with asyncio.timeout(10):
            while not (text := await self._socket.receive_str()).startswith("42/v2,"):
                pass
        return json.loads(text[6:])


@asynccontextmanager
async def raw(w: World) -> AsyncIterator[Raw]:
    url = f"{w.url}/socket.io/?EIO=4&transport=websocket"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        await socket.receive_str()
        await socket.send_str("40/v2,")
        assert (await socket.receive_str()).startswith("40/v2,")
        yield Raw(socket)


@pytest.mark.spec("TTI-S1", "TTI-S31")
async def test_a_client_cannot_say_itself_that_it_has_tls(redis_url: str) -> None:
    async with world(redis_url, Settings(require_tls=True)) as w, raw(w) as client:
        await client.emit("connect", {"asgi.scope": {"scheme": "https"}})
        await client.emit("authenticate", {"sessionToken": "x"})
        error = {"status": "error", "code": 403, "message": "HTTPS required"}
        assert await client.heard() == ["authenticate", error]


@pytest.mark.spec("TTI-S31", "TTI-S32")
async def test_what_a_client_says_is_done_in_order(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann = await w.register("ann@x.org")
        async with raw(w) as client:
            path = "/classes/me/Lists"
            await client.emit("authenticate", {"sessionToken": ann})
            await client.emit("subscribe", {"resource": path})
            await client.emit("unsubscribe", {"resource": path}, "and more")
            told = [await client.heard() for _ in range(3)]
            assert [name for name, _ in told] == ["authenticate", "subscribe", "unsubscribe"]
            assert all(answer["status"] == "success" for _, answer in told)


@pytest.mark.spec("TTI-S2", "TTI-S32")
@pytest.mark.parametrize("path", ["/things/\ud800", "/classes/me/\ud800", "/me/resources/temperature/\ud800"])
async def test_half_a_character_in_a_path_is_answered(redis_url: str, path: str) -> None:
    async with world(redis_url) as w:
        ann = await w.register("ann@x.org")
        async with raw(w) as client:
            await client.emit("authenticate", {"sessionToken": ann})
            await client.emit("subscribe", {"resource": path})
            assert (await client.heard())[0] == "authenticate"
            name, error = await client.heard()
            assert (name, error["code"]) == ("subscribe", 400)


async def test_stopping_twice_after_clients_is_stopping(redis_url: str) -> None:
    async with world(redis_url) as w:
        async with raw(w):
            pass
        for _ in range(2):
            await w.dialect.sockets.stop()
