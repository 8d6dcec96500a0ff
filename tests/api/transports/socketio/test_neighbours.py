"""Requests and websockets that one process passes on to another, over a real Redis."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio

from api.transports.http_exchange import Asgi, Receive, Scope, Send
from api.transports.socketio.neighbours import MOST_WAITING, Neighbours, channel
from tests.engine.toy import until

pytestmark = [pytest.mark.asyncio, pytest.mark.spec("G-24", "G-25")]

HTTP: Any = {"type": "http", "method": "POST", "path": "/socket.io/", "headers": [(b"origin", b"https://a.example")]}
WEBSOCKET: Any = {
    "type": "websocket",
    "path": "/socket.io/",
    "headers": [],
    "extensions": {"websocket.http.response": {}},
}


class Client:
    """One connection at a process; `said` is what its application sends."""

    def __init__(self, process: Asgi, scope: Scope) -> None:
        self._says: asyncio.Queue[Any] = asyncio.Queue()
        self._heard: asyncio.Queue[Any] = asyncio.Queue()
        self.task = asyncio.create_task(self._run(process, scope))

    async def _run(self, process: Asgi, scope: Scope) -> None:
        await process(scope, self._says.get, self._heard.put)

    def say(self, type: str, **event: Any) -> None:
        self._says.put_nowait({"type": type, **event})

    async def hear(self) -> Any:
        async with asyncio.timeout(10):
            return await self._heard.get()

    async def ends(self) -> None:
        async with asyncio.timeout(10):
            await self.task


@asynccontextmanager
async def two(redis_url: str, application: Asgi, silence_s: float = 10) -> AsyncIterator[tuple[Neighbours, Neighbours]]:
    """A process that has no sessions, and one that serves with this application."""

    async def nobody(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 400, "headers": []})
        await send({"type": "http.response.body", "body": b"unknown"})

    here, there = Neighbours(nobody, redis_url, silence_s), Neighbours(application, redis_url, silence_s)
    for each in (here, there):
        await each.start()
    try:
        yield here, there
    finally:
        for each in (here, there):
            await each.stop()


def at(scope: Scope, there: Neighbours) -> Scope:
    return {**scope, "query_string": f"EIO=4&sid={there.own('x1')}&transport=polling".encode()}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = bytearray()
    while True:
        event = await receive()
        body += event["body"]
        if not event["more_body"]:
            break
    headers = [(name, value) for name, value in scope["headers"] if name == b"origin"]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": bytes(body) + scope["query_string"]})


async def test_a_request_is_served_where_its_session_is(redis_url: str) -> None:
    async with two(redis_url, echo) as (here, there):
        client = Client(here, at(HTTP, there))
        client.say("http.request", body=b"\xff1", more_body=True)
        client.say("http.request", body=b"2", more_body=False)
        assert await client.hear() == {
            "type": "http.response.start", "status": 200, "headers": [[b"origin", b"https://a.example"]],
        }  # fmt: skip
        body = (await client.hear())["body"]
        assert body == b"\xff12" + at(HTTP, there)["query_string"]
        await client.ends()


async def test_many_at_a_time_do_not_mix(redis_url: str) -> None:
    async with two(redis_url, echo) as (here, there):
        clients = [Client(each, at(HTTP, there)) for each in (here, there) for _ in range(50)]
        for n, client in enumerate(clients):
            client.say("http.request", body=b"%d" % n, more_body=False)
        for n, client in enumerate(clients):
            await client.hear()
            assert (await client.hear())["body"].startswith(b"%dEIO" % n)


async def test_a_websocket_is_served_where_its_session_is(redis_url: str) -> None:
    ended = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["extensions"] == {"websocket.http.response": {}}
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"].upper()})
        assert event["code"] == 1001
        ended.set()

    async with two(redis_url, application) as (here, there):
        client = Client(here, at(WEBSOCKET, there))
        client.say("websocket.connect")
        assert await client.hear() == {"type": "websocket.accept"}
        for n in range(100):
            client.say("websocket.receive", text=f"a{n}")
        assert [(await client.hear())["text"] for _ in range(100)] == [f"A{n}" for n in range(100)]
        client.say("websocket.disconnect", code=1001)
        await client.ends()
        await asyncio.wait_for(ended.wait(), 10)


@pytest.mark.parametrize("sid", ["abcdefgh.x", "abcdefgh", "a.b", ".", "", "x" * 5000 + ".y", "abc\n*fg.x"])
async def test_a_session_that_no_process_has_is_unknown_here(redis_url: str, sid: str) -> None:
    async with two(redis_url, echo) as (here, _):
        client = Client(here, {**HTTP, "query_string": f"sid={sid}".encode()})
        assert (await client.hear())["status"] == 400
        await client.ends()


@pytest.mark.parametrize(("scope", "first"), [(HTTP, {"status": 503}), (WEBSOCKET, {"type": "websocket.close"})])
async def test_a_silent_neighbour_is_given_up(redis_url: str, scope: Scope, first: dict[str, Any]) -> None:
    gone = asyncio.Event()

    async def application(_scope: Scope, receive: Receive, _send: Send) -> None:
        while not (await receive())["type"].endswith("disconnect"):
            pass
        gone.set()

    async with two(redis_url, application, silence_s=0.2) as (here, there):
        client = Client(here, at(scope, there))
        assert first.items() <= (await client.hear()).items()
        await client.ends()
        await asyncio.wait_for(gone.wait(), 10)


@pytest.mark.parametrize("scope", [HTTP, WEBSOCKET])
async def test_a_broken_subscription_breaks_off_both_sides(redis_url: str, scope: Scope) -> None:
    """Something may be missing, so nothing goes on as if it were not."""
    begun, gone = asyncio.Event(), asyncio.Event()

    async def application(_scope: Scope, receive: Receive, _send: Send) -> None:
        begun.set()
        assert (await receive())["type"].endswith("disconnect")
        gone.set()

    async with two(redis_url, application) as (here, there), redis.asyncio.Redis.from_url(redis_url) as client:
        caller = Client(here, at(scope, there))
        await asyncio.wait_for(begun.wait(), 10)
        for each in await client.client_list(_type="pubsub"):
            await client.client_kill_filter(_id=each["id"])
        await asyncio.wait_for(gone.wait(), 10)
        assert (await caller.hear())["type"] in ("http.response.start", "websocket.close")
        await caller.ends()

        async def hears_again() -> bool:
            return (await client.pubsub_numsub(channel(here.name), channel(there.name)))[1][1] == 1

        await until(hears_again)


async def test_a_client_that_does_not_read_is_broken_off(redis_url: str) -> None:
    gone, sent = asyncio.Event(), 0

    async def application(_scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        while not gone.is_set():
            await send({"type": "websocket.send", "text": "x"})
            sent += 1
            if sent > MOST_WAITING * 2:
                assert (await receive())["type"] == "websocket.disconnect"
                gone.set()

    reads = asyncio.Event()
    heard: list[str] = []

    async def send(event: Any) -> None:
        heard.append(event["type"])
        await reads.wait()

    async with two(redis_url, application) as (here, there):
        forever: asyncio.Queue[Any] = asyncio.Queue()
        served = asyncio.create_task(here(at(WEBSOCKET, there), forever.get, send))

        async def overflowed() -> bool:
            return sent > MOST_WAITING * 2

        await until(overflowed)
        reads.set()
        await asyncio.wait_for(served, 10)
        await asyncio.wait_for(gone.wait(), 10)
        assert heard == ["websocket.send", "websocket.close"]


async def test_an_application_that_fails_is_told_of_and_ends_its_client_only(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def application(_scope: Scope, receive: Receive, _send: Send) -> None:
        raise RuntimeError("no luck")

    async with two(redis_url, application) as (here, there):
        with caplog.at_level(logging.ERROR, "rulemill.socketio"):
            client = Client(here, at(HTTP, there))
            assert (await client.hear())["status"] == 503
            await client.ends()
        assert "no luck" in str(caplog.records[0].exc_info)


async def test_what_is_no_message_of_a_neighbour_is_passed_over(redis_url: str) -> None:
    async with two(redis_url, echo) as (here, there), redis.asyncio.Redis.from_url(redis_url) as client:
        for payload in (b"", b"\xff", b"\x94\xa1\x80"):
            await client.publish(channel(there.name), payload)
        caller = Client(here, at(HTTP, there))
        caller.say("http.request", body=b"", more_body=False)
        assert (await caller.hear())["status"] == 200
