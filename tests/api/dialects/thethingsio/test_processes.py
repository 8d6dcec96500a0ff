"""Live updates when the API runs in several processes: whoever follows hears what any of them took, however it follows.

Each poll of a client and each websocket is a connection of its own, which any of the processes may get.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import socketio

from tests.api.dialects.thethingsio.test_realtime import MODULES, TRANSPORTS, client
from tests.api.test_up import running

PATH = "/me/resources/temperature"
FOLLOWERS = 6
"""Enough of each kind that both processes have some."""
SAID = {"success": "subscribed"}


@pytest.mark.spec("G-24", "G-25", "TTI-43", "TTI-75")
def test_whoever_follows_hears_of_all_processes(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--demo", RULEMILL_API_PROCESSES="2", RULEMILL_WORKERS="1") as (_, facts):
        asyncio.run(follow(facts))


@pytest.mark.spec("G-24", "G-25", "TTI-43")
def test_real_clients_may_poll_any_process(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--demo", RULEMILL_API_PROCESSES="3", RULEMILL_WORKERS="1") as (_, facts):
        asyncio.run(poll(facts))


async def poll(facts: dict[str, Any]) -> None:
    token, thing = await owner(facts)
    kinds = [(module, transports) for module in MODULES for transports in TRANSPORTS]
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(facts["http"], *kind)) for kind in kinds]
        for each in clients:
            assert (await each.ask("authenticate", {"sessionToken": token}))["status"] == "success"
            assert (await each.ask("subscribe", {"resource": PATH}))["status"] == "success"
        for value in range(20):
            await write(facts["http"], token, thing, value)
        for each, (_, transports) in zip(clients, kinds, strict=True):
            assert [(await each.next(PATH, "disconnected"))[0]["value"] for _ in range(20)] == list(range(20))
            assert await each.transport() == transports.split(",")[-1]


async def owner(facts: dict[str, Any]) -> tuple[str, str]:
    """The session token of a new user, who owns the demo's thing, and that."""
    demo = facts["thethingsio"]
    person = {"email": "ann@x.org", "password": "secret 1", "app": demo["app"]}
    async with httpx.AsyncClient(base_url=facts["http"], timeout=15) as http:
        registered = await http.post("/v2/register", json=person)
        assert registered.status_code == 201, registered.text
        token = registered.json()["token"]
        linked = await http.post(
            "/v2/me/things", json={"thingToken": demo["thing_token"]}, headers={"authorization": token}
        )
    return token, linked.json()["thingId"]


async def write(url: str, token: str, thing: str, value: int) -> None:
    """Tell a value, by a connection of its own."""
    async with httpx.AsyncClient(base_url=url, headers={"authorization": token}) as http:
        told = await http.post(f"/v2{PATH}/{thing}?sync=true", json={"values": [{"value": value}]})
        assert told.status_code == 201


async def follow(facts: dict[str, Any]) -> None:
    url = facts["http"]
    token, thing = await owner(facts)
    heard: list[asyncio.Queue[Any]] = []
    streams = [asyncio.create_task(stream(url, token, kept(heard))) for _ in range(FOLLOWERS)]
    sockets = [await listening(url, token, kept(heard)) for _ in range(FOLLOWERS)]
    try:
        async with asyncio.timeout(20):
            for each in heard[: 2 * FOLLOWERS]:
                assert await each.get() == "subscribed"
            for value in range(6):
                await write(url, token, thing, value)
            for each in heard:
                assert [await each.get() for _ in range(6)] == list(range(6))
    finally:
        for task in streams:
            task.cancel()
        await asyncio.gather(*streams, *(each.disconnect() for each in sockets), return_exceptions=True)


def kept(heard: list[asyncio.Queue[Any]]) -> asyncio.Queue[Any]:
    heard.append(asyncio.Queue())
    return heard[-1]


async def stream(url: str, token: str, heard: asyncio.Queue[Any]) -> None:
    async with (
        httpx.AsyncClient(base_url=url, headers={"authorization": token}, timeout=None) as http,
        http.stream("GET", f"/v2{PATH}?subscribe=true") as answer,
    ):
        async for chunk in answer.aiter_raw():
            told = json.loads(chunk)
            if told:
                heard.put_nowait("subscribed" if isinstance(told, dict) else told[0]["value"])


async def listening(url: str, token: str, heard: asyncio.Queue[Any]) -> socketio.AsyncClient:
    follower = socketio.AsyncClient()
    follower.on(
        "subscribe",
        lambda told: heard.put_nowait("subscribed" if told["status"] == "success" else told),
        namespace="/v2",
    )
    follower.on(PATH, lambda told: heard.put_nowait(told[0]["value"]), namespace="/v2")
    await follower.connect(url, namespaces=["/v2"], transports=["websocket"])
    # One after the other, without waiting for the answer: they are heeded in this order.
    await follower.emit("authenticate", {"sessionToken": token}, namespace="/v2")
    await follower.emit("subscribe", {"resource": PATH}, namespace="/v2")
    return follower
