"""The device class of ThingsBoard's own SDK, which speaks MQTT 5, works unchanged."""

from __future__ import annotations

import pytest

from tests.api.dialects.thingsboard.sdk import sdk
from tests.api.dialects.thingsboard.site import TOKEN, Site

pytestmark = pytest.mark.asyncio


@pytest.mark.spec("TB-X1")
async def test_uploads(site: Site) -> None:
    async with sdk(host="127.0.0.1", port=site.mqtt_port, username=TOKEN) as device:
        await device.connect()
        assert await device.call("send_telemetry", {"temperature": 42.0, "open": True}) == 0
        assert await device.call("send_attributes", {"serial": "A 1", "nested": {"a": [1, 2]}}) == 0
    assert await site.latest(site.d1) == {"temperature": 42.0, "open": True}
    assert (await site.attributes_of(site.d1))["CLIENT"] == {"serial": "A 1", "nested": {"a": [1, 2]}}
