from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest

from api.dialects.thethingsio.streams import JsonStream
from api.keepalives import KeepAlives
from api.transports.http import Feed, Front, Request, Response, Route
from tests.api.dialects.thethingsio.test_values import owner
from tests.api.dialects.thethingsio.world import PRODUCT, World, world
from tests.api.stack import TENANT
from tests.api.transports.serving import serving
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio

SUBSCRIBED = {"status": "success", "message": "subscribed"}


class Texts:
    """JSON texts of a stream, one by one, as they come over the socket in chunks."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks

    async def next(self) -> Any:
        async with asyncio.timeout(10):
            async for chunk in self._chunks:
                return json.loads(chunk)
        raise AssertionError("the stream has ended")

    async def value(self) -> Any:
        """The next that is no keep-alive."""
        while (text := await self.next()) == {}:
            pass
        return text

    async def ended(self) -> bool:
        async with asyncio.timeout(10):
            return [chunk async for chunk in self._chunks] == []


@asynccontextmanager
async def stream(w: World, path: str, token: str = "", **query: str) -> AsyncIterator[Texts]:
    headers = {"authorization": token} if token else {}
    async with w.client.stream("GET", path, headers=headers, params=query) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        yield Texts(answer.aiter_raw())


async def write(w: World, token: str, thing: str, value: Any, resource: str = "temperature", **query: str) -> None:
    body = {"values": [{"value": value}]}
    told = await w.call("POST", f"/v2/me/resources/{resource}/{thing}", token, body, **query)
    assert told.status_code == 201


@pytest.mark.spec("TTI-36", "TTI-37", "TTI-40", "TTI-41", "TTI-42", "TTI-S15")
async def test_new_values_are_told_as_they_come(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann, one, _ = await owner(w)
        two, _ = await w.thing("t2")
        await w.link(ann, two)
        path = "/v2/me/resources/temperature"
        async with (
            stream(w, path, ann, subscribe="true", keepAlive="1") as every,
            stream(w, f"{path}/{two.id}", ann, subscribe="true", keepAlive="3600000") as second,
        ):
            assert await every.next() == SUBSCRIBED
            assert await second.next() == SUBSCRIBED
            assert await every.next() == {}
            await write(w, ann, one.id, 15)
            await write(w, ann, two.id, "silent", broadcast="false")
            await write(w, ann, two.id, "other", resource="humidity")
            await write(w, ann, two.id, [1, {"fleeting": True}], store="false")
            assert await every.value() == [{"value": 15, "id": one.id}]
            assert await every.value() == [{"value": [1, {"fleeting": True}], "id": two.id}]
            assert await second.value() == [{"value": [1, {"fleeting": True}], "id": two.id}]
        for query in ({"keepAlive": "soon"}, {"keepAlive": "1.5"}):
            assert (await w.call("GET", path, ann, subscribe="true", **query)).status_code == 400
        bob = await w.register("bob@x.org")
        assert (await w.call("GET", f"{path}/{one.id}", bob, subscribe="true")).status_code == 403


@pytest.mark.spec("TTI-S8", "TTI-S15")
async def test_rights_are_followed_while_the_stream_is_open(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann, device, _ = await owner(w)
        bob = await w.register("bob@x.org")
        path = "/v2/me/resources/temperature"
        async with stream(w, path, bob, subscribe="true") as texts:
            assert await texts.next() == SUBSCRIBED
            await write(w, ann, device.id, "unseen")
            await w.grant(ann, "bob@x.org", device.id, "temperature", get=True)
            async with stream(w, f"{path}/{device.id}", bob, subscribe="true") as one:
                assert await one.next() == SUBSCRIBED
                await asyncio.sleep(0.1)  # for the other stream to hear of the grant
                await write(w, ann, device.id, "seen")
                assert await one.value() == [{"value": "seen", "id": device.id}]
                assert await texts.value() == [{"value": "seen", "id": device.id}]
                await w.grant(ann, "bob@x.org", device.id, "temperature", get=False)
                assert await one.value() == {"status": "error", "code": 401, "message": "Permission denied"}
                assert await one.ended()
            login = {"email": "bob@x.org", "password": "secret 1", "app": "app-weather-1"}
            other = (await w.call("POST", "/v2/login", body=login)).json()["token"]
            await w.call("PUT", "/v2/me/settings", other, {"password": "another 1"})
            assert await texts.value() == {"status": "error", "code": 401, "message": "Invalid session token"}
            assert await texts.ended()


@pytest.mark.spec("TTI-6", "TTI-S15")
async def test_a_resource_that_is_made_private_is_told_no_more(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann, _, _ = await owner(w)
        async with stream(w, "/v2/me/resources/humidity", ann, subscribe="true") as texts:
            assert await texts.next() == SUBSCRIBED
            product = await w.stack.registry.product(TENANT, PRODUCT)
            facets = {**product.facets, "thethingsio": {"public": ["temperature"]}}
            kept = await w.stack.registry.put_product(msgspec.structs.replace(product, facets=facets))
            await w.parts.apps.product_changed(kept)
            assert await texts.next() == {"status": "error", "code": 401, "message": "Permission denied"}
            assert await texts.ended()


class Bursts:
    """A surface with a stream on which much is said before its head is out."""

    name, cors = "bursts", False

    def __init__(self) -> None:
        self.keepalives, self.closed = KeepAlives(), 0
        self.routes = (Route("GET", "/{texts}", self.open),)

    def owns(self, request: Request) -> bool:
        return True

    def error(self, request: Request, status: int, reason: str, headers: Any = ()) -> Response:
        return Response(status)

    async def open(self, request: Request, names: dict[str, str]) -> Feed:
        def closed() -> None:
            self.closed += 1

        stream = JsonStream(self.keepalives, 60_000, closed)
        for n in range(int(names["texts"])):
            stream.say(n)
        stream.finish("over")
        return stream.answer()


async def test_what_comes_before_a_stream_is_open_is_not_lost_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    bursts = Bursts()
    async with serving(Front([bursts])) as made:
        told = (await made.http.get("/249")).text
        assert told == msgspec.json.encode(SUBSCRIBED).decode() + "".join(map(str, range(249))) + '"over"'
        with pytest.raises(httpx.RemoteProtocolError):
            await made.http.get("/251")
        await until(lambda: bursts.closed == 2)
        bursts.keepalives.stop()
    assert [record.getMessage() for record in caplog.records if record.name == "rulemill.thethingsio"] == [
        "a stream is cut off as it opens: more than 250 texts came before"
    ]
