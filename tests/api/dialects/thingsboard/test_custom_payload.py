"""Products whose devices send bytes of their own making as telemetry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from api.flow.facets import check_facets
from engine.node import Product
from tests.api.dialects.thingsboard.site import Site
from tests.api.dialects.thingsboard.test_mqtt import ME, connected
from tests.api.stack import TENANT

pytestmark = [pytest.mark.asyncio, pytest.mark.spec("TB-62")]

FUNCTION = 'return {"temp": msg.bytes[0]}'


async def product(site: Site, **facets: Any) -> None:
    assert check_facets(facets) == []
    await site.registry.put_product(Product(id="p1", tenant=TENANT, facets=facets))
    await site.registry.put_device(msgspec.structs.replace(site.d1, product="p1"))


@pytest_asyncio.fixture
async def custom(site: Site) -> AsyncIterator[Site]:
    await product(site, payload="custom", transform={"lang": "js", "source": FUNCTION})
    yield site


async def test_the_products_function_reads_what_came_over_http(custom: Site) -> None:
    answer = await custom.post("telemetry", b"\x2a", headers={"content-type": "application/octet-stream"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert await custom.latest(custom.d1) == {"temp": 42}


async def test_and_over_mqtt_where_the_topic_does_not_say_otherwise(custom: Site) -> None:
    async with connected(custom) as client:
        await client.publish(ME + "telemetry", b"\x2a", 1)
        await client.publish("v2/t/j", '{"json":1}', 1)
    assert await custom.latest(custom.d1) == {"temp": 42, "json": 1}


async def test_everything_else_stays_json(custom: Site) -> None:
    assert (await custom.post("attributes", '{"a":1}')).status_code == 200
    async with connected(custom) as client:
        await client.publish(ME + "attributes", '{"b":2}', 1)
    assert (await custom.attributes_of(custom.d1))["CLIENT"] == {"a": 1, "b": 2}


async def test_no_bytes_are_no_telemetry(custom: Site) -> None:
    assert (await custom.post("telemetry", b"")).status_code == 400


async def test_what_it_is_as_a_message(redis_url: str) -> None:
    async with Site(redis_url, work=False) as site:
        await product(site, payload="custom", transform={"lang": "js", "source": FUNCTION})
        await site.post("telemetry", b"\x00\xff")
        [message] = await site.messages()
        assert (message.type, message.data) == ("RAW_UPLINK", b"\x00\xff")
        assert message.metadata == {
            "dialect": "tb", "transport": "http", "deviceName": "d1", "deviceType": "p1", "productId": "p1",
            "ct": "custom",
        }  # fmt: skip


async def test_a_product_without_the_facet_speaks_json(site: Site) -> None:
    await product(site, payload="json")
    assert (await site.post("telemetry", '{"a":1}')).status_code == 200
    assert (await site.post("telemetry", b"\x2a")).status_code == 400
    assert await site.latest(site.d1) == {"a": 1}
