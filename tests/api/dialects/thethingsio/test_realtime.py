"""Live updates, with the real clients of both protocol revisions."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from api.dialects.thethingsio.settings import Settings
from tests.api.dialects.thethingsio.test_streams import write
from tests.api.dialects.thethingsio.test_values import owner
from tests.api.dialects.thethingsio.world import world
from tests.services import node_modules, require

pytestmark = pytest.mark.asyncio

INVALID = {"status": "error", "code": 401, "message": "Invalid session token"}
TRANSPORTS = ["polling", "websocket", "polling,websocket"]
MODULES = ["socket.io-client-2", "socket.io-client-4"]


class Client:
    """A client in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._kept: list[dict[str, Any]] = []

    async def emit(self, event: str, data: Any) -> None:
        await self._tell({"emit": [event, data]})

    async def _tell(self, told: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        await self._process.stdin.drain()

    async def next(self, *events: str) -> Any:
        """What the next event of one of these names brings; others are kept for those who ask for them."""
        assert self._process.stdout is not None
        for told in self._kept:
            if told["event"] in events:
                self._kept.remove(told)
                return told.get("data")
        async with asyncio.timeout(15):
            while line := await self._process.stdout.readline():
                told = json.loads(line)
                if told["event"] in events:
                    return told.get("data")
                self._kept.append(told)
        raise AssertionError("the client has ended")

    async def ask(self, event: str, data: Any) -> Any:
        await self.emit(event, data)
        return await self.next(event)

    async def transport(self) -> str:
        await self._tell({"transport": True})
        return str(await self.next("transport"))


@asynccontextmanager
async def client(url: str, module: str, transports: str, namespace: str = "/v2") -> AsyncIterator[Client]:
    process = await asyncio.create_subprocess_exec(
        require("node"), str(Path(__file__).with_name("client.js")), module, url + namespace, transports,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 20,
        env={**os.environ, "NODE_PATH": str(node_modules("socket.io-client-2", "socket.io-client-4"))},
    )  # fmt: skip
    made = Client(process)
    try:
        await made.next("connected")
        yield made
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        # What it has said and nobody read would keep its pipes open: `wait` returns before they are closed, or never.
        await process.communicate()


@pytest.mark.spec("TTI-43", "TTI-S30", "TTI-S31", "TTI-S32", "TTI-S33", "TTI-S34", "G-25")
@pytest.mark.parametrize("transports", TRANSPORTS)
@pytest.mark.parametrize("module", MODULES)
async def test_values_objects_and_errors_reach_real_clients(redis_url: str, module: str, transports: str) -> None:
    async with world(redis_url) as w:
        ann, device, thing = await owner(w)
        resource, collection = "/me/resources/temperature", "/classes/me/Playlists"
        async with client(w.url, module, transports) as c:
            assert await c.ask("subscribe", {"resource": resource}) == INVALID
            assert await c.ask("authenticate", {"sessionToken": "nonsense"}) == INVALID
            assert await c.ask("authenticate", None) == INVALID
            authenticated = {"status": "success", "message": "authenticated"}
            assert await c.ask("authenticate", {"sessionToken": ann}) == authenticated
            for path in (resource, f"/things/{thing}", collection):
                assert await c.ask("subscribe", {"resource": path}) == {"status": "success", "resource": path}
            for path, code in (
                ("/me/resources/secret", 404), ("/things/unknown", 401), ("/nowhere", 404), (7, 400), (None, 400),
                ("/me/resources/temperature/nobody", 403),
            ):  # fmt: skip
                told = await c.ask("subscribe", {"resource": path})
                assert (told["status"], told["code"]) == ("error", code), path
            await write(w, ann, device.id, {"deep": ["ä€😀"]})
            [value] = await c.next(resource)
            assert (value["value"], value["id"]) == ({"deep": ["ä€😀"]}, device.id)
            assert value["datetime"].endswith("Z")
            [value] = await c.next(f"/things/{thing}")
            assert (value["key"], value["value"]) == ("temperature", {"deep": ["ä€😀"]})
            await w.call("POST", "/v2/classes/me/Playlists/25", ann, {"name": "Dubstep"})
            assert await c.next(collection) == [{"_id": "25", "name": "Dubstep"}]
            path = f"/things/{thing}"
            assert await c.ask("unsubscribe", {"resource": path}) == {"status": "success", "resource": path}
            assert (await c.ask("unsubscribe", {"resource": path}))["code"] == 404
            for n in range(50):
                await write(w, ann, device.id, n)
            assert [(await c.next(resource))[0]["value"] for _ in range(50)] == list(range(50))
            if transports == "polling,websocket":
                assert await c.transport() == "websocket"
            await w.call("PUT", "/v2/me/settings", ann, {"password": "another 1"})
            assert (await c.ask("subscribe", {"resource": f"{resource}/{device.id}"}))["status"] == "success"


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("transports", ["polling", "websocket"])
async def test_a_quiet_client_stays_connected(redis_url: str, module: str, transports: str) -> None:
    """Heartbeats go either way, as the revision wants."""
    async with world(redis_url, ping_interval_s=0.5) as w:
        ann, device, _ = await owner(w)
        async with client(w.url, module, transports) as c:
            await c.ask("authenticate", {"sessionToken": ann})
            await c.ask("subscribe", {"resource": "/me/resources/temperature"})
            await asyncio.sleep(2.0)
            await write(w, ann, device.id, 1)
            assert (await c.next("/me/resources/temperature", "disconnected"))[0]["value"] == 1


@pytest.mark.spec("TTI-S8", "TTI-S31")
async def test_rights_that_end_end_subscriptions(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann, device, _ = await owner(w)
        bob = await w.register("bob@x.org")
        await w.grant(ann, "bob@x.org", device.id, "temperature", get=True)
        path = f"/me/resources/temperature/{device.id}"
        async with client(w.url, "socket.io-client-4", "websocket") as c:
            await c.ask("authenticate", {"sessionToken": bob})
            assert (await c.ask("subscribe", {"resource": path}))["status"] == "success"
            await w.grant(ann, "bob@x.org", device.id, "temperature", get=False)
            told = await c.next("subscribe")
            assert told == {"status": "error", "code": 401, "message": "Permission denied", "resource": path}


@pytest.mark.spec("TTI-S1")
async def test_without_tls_nobody_is_authenticated(redis_url: str) -> None:
    async with world(redis_url, Settings()) as w, client(w.url, "socket.io-client-4", "websocket") as c:
        told = await c.ask("authenticate", {"sessionToken": "x"})
        assert told == {"status": "error", "code": 403, "message": "HTTPS required"}


@pytest.mark.spec("G-25")
@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("EIO=3&transport=pigeon", {"code": 0, "message": "Transport unknown"}),
        ("EIO=3&transport=polling&sid=x", {"code": 1, "message": "Session ID unknown"}),
        ("EIO=4&transport=polling&sid=x", {"code": 1, "message": "Session ID unknown"}),
        ("EIO=2&transport=polling", {"code": 5, "message": "Unsupported protocol version"}),
        ("transport=polling", {"code": 5, "message": "Unsupported protocol version"}),
    ],
)
async def test_bad_requests(redis_url: str, query: str, body: Any) -> None:
    async with world(redis_url) as w:
        answer = await w.client.get(f"/socket.io/?{query}")
        assert (answer.status_code, answer.json()) == (400, body)


@pytest.mark.spec("G-28")
async def test_polling_from_a_page_of_another_origin(redis_url: str) -> None:
    async with world(redis_url) as w:
        for revision in "34":
            headers = {"origin": "https://app.example"}
            answer = await w.client.get(f"/socket.io/?EIO={revision}&transport=polling", headers=headers)
            assert answer.headers["access-control-allow-origin"] == "https://app.example"
            assert answer.headers["access-control-allow-credentials"] == "true"
