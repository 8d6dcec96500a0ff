"""ThingsBoard's own SDK claims, provisions and updates itself, unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from api.dialects.thingsboard.settings import Settings
from engine.node import Product
from engine.stores.checksums import Algorithm
from tests.api.dialects.thingsboard.ota_site import IMAGE as LARGE
from tests.api.dialects.thingsboard.ota_site import PRODUCT, OtaSite
from tests.api.dialects.thingsboard.sdk import callback, sdk
from tests.api.dialects.thingsboard.site import TOKEN
from tests.api.stack import TENANT

IMAGE = LARGE[:25_000]
"""It comes out of the SDK's process on one line."""

pytestmark = [pytest.mark.asyncio, pytest.mark.spec("TB-X1")]


@pytest_asyncio.fixture
async def site(redis_url: str) -> AsyncIterator[OtaSite]:
    async with OtaSite(redis_url, settings=Settings(ota_devices_per_s=10_000.0)) as made:
        await made.rollout.start()
        yield made


@pytest.mark.spec("TB-50")
async def test_a_device_lets_itself_be_claimed(site: OtaSite) -> None:
    async with sdk(host="127.0.0.1", port=site.mqtt_port, username=TOKEN) as device:
        await device.connect()
        assert await device.call("claim", "secret", 60_000) == 0
        assert await site.claims.matches(site.d1.id, "secret") is True


@pytest.mark.spec("TB-55")
async def test_a_device_provisions_itself(site: OtaSite) -> None:
    facet = {"strategy": "allow_new", "key": "key", "secret": "secret"}
    await site.registry.put_product(Product(id="factory", tenant=TENANT, facets={"provision": facet}))
    async with sdk(host="127.0.0.1", port=site.mqtt_port, username=TOKEN) as client:
        asked = ("127.0.0.1", "key", "secret", site.mqtt_port)
        made, refused = [
            await client.call("TBDeviceMqttClient.provision", *asked, device_name="new", **more)
            for more in ({"gateway": True}, {})
        ]
        assert refused is None
        assert (made["status"], made["credentialsType"]) == ("SUCCESS", "ACCESS_TOKEN")
    device = await site.registry.device(TENANT, "new")
    assert (device.product, device.is_gateway) == ("factory", True)
    async with sdk(host="127.0.0.1", port=site.mqtt_port, username=made["credentialsValue"]) as client:
        await client.connect()
        assert await client.call("send_telemetry", {"a": 1}) == 0
    assert await site.latest(device) == {"a": 1}


@pytest.mark.spec("TB-S37", "TB-60")
async def test_devices_fetch_their_firmware_whole_and_in_chunks(site: OtaSite) -> None:
    algorithms: list[Algorithm] = ["SHA256", "CRC32", "MURMUR3_128"]

    async def update(i: int, algorithm: Algorithm) -> dict[str, Any]:
        """A device of its own that fetches an image of its own; what it has said in the end."""
        device = await site.device(f"sdk{i}", token=f"sdk-token-{i}", product=PRODUCT)
        image = await site.upload(f"v{i}", IMAGE + bytes([i]), algorithm=algorithm)
        await site.rollouts.assign_device(device.id, PRODUCT, "FIRMWARE", image.id)
        # Told while it is connected, it would begin by itself, and begin anew when it is bidden to as well.
        await site.told()
        options = {"chunk_size": 10_000} if i else {}
        async with sdk(host="127.0.0.1", port=site.mqtt_port, username=f"sdk-token-{i}", **options) as client:
            await client.call("set_on_firmware_received_callback", callback("firmware"))
            await client.connect()
            await client.call("get_firmware_update")
            _, data, version = await client.event("firmware")
            assert (bytes.fromhex(data) == IMAGE + bytes([i]), version) == (True, f"v{i}")
        return await site.latest(device)

    for latest in await asyncio.gather(*[update(i, algorithm) for i, algorithm in enumerate(algorithms)]):
        # The checksum was found to be right.
        assert (latest["fw_state"], latest["current_fw_title"]) == ("VERIFIED", "Initial")
