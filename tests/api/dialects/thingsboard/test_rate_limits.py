"""A device that asks too often, over each transport."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import aiomqtt
import pytest
import pytest_asyncio
from aiocoap import GET, POST

from api.dialects.thingsboard.settings import Settings
from api.transports.mqtt.packets import Disconnect, Puback
from tests.api.dialects.thingsboard.site import TOKEN
from tests.api.dialects.thingsboard.test_coap import CoapSite
from tests.api.transports.mqtt.harness import RawClient, publication

pytestmark = [pytest.mark.asyncio, pytest.mark.spec("TB-S40", "G-12")]

LIMIT = "3:3600"
TELEMETRY = "v1/devices/me/telemetry"


@pytest_asyncio.fixture
async def site(redis_url: str) -> AsyncIterator[CoapSite]:
    async with CoapSite(redis_url, settings=Settings(rate_limit=LIMIT)) as made:
        yield made


async def test_over_http_it_is_429_and_told_when_to_come_back(site: CoapSite) -> None:
    for n in range(3):
        assert (await site.post("telemetry", json.dumps({"a": n}))).status_code == 200
    for answer in (await site.post("telemetry", '{"a":9}'), await site.get("attributes"), await site.get("rpc")):
        assert answer.status_code == 429
        body = answer.json()
        assert (body["status"], body["errorCode"], set(body)) == (
            429, 33, {"status", "message", "errorCode", "timestamp"}
        )  # fmt: skip
        assert 0 < int(answer.headers["retry-after"]) <= 1200
    # Who asks is looked at first, and others are not held up.
    assert (await site.http.post("/api/v1/nobody/telemetry", content=b"{}")).status_code == 401
    await site.device("other", token="OTHER")
    assert (await site.http.post("/api/v1/OTHER/telemetry", content=b"{}")).status_code == 200
    assert (await site.latest(site.d1)) == {"a": 2}


@pytest.mark.spec("TB-X1")
@pytest.mark.parametrize("level", [4, 5])
async def test_over_mqtt_the_connection_is_closed(site: CoapSite, level: int) -> None:
    client = await RawClient.open(site.mqtt_port)
    assert (await client.login(username=TOKEN, level=level)).code == 0
    for n in range(1, 4):
        client.say(publication(b'{"a":%d}' % n, n, topic=TELEMETRY))
        assert isinstance(await client.hear(), Puback)
    client.say(publication(b'{"a":9}', 4, topic=TELEMETRY))
    if level == 5:
        told = await client.hear()
        assert isinstance(told, Disconnect)
        assert told.reason == 0x97
    assert await client.hear() is None
    await client.close()
    assert await site.latest(site.d1) == {"a": 3}


@pytest.mark.spec("TB-X3")
async def test_over_coap_it_is_4_29(site: CoapSite) -> None:
    for _ in range(3):
        assert (await site.ask(POST, "telemetry", '{"a": 1}'))[0] == "2.01"
    code, reason = await site.ask(GET, "attributes")
    assert (code, b"too many requests" in reason) == ("4.29", True)


@pytest.mark.spec("TB-X1")
async def test_a_session_is_told_its_limit(site: CoapSite) -> None:
    async with aiomqtt.Client("127.0.0.1", site.mqtt_port, username=TOKEN, timeout=5) as client:
        await client.subscribe("v1/devices/me/rpc/response/+", qos=1)
        await client.publish("v1/devices/me/rpc/request/1", '{"method":"getSessionLimits","params":{}}', qos=1)
        message = await anext(aiter(client.messages))
        assert isinstance(message.payload, bytes)
        assert json.loads(message.payload)["rateLimits"] == {"messages": LIMIT}
