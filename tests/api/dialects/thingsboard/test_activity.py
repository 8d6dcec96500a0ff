"""What counts as a word of a device, over each transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiomqtt
import pytest
import pytest_asyncio

from api.activity import Activity
from api.intake import Intake
from engine.stores.activity import ActivityStore
from engine.stores.products import Products
from tests.api.dialects.thingsboard.site import TOKEN, Site
from tests.api.stack import PARTITIONS, TENANT
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio


class ActiveSite(Site):
    """A site that takes notes of who is there; `events` gives what the chain was told, without a worker."""

    def __init__(self, url: str) -> None:
        super().__init__(url, work=False)
        self.activity = Activity(ActivityStore(self.wire, PARTITIONS), self.auth, Products(self.registry), grace_ms=0)
        self.intake = Intake(self.ingress, self.replies, self.activity)

    async def events(self) -> list[tuple[str, str]]:
        await self.activity.flush()
        return [(each.type, each.metadata.get("reason", "")) for each in await self.messages()]

    async def is_active(self) -> bool:
        await self.activity.flush()
        server = (await self.attributes.read(TENANT, self.d1.id))["SERVER"]
        return "active" in server and server["active"].value is True


@pytest_asyncio.fixture
async def site(redis_url: str) -> AsyncIterator[ActiveSite]:
    async with ActiveSite(redis_url) as made:
        yield made


CALLS: dict[str, Callable[[ActiveSite], Awaitable[Any]]] = {
    "telemetry": lambda site: site.post("telemetry", '{"a": 1}'),
    "attributes": lambda site: site.post("attributes", '{"a": 1}'),
    "reading": lambda site: site.get("attributes"),
    "poll": lambda site: site.get("rpc?timeout=20"),
    "answer": lambda site: site.post("rpc/1", "{}"),
    "broken": lambda site: site.post("telemetry", "{"),
}


@pytest.mark.spec("TB-S41")
@pytest.mark.parametrize("call", list(CALLS))
async def test_every_call_over_http_is_a_word_of_the_device(site: ActiveSite, call: str) -> None:
    assert not await site.is_active()
    await CALLS[call](site)
    assert await site.is_active()
    assert [type for type, _ in await site.events()].count("ACTIVITY_EVENT") == 1


@pytest.mark.spec("TB-S41", "TB-S2")
async def test_a_call_with_a_wrong_token_is_nobodys_word(site: ActiveSite) -> None:
    await site.http.post("/api/v1/WRONG/telemetry", content=b'{"a": 1}')
    assert site.activity._seen == {}


@pytest.mark.spec("TB-S41", "G-18", "TB-X1")
async def test_a_session_connects_and_disconnects(site: ActiveSite) -> None:
    async with aiomqtt.Client("127.0.0.1", site.mqtt_port, username=TOKEN, identifier="one"):
        await until(lambda: there(site, 1))
        async with aiomqtt.Client("127.0.0.1", site.mqtt_port, username=TOKEN, identifier="two"):
            await until(lambda: there(site, 2))
        await until(lambda: there(site, 1))
        assert await site.events() == [("CONNECT_EVENT", "mqtt session"), ("ACTIVITY_EVENT", "")]
    await until(lambda: there(site, 0))
    assert (await site.events())[-1] == ("DISCONNECT_EVENT", "client disconnected")
    server = (await site.attributes.read(TENANT, site.d1.id))["SERVER"]
    assert server["lastConnectTime"].value <= server["lastDisconnectTime"].value


async def there(site: ActiveSite, count: int) -> bool:
    return site.activity._sessions[site.d1.id] == count


@pytest.mark.spec("TB-S41", "TB-X2")
async def test_a_gateway_connects_its_devices_and_they_are_active_by_their_own_words(site: ActiveSite) -> None:
    await site.device("gw", token="GW", is_gateway=True)
    async with aiomqtt.Client("127.0.0.1", site.mqtt_port, username="GW", identifier="gw") as client:
        await client.publish("v1/gateway/connect", b'{"device":"child"}', qos=1)
        child = await site.registry.device(TENANT, "child")
        assert site.activity._sessions[child.id] == 1
        assert child.id not in site.activity._holding
        await client.publish("v1/gateway/telemetry", b'{"child":[{"a":1}]}', qos=1)
        assert child.id in site.activity._seen
        await client.publish("v1/gateway/disconnect", b'{"device":"child"}', qos=1)
        await site.activity.flush()
        told = [each.type for each in await site.messages() if each.originator == child.id]
        assert told.count("CONNECT_EVENT") == told.count("DISCONNECT_EVENT") == told.count("ACTIVITY_EVENT") == 1
        server = (await site.attributes.read(TENANT, child.id))["SERVER"]
        assert "lastDisconnectTime" in server
