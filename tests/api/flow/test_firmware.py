"""Uploads of firmware images."""

from __future__ import annotations

import hashlib

import pytest

from engine.node import Product
from engine.stores.firmware import MAX_A_PRODUCT, MAX_BYTES
from tests.api.flow.serving import FlowStack, T
from tests.api.stack import TENANT

pytestmark = pytest.mark.asyncio

PLACE = f"{T}/products/p1/firmware"


async def upload(stack: FlowStack, id: str, body: bytes) -> int:
    return (await stack.flow.put(f"{PLACE}/{id}", content=body)).status_code


@pytest.mark.spec("CT-S16", "G-26")
async def test_images_are_uploaded_shown_replaced_and_deleted(stack: FlowStack) -> None:
    await stack.registry.put_product(Product(id="p1", tenant=TENANT))
    first, second = b"\x00\xffone", b"two"
    answer = await stack.flow.put(f"{PLACE}/v1", content=first, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201
    made = answer.json()
    assert (made["id"], made["size"], made["md5"]) == ("v1", 5, hashlib.md5(first).hexdigest())
    assert made["sha256"] == hashlib.sha256(first).hexdigest()
    assert await stack.get(f"{PLACE}/v1") == made
    assert await upload(stack, "v1", second) == 200
    assert await upload(stack, "v0", second) == 201
    assert [(each["id"], each["size"]) for each in (await stack.get(PLACE))["firmware"]] == [("v0", 3), ("v1", 3)]
    await stack.delete(f"{PLACE}/v1")
    await stack.get(f"{PLACE}/v1", 404)
    await stack.delete(f"{PLACE}/v1", 404)
    await stack.delete(f"{PLACE}/v0")
    assert [key async for key in stack.redis.scan_iter("*firmware*")] == []


@pytest.mark.spec("CT-S16", "G-12")
async def test_images_are_bounded_in_size_and_number_and_need_a_product(stack: FlowStack) -> None:
    assert await upload(stack, "v1", b"x") == 404
    await stack.registry.put_product(Product(id="p1", tenant=TENANT))
    assert await upload(stack, "v1", b"x" * MAX_BYTES) == 201
    assert await upload(stack, "v1", b"x" * (MAX_BYTES + 1)) == 413
    assert (await stack.flow.put(f"{T}/products/p1", content=b" " * (5 << 20))).status_code == 413
    assert await upload(stack, "v1", b"") == 400
    assert await upload(stack, "a%20b", b"x") == 400
    for n in range(1, MAX_A_PRODUCT):
        assert await upload(stack, f"n{n}", b"x") == 201
    assert await upload(stack, "one-more", b"x") == 400
    assert await upload(stack, "v1", b"x") == 200
    assert (await stack.anonymous.put(f"{PLACE}/v1", content=b"x")).status_code == 401


@pytest.mark.spec("G-26", "CT-3")
async def test_functions_of_events_are_checked_with_the_product(stack: FlowStack) -> None:
    events = {"a/b": {"source": "return {"}, "c": 5, "d": {"source": "return 1"}}
    answer = await stack.put(f"{T}/products/p1", {"facets": {"events": events}}, 400)
    assert [each["pointer"] for each in answer["errors"]] == ["/facets/events/a~1b/source", "/facets/events/c"]
    await stack.put(f"{T}/products/p1", {"facets": {"events": {"d": events["d"]}}}, 201)
