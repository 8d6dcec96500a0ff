"""Images and their bytes, while several people change them at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import redis.asyncio as redis

from engine.errors import BadInput, NotFound
from engine.stores import firmware as module
from engine.stores.firmware import Firmware

pytestmark = [pytest.mark.asyncio, pytest.mark.spec("TB-61")]

PRODUCT = "p"


@pytest_asyncio.fixture
async def client(redis_url: str) -> AsyncIterator[redis.Redis]:
    made = redis.Redis.from_url(redis_url)
    yield made
    await made.aclose()


async def bytes_kept(client: redis.Redis) -> list[bytes]:
    """The bytes of all images that lie in Redis."""
    return [await client.get(key) or b"" for key in await client.keys("rm:{reg}:firmware-bytes:*")]


async def test_of_uploads_at_once_one_is_there_whole_and_no_other_bytes(client: redis.Redis) -> None:
    firmware = Firmware(client)
    bodies = [b"body %d" % n for n in range(8)]
    await asyncio.gather(*[firmware.put(PRODUCT, "v1", body) for body in bodies])
    [image] = await firmware.list(PRODUCT)
    [kept] = await bytes_kept(client)
    assert kept in bodies
    assert b"".join([piece async for piece in firmware.read(PRODUCT, image, 0, image.size)]) == kept


async def test_uploads_and_deletions_at_once_leave_no_bytes_behind(client: redis.Redis) -> None:
    firmware = Firmware(client)
    await firmware.put(PRODUCT, "v1", b"first")
    works = [firmware.put(PRODUCT, "v1", b"body %d" % n) for n in range(4)]
    ends = [firmware.delete(PRODUCT, "v1") for _ in range(4)]
    done = await asyncio.gather(
        *[work for pair in zip(works, ends, strict=True) for work in pair], return_exceptions=True
    )
    assert all(isinstance(each, NotFound) for each in done if isinstance(each, Exception))
    assert len(await bytes_kept(client)) == len(await firmware.list(PRODUCT))


async def test_uploads_at_once_are_not_more_than_a_product_may_have(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_A_PRODUCT", 3)
    firmware = Firmware(client)
    works = [firmware.put(PRODUCT, f"v{n}", b"body") for n in range(8)]
    done = await asyncio.gather(*works, return_exceptions=True)
    assert sum(isinstance(each, BadInput) for each in done) == 5
    assert (len(await firmware.list(PRODUCT)), len(await bytes_kept(client))) == (3, 3)
