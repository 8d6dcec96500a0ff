"""Things over CoAP through a real socket, with aiocoap's client and libcoap's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiocoap import Context, Message
from aiocoap.numbers.codes import DELETE, GET, POST, PUT

from api.dialects.thethingsio import coap as coap_module
from api.dialects.thethingsio.settings import MAX_BODY_BYTES, Settings
from api.sockets import _listen_coap, shown
from api.transports.coap_server import CoapServer
from tests.api.dialects.thethingsio.world import PRODUCT, World, world
from tests.api.stack import TENANT
from tests.services import require

pytestmark = pytest.mark.asyncio


class CoapWorld:
    """`ask` speaks as a thing; `observe` gives what it is told, one by one."""

    def __init__(self, w: World, client: Context, port: int) -> None:
        self.w, self.client, self.url = w, client, f"coap://127.0.0.1:{port}"

    async def ask(self, code: Any, path: str, body: Any = None) -> tuple[str, Any]:
        payload = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        async with asyncio.timeout(20):
            answer = await self.client.request(Message(code=code, uri=self.url + path, payload=payload)).response
        return said(answer), json.loads(answer.payload) if answer.code.is_successful() else answer.payload.decode()

    async def write(self, token: str, **values: Any) -> None:
        body = {"values": [{"key": key, "value": value} for key, value in values.items()]}
        assert (await self.ask(POST, f"/v2/things/{token}", body))[0] == "2.01"

    @asynccontextmanager
    async def observe(self, token: str) -> AsyncIterator[asyncio.Queue[Any]]:
        request = self.client.request(Message(code=GET, uri=f"{self.url}/v2/things/{token}", observe=0))
        async with asyncio.timeout(10):
            first = await request.response
        assert json.loads(first.payload) == {"status": "success", "message": "subscribed"}
        told: asyncio.Queue[Any] = asyncio.Queue()

        async def pump() -> None:
            async for each in request.observation:
                told.put_nowait(json.loads(each.payload) if each.code.is_successful() else said(each))

        pumping = asyncio.create_task(pump())
        try:
            yield told
        finally:
            pumping.cancel()
            await asyncio.gather(pumping, return_exceptions=True)


def said(answer: Any) -> str:
    return f"{answer.code >> 5}.{answer.code & 31:02}"


@asynccontextmanager
async def coap_world(redis_url: str) -> AsyncIterator[CoapWorld]:
    # Also where apps need TLS, things do not.
    async with world(redis_url, Settings()) as w, AsyncExitStack() as ending:
        listening = _listen_coap("127.0.0.1:0")
        server = CoapServer([w.dialect.coap], listening)
        port = int(shown(listening).rpartition(":")[2])
        await server.start()
        ending.push_async_callback(server.stop, 1.0)
        client = await Context.create_client_context(transports=["udp6"])
        ending.push_async_callback(client.shutdown)
        yield CoapWorld(w, client, port)


@pytest.mark.spec("TTI-X9", "TTI-X1", "TTI-X2", "TTI-X3", "TTI-X4", "TTI-X6", "TTI-S1")
async def test_a_thing_is_made_and_writes_and_reads(redis_url: str) -> None:
    async with coap_world(redis_url) as c:
        [code] = await c.w.parts.activations.make(TENANT, PRODUCT, 1)
        status, told = await c.ask(POST, "/v2/things", {"activationCode": code})
        assert (status, told["status"]) == ("2.01", "created")
        assert (await c.ask(POST, "/v2/things/", {"activationCode": code}))[0] == "4.00"
        base = f"/v2/things/{told['thingToken']}"
        values = [
            {"key": "temperature", "value": 21, "datetime": "20140101000000"},
            {"key": "temperature", "value": 22, "datetime": "20140101000001"},
            {"key": "$geo", "value": [2, 41]},
        ]
        status, told = await c.ask(POST, f"{base}?sync=true", {"values": values})
        assert (status, told) == ("2.01", {"status": "created", "message": "values created"})
        newest = {"value": 22, "datetime": "2014-01-01T00:00:01.000Z"}
        assert await c.ask(GET, f"{base}/resources/temperature?limit=5") == (
            "2.05",
            [
                {"key": "temperature", **newest},
                {"key": "temperature", "value": 21, "datetime": "2014-01-01T00:00:00.000Z"},
            ],
        )
        assert await c.ask(GET, f"{base}/resources") == ("2.05", {"status": "success", "resources": ["temperature"]})
        everything = ("2.05", [{"key": "temperature", "values": [newest]}])
        assert await c.ask(GET, f"{base}/all_resources") == await c.ask(GET, base) == everything
        assert (await c.ask(PUT, f"{base}/resources/description", {"name": "mine"}))[0] == "2.04"
        assert await c.ask(GET, f"{base}/resources/description") == ("2.05", [{"value": {"name": "mine"}}])


@pytest.mark.spec("TTI-X9", "TTI-S2")
async def test_what_is_refused(redis_url: str) -> None:
    async with coap_world(redis_url) as c:
        _, token = await c.w.thing("t1")
        base = f"/v2/things/{token}"
        one = {"values": [{"key": "a", "value": 1}]}
        for code, path, body, wanted in (
            (POST, "/v2/things/nobody", one, "4.01"), (GET, "/v2/things/nobody", None, "4.01"),
            (GET, "/v2/things/nobody/resources", None, "4.01"), (POST, base, b"", "4.00"), (POST, base, b"{", "4.00"),
            (POST, base, b"[" * 900, "4.00"), (POST, base, b"\xff\xfe", "4.00"), (POST, base, {"values": []}, "4.00"),
            (POST, f"{base}?store=maybe", one, "4.00"), (GET, f"{base}/resources/a?limit=0", None, "4.00"),
            (POST, base, {"values": [{"key": "$nothing", "value": 1}]}, "4.04"), (POST, "/v2/things", [], "4.00"),
            (PUT, f"{base}/resources/description", [], "4.00"), (GET, "/v2/else", None, "4.04"),
            (DELETE, base, None, "4.05"), (POST, "/v2/things", b"x" * 5000, "4.01"),
            (POST, "/v2/things/nobody", b"x" * 5000, "4.01"), (POST, base, b" " * (MAX_BODY_BYTES + 1), "4.13"),
        ):  # fmt: skip
            status, reason = await c.ask(code, path, body)
            assert (status, bool(reason)) == (wanted, True), (path, body, reason)


@pytest.mark.spec("TTI-X9", "TTI-X5")
async def test_an_observer_is_told_new_values_while_the_token_holds(redis_url: str) -> None:
    async with coap_world(redis_url) as c:
        (device, token), (_, other) = await c.w.thing("t1"), await c.w.thing("t2")
        async with c.observe(token) as told, asyncio.timeout(20):
            await c.write(other, temperature=1)
            await c.write(token, temperature=2)
            [value] = await told.get()
            assert (value["key"], value["value"], sorted(value)) == ("temperature", 2, ["datetime", "key", "value"])
            await c.write(token, temperature=3)
            assert [each["value"] for each in await told.get()] == [3]
            await c.w.stack.registry.delete_device(TENANT, device.id)
            assert await told.get() == "4.01"
        request = c.client.request(Message(code=GET, uri=f"{c.url}/v2/things/nobody", observe=0))
        assert said(await request.response) == "4.01"


@pytest.mark.spec("TTI-X9", "G-24")
async def test_an_observer_that_is_too_slow_is_cut_off(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coap_module, "MOST_WAITING", 3)
    async with coap_world(redis_url) as c:
        device, token = await c.w.thing("t1")
        async with c.observe(token) as told, asyncio.timeout(20):
            # One message, of more values than may wait.
            values = {f"k{i}": i for i in range(4)}
            message = c.w.parts.intake.message(
                device, "POST_TELEMETRY_REQUEST", values, dialect="tti", transport="coap",
                ts_ms=c.w.parts.intake.stamp(device.id), metadata={"store": "true", "broadcast": "true"},
            )  # fmt: skip
            await c.w.parts.intake.submit([message])
            assert await told.get() == "5.03"
        await c.write(token, a=1)


@pytest.mark.spec("TTI-X9")
async def test_libcoaps_client(redis_url: str) -> None:
    async with coap_world(redis_url) as c:
        device, token = await c.w.thing("t1")
        url = f"{c.url}/v2/things/{token}"
        body = json.dumps({"values": [{"key": "temperature", "value": 21.5}]})

        async def run(*arguments: str) -> Any:
            program = await asyncio.create_subprocess_exec(
                require("coap-client-notls"), "-B", "15", *arguments, stdout=asyncio.subprocess.PIPE
            )
            output, _ = await program.communicate()
            return json.loads(output)

        assert await run("-m", "post", "-t", "json", "-e", body, f"{url}?sync=true") == {
            "status": "created", "message": "values created",
        }  # fmt: skip
        [value] = await run("-m", "get", f"{url}/resources/temperature")
        assert (value["key"], value["value"]) == ("temperature", 21.5)
        assert await c.w.stack.latest(device) == {"temperature": 21.5}
