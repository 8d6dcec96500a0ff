"""Packets that are none: they end the session of who sent them, with one line in the log, and nobody else's."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from api.transports.http import Front
from api.transports.socketio.server import SocketIo
from tests.api.dialects.thethingsio.test_realtime_raw import raw
from tests.api.dialects.thethingsio.world import World, world

pytestmark = [pytest.mark.asyncio, pytest.mark.spec("G-25")]

LOGGER = "rulemill.socketio"
BAD = [
    "x",
    "",
    "7",
    "9hello",
    "0{}",
    "2" + "[" * 5000,
    "6",
    "3probe",
    "4",
    "4x",
    '4{"a":1}',
    '4"2[]"',
    "47",
    '44{"message":"no"}',
    "42",
    "42/v2,",
    "42/v2,x",
    "42/v2,{}",
    "42/v2,[]",
    "42/v2,[5]",
    '42/v2,["subscribe",',
    '42/v2,["subscribe",' + "[" * 5000 + "]" * 5000 + "]",
    '42/v2,["subscribe",' + "[" * 500 + "]" * 500 + "]",
    '42/v2,["subscribe",' + "1" * 5000 + "]",
    "42/v2," + "1" * 200 + '["subscribe"]',
    "43/v2,[]",
    "43/v2,1",
    '451-/v2,["subscribe",{"_placeholder":true,"num":7}]',
    '4599999999999-/v2,["subscribe"]',
    "bAAAA",
    "b!",
    "4²",
]
BAD_BODIES = [b"5", b"2probe", b"\xff", b"d=", b"d=x"]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What the log says of clients; a traceback in it fails the test."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Lines()
    logging.getLogger(LOGGER).addHandler(handler)
    yield lines
    logging.getLogger(LOGGER).removeHandler(handler)
    found = [each for each in caplog.records if each.exc_info or each.levelno >= logging.ERROR]
    assert [each.getMessage() for each in found] == []


@asynccontextmanager
async def neighbour(w: World) -> AsyncIterator[None]:
    """Another client, whose session outlives all that is done meanwhile."""
    async with raw(w) as other:
        yield
        await other.emit("subscribe", {"resource": "/nowhere"})
        name, error = await other.heard()
        assert (name, error["code"]) == ("subscribe", 401)


def one_line(told: list[str], packet: object) -> None:
    """Exactly one line, that names the client and gives a reason."""
    assert len(told) == 1, (packet, told)
    assert "127.0.0.1" in told[0]
    assert told[0].isascii()
    assert len(told[0]) < 250
    told.clear()


async def closed(socket: aiohttp.ClientWebSocketResponse) -> int | None:
    """With which code the server closes."""
    async with asyncio.timeout(10):
        while (await socket.receive()).type == aiohttp.WSMsgType.TEXT:
            pass
    return socket.close_code


@pytest.mark.parametrize("revision", ["3", "4"])
async def test_a_websocket_is_closed(redis_url: str, revision: str, told: list[str]) -> None:
    async with world(redis_url) as w, neighbour(w), aiohttp.ClientSession() as session:
        url = f"{w.url}/socket.io/?EIO={revision}&transport=websocket"
        for packet in [*BAD, b"", b"\x04\x01"]:
            async with session.ws_connect(url) as socket:
                await socket.receive_str()
                await socket.send_str("40/v2,")
                while not (await socket.receive_str()).startswith("40/v2,"):
                    pass
                if isinstance(packet, str):
                    await socket.send_str(packet)
                else:
                    await socket.send_bytes(packet)
                assert await closed(socket) == 1002, packet
            one_line(told, packet)
        await no_clients_but_one(w)


@pytest.mark.parametrize("revision", ["3", "4"])
async def test_what_is_said_after_the_end_is_not_heard(redis_url: str, revision: str, told: list[str]) -> None:
    async with world(redis_url) as w, neighbour(w), aiohttp.ClientSession() as session:
        url = f"{w.url}/socket.io/?EIO={revision}&transport=websocket"
        async with session.ws_connect(url) as socket:
            for packet in ("1", "40/v2,", '42/v2,["subscribe",{}]', "x"):
                await socket.send_str(packet)
            assert await closed(socket) == 1000
        async with session.ws_connect(url) as socket:
            opened = json.loads((await socket.receive_str())[1:])
            w.dialect.sockets.server.eio.sockets[opened["sid"]].closed = True
            await socket.send_str("40/v2,")
            assert await closed(socket) == 1001
        assert told == []


@pytest.mark.parametrize("revision", ["3", "4"])
async def test_a_poller_is_refused(redis_url: str, revision: str, told: list[str]) -> None:
    async with world(redis_url) as w, neighbour(w), aiohttp.ClientSession() as session:
        bodies = [each.encode() for each in BAD]
        if revision == "3":
            bodies = [b"%d:%s" % (len(each), each) for each in bodies if each.isascii()]
        for body in [*bodies, *BAD_BODIES]:
            url = await polling(session, w, revision)
            async with session.post(url, data=body) as answer:
                assert (answer.status, await answer.text()) == (400, '{"code":3,"message":"Bad request"}'), body
            one_line(told, body)
            for again in (session.post(url, data="2:3" if revision == "3" else "3"), session.get(url)):
                async with again as answer:
                    assert (answer.status, (await answer.json(content_type=None))["code"]) == (400, 1), body
        await no_clients_but_one(w)


@pytest.mark.parametrize("revision", ["3", "4"])
async def test_an_open_poll_ends_with_its_session(redis_url: str, revision: str, told: list[str]) -> None:
    async with world(redis_url) as w, neighbour(w), aiohttp.ClientSession() as session:
        url = await polling(session, w, revision)
        poll = asyncio.create_task(session.get(url))
        while w.dialect.sockets.server.eio.sockets[url.rpartition("=")[2]].queue.qsize():
            await asyncio.sleep(0.01)
        async with session.post(url, data="x") as answer:
            assert answer.status == 400
        async with asyncio.timeout(10), await poll as answer:
            await answer.read()
        one_line(told, "x")


async def test_events_named_like_the_librarys_own_are_nothing(redis_url: str, told: list[str]) -> None:
    async with world(redis_url) as w, raw(w) as client:
        for name in ("connect", "disconnect", "connect_error", "*", "__disconnect_final", "stop"):
            for brought in ([], [{}], [1, 2, 3, 4]):
                await client.emit(name, *brought)
        await client.emit("subscribe", {"resource": "/nowhere"}, 1, 2, 3)
        assert (await client.heard())[0] == "subscribe"
        assert told == []


async def test_an_upgrade_that_is_none_ends_the_session(redis_url: str, told: list[str]) -> None:
    async with world(redis_url) as w, neighbour(w), aiohttp.ClientSession() as session:
        url = await polling(session, w, "4")
        async with session.ws_connect(url.replace("polling", "websocket")) as socket:
            await socket.send_str("nonsense")
            assert await closed(socket) == 1002
        one_line(told, "nonsense")
        async with session.get(url) as answer:
            assert (answer.status, (await answer.json(content_type=None))["code"]) == (400, 1)


async def test_a_packet_that_came_by_another_process(redis_url: str, told: list[str]) -> None:
    async with world(redis_url) as w, neighbour(w), aiohttp.ClientSession() as session:
        other = SocketIo(redis_url)
        await other.start()
        try:
            elsewhere = await w.stack.listen(app=Front([], mounts={"socket.io": other.application}))
            url = await polling(session, w, "4")
            async with session.post(url.replace(w.url, elsewhere), data="x") as answer:
                assert (answer.status, await answer.text()) == (400, '{"code":3,"message":"Bad request"}')
            one_line(told, "x")
            url = (await polling(session, w, "4")).replace("polling", "websocket")
            async with session.ws_connect(url.replace(w.url, elsewhere)) as socket:
                await socket.send_str("x")
                assert await closed(socket) == 1002
            one_line(told, "x")
            await no_clients_but_one(w)
        finally:
            await other.stop()


async def test_many_packets_in_one_body_are_all_heard(redis_url: str, told: list[str]) -> None:
    """More than the library reads at once."""
    async with world(redis_url) as w, aiohttp.ClientSession() as session:
        url = await polling(session, w, "4")
        event = "42/v2," + json.dumps(["unsubscribe", {"resource": "/x"}])
        async with session.post(url, data="\x1e".join(["40/v2,", *[event] * 40])) as answer:
            assert (answer.status, await answer.text()) == (200, "OK")
        heard = ""
        async with asyncio.timeout(10):
            while heard.count("unsubscribe") < 40:
                async with session.get(url) as answer:
                    heard += await answer.text()
        async with session.post(url, data="\x1e".join([event] * 300)) as answer:
            assert answer.status == 400
        one_line(told, "300 events")


@pytest.mark.parametrize("revision", ["3", "4"])
async def test_a_request_that_is_not_of_its_transport(redis_url: str, revision: str, told: list[str]) -> None:
    async with world(redis_url) as w, aiohttp.ClientSession() as session:
        url = f"{w.url}/socket.io/?EIO={revision}&transport="
        async with session.get(url + "websocket", headers={"upgrade": "websocket"}) as answer:
            assert (answer.status, await answer.text()) == (400, '{"code":3,"message":"Bad request"}')
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(url + "polling")
        assert refused.value.status == 400


async def polling(session: aiohttp.ClientSession, w: World, revision: str) -> str:
    """The URL of a new session."""
    url = f"{w.url}/socket.io/?EIO={revision}&transport=polling"
    async with session.get(url) as answer:
        text = await answer.text()
    return f"{url}&sid={json.loads(text[text.index('{') : text.rindex('}') + 1])['sid']}"


async def no_clients_but_one(w: World) -> None:
    """What was ended is forgotten."""
    sessions = w.dialect.sockets.server.eio.sockets
    async with asyncio.timeout(10):
        while len([each for each in sessions.values() if not each.closed]) > 1:
            await asyncio.sleep(0.01)
