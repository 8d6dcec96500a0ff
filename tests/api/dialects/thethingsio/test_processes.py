"""Live updates when the API runs in several processes: whoever follows hears what any of them took."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import socketio

from tests.api.test_up import running

PATH = "/me/resources/temperature"
FOLLOWERS = 6
"""Enough of each kind that both processes have some."""
SAID = {"success": "subscribed"}


@pytest.mark.spec("G-24", "G-25", "TTI-43", "TTI-75")
def test_whoever_follows_hears_of_all_processes(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--demo", RULEMILL_API_PROCESSES="2", RULEMILL_WORKERS="1") as (_, facts):
        asyncio.run(follow(facts))


async def follow(facts: dict[str, Any]) -> None:
    demo, url = facts["thethingsio"], facts["http"]
    person = {"email": "ann@x.org", "password": "secret 1", "app": demo["app"]}
    async with httpx.AsyncClient(base_url=url, timeout=15) as client:
        registered = await client.post("/v2/register", json=person)
        assert registered.status_code == 201, registered.text
        token = registered.json()["token"]
        client.headers["authorization"] = token
        linked = await client.post("/v2/me/things", json={"thingToken": demo["thing_token"]})
        thing = linked.json()["thingId"]
    heard: list[asyncio.Queue[Any]] = []
    heard: list[asyncio.Queue[Any]] = []
    streams = [asyncio.create_task(stream(url, token, kept(heard))) for _ in range(FOLLOWERS)]
    sockets = [await listening(url, token, kept(heard)) for _ in range(FOLLOWERS)]
    try:
        async with asyncio.timeout(20):
            for each in heard[: 2 * FOLLOWERS]:
                assert await each.get() == "subscribed"
            for value in range(6):
                # A connection each, so that both processes take some.
                async with httpx.AsyncClient(base_url=url, headers={"authorization": token}) as client:
                    body = {"values": [{"value": value}]}
                    told = await client.post(f"/v2{PATH}/{thing}?sync=true", json=body)
                    assert told.status_code == 201
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
        httpx.AsyncClient(base_url=url, headers={"authorization": token}, timeout=None) as client,
        client.stream("GET", f"/v2{PATH}?subscribe=true") as answer,
    ):
        async for chunk in answer.aiter_raw():
            told = json.loads(chunk)
            if told:
                heard.put_nowait("subscribed" if isinstance(told, dict) else told[0]["value"])


async def listening(url: str, token: str, heard: asyncio.Queue[Any]) -> socketio.AsyncClient:
    client = socketio.AsyncClient()
    client.on(
        "subscribe",
        lambda told: heard.put_nowait("subscribed" if told["status"] == "success" else told),
        namespace="/v2",
    )
    client.on(PATH, lambda told: heard.put_nowait(told[0]["value"]), namespace="/v2")
    await client.connect(url, namespaces=["/v2"], transports=["websocket"])
    # One after the other, without waiting for the answer: they are heeded in this order.
    await client.emit("authenticate", {"sessionToken": token}, namespace="/v2")
    await client.emit("subscribe", {"resource": PATH}, namespace="/v2")
    return client
