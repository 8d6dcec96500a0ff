"""Ids in radio networks: one spelling, unique within a product, and gone with their device."""

from __future__ import annotations

import pytest
import redis.asyncio as redis

from engine.errors import BadInput, Conflict
from engine.node import Product
from engine.stores.links import normalized
from engine.stores.register import P
from engine.stores.registry import Device, Tenant
from engine.stores.registry_store import Registry

EUI = "70B3D57ED0001234"


@pytest.mark.spec("CT-S11")
@pytest.mark.parametrize(
    ("network", "id", "expected"),
    [
        ("sigfox", "001a2b3c", "1A2B3C"),
        ("sigfox", "1A2B3C", "1A2B3C"),
        ("sigfox", "0000", "0"),
        ("lorawan", EUI.lower(), EUI),
        ("lorawan", "70-b3-d5-7e-d0-00-12-34", EUI),
        ("lorawan", "00:00:00:00:00:00:00:01", "0000000000000001"),
    ],
)
def test_one_spelling(network: str, id: str, expected: str) -> None:
    assert normalized(network, id) == expected
    assert normalized(network, expected) == expected


@pytest.mark.parametrize(
    ("network", "id"),
    [("sigfox", ""), ("sigfox", "x"), ("sigfox", "1" * 17), ("sigfox", "1\n"), ("lorawan", EUI[1:]), ("wifi", "1")],
)
def test_what_is_no_id(network: str, id: str) -> None:
    with pytest.raises(BadInput) as error:
        normalized(network, id, "/links/x")
    assert error.value.pointer == "/links/x"


@pytest.mark.asyncio
@pytest.mark.spec("CT-52")
async def test_the_index_follows_the_device(redis_url: str) -> None:
    async with redis.Redis.from_url(redis_url) as client:
        registry = Registry(client)
        await registry.put_tenant(Tenant(name="t"))
        for id in ("p", "q"):
            await registry.put_product(Product(id=id, tenant="t"))

        async def put(id: str, product: str = "p", **links: str) -> Device:
            return await registry.put_device(Device(id=id, tenant="t", name=id, product=product, links=links))

        async def found(product: str, network: str, id: str) -> str | None:
            device = await registry.find_link(product, network, id)
            return None if device is None else device.id

        made = await put("a", sigfox="00fF", lorawan=EUI.lower())
        assert made.links == {"sigfox": "FF", "lorawan": EUI}
        assert (await found("p", "sigfox", "FF"), await found("p", "lorawan", EUI)) == ("a", "a")
        assert await found("q", "sigfox", "FF") is None
        with pytest.raises(Conflict, match="sigfox id"):
            await put("b", sigfox="ff")
        await put("b", product="q", sigfox="ff")
        await put("a", sigfox="1")
        assert await found("p", "sigfox", "FF") is None
        assert await found("p", "lorawan", EUI) is None
        await put("a", product="q", sigfox="1")
        assert (await found("p", "sigfox", "1"), await found("q", "sigfox", "1")) == (None, "a")
        await registry.delete_device("t", "a")
        await registry.delete_device("t", "b")
        assert await client.hgetall(P + "links") == {}
        with pytest.raises(BadInput) as error:
            await put("c", product="", sigfox="1")
        assert error.value.pointer == "/links"
        with pytest.raises(BadInput) as error:
            await put("c", wifi="1")
        assert error.value.pointer == "/links/wifi"
