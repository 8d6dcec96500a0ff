"""Firmware images, from their upload over the management API to ranges of them over HTTP."""

import hashlib

import pytest

from engine.node import Product
from tests.api.dialects.cloudthing.site import DEVICE, TENANT, TOKEN, call
from tests.services import require

pytestmark = pytest.mark.asyncio

IMAGE = bytes(range(256)) * 3000
TAG = f'"{hashlib.md5(IMAGE).hexdigest()}"'


async def get(site, id="v2", **headers):
    client = await site.stack.client(site.http_url)
    return await client.get(f"/v1/{DEVICE}/fw/dl/{id}", headers=site.basic() | headers)


@pytest.mark.spec("CT-36", "CT-S16")
async def test_a_device_downloads_an_image_of_its_product(site, tmp_path):
    await site.stack.firmware.put("p1", "v2", IMAGE)
    response = await get(site)
    assert (response.status_code, response.content) == (200, IMAGE)
    headers = {name: response.headers.get(name) for name in ("content-type", "content-disposition", "etag")}
    assert headers == {"content-type": "application/octet-stream", "content-disposition": "attachment", "etag": TAG}
    assert response.headers["content-length"] == str(len(IMAGE))
    code, _ = await call(
        require("curl"), "-sSf", "-u", f"{DEVICE}:{TOKEN}", "-o", str(tmp_path / "image"),
        f"{site.http_url}/v1/{DEVICE}/fw/dl/v2",
    )  # fmt: skip
    assert (code, (tmp_path / "image").read_bytes()) == (0, IMAGE)


@pytest.mark.spec("CT-S16")
@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=100-299999", 100, 299_999),
        ("bytes=700000-", 700_000, len(IMAGE) - 1),
        ("bytes=-5", len(IMAGE) - 5, len(IMAGE) - 1),
        ("bytes=-99999999", 0, len(IMAGE) - 1),
        ("Bytes=10-99999999", 10, len(IMAGE) - 1),
    ],
)
async def test_a_range_is_honoured(site, asked, first, last):
    await site.stack.firmware.put("p1", "v2", IMAGE)
    response = await get(site, Range=asked)
    assert (response.status_code, response.content) == (206, IMAGE[first : last + 1])
    assert response.headers["content-range"] == f"bytes {first}-{last}/{len(IMAGE)}"
    assert response.headers["etag"] == TAG


@pytest.mark.spec("CT-S16")
@pytest.mark.parametrize("asked", [f"bytes={len(IMAGE)}-", f"bytes={len(IMAGE)}-{len(IMAGE) + 5}", "bytes=-0"])
async def test_a_range_that_is_not_there_is_416(site, asked):
    await site.stack.firmware.put("p1", "v2", IMAGE)
    response = await get(site, Range=asked)
    assert (response.status_code, response.json()["code"]) == (416, 416)
    assert response.headers["content-range"] == f"bytes */{len(IMAGE)}"


@pytest.mark.spec("CT-S16")
async def test_what_is_no_single_range_or_of_another_image_brings_all_and_a_known_image_nothing(site):
    await site.stack.firmware.put("p1", "v2", IMAGE)
    for headers in (
        {"Range": "bytes=5-1"},
        {"Range": "bytes=-"},
        {"Range": "bytes=0-1,3-4"},
        {"Range": "lines=0-1"},
        {"Range": "bytes=0-1", "If-Range": '"other"'},
    ):
        response = await get(site, **headers)
        assert (response.status_code, len(response.content)) == (200, len(IMAGE)), headers
    assert (await get(site, **{"Range": "bytes=0-1", "If-Range": TAG})).status_code == 206
    for tags in (TAG, f'"x", W/{TAG}', "*"):
        response = await get(site, **{"If-None-Match": tags})
        assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", TAG)


@pytest.mark.spec("CT-S16", "CT-S10")
async def test_only_firmware_of_the_devices_product(site):
    await site.stack.registry.put_product(Product(id="p2", tenant=TENANT))
    await site.stack.firmware.put("p2", "v2", IMAGE)
    for id in ("v2", "v3", "p2:v2"):
        response = await get(site, id)
        assert (response.status_code, response.json()["code"]) == (404, 404)
    await site.put_device(id=site.device.id, product="")
    assert (await get(site)).status_code == 404
    client = await site.stack.client(site.http_url)
    assert (await client.get(f"/v1/{DEVICE}/fw/dl/v2")).status_code == 401
