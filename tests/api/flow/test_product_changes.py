"""What a changed product makes others do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.stores.apps.changes import EVERYBODY, KIND, topic
from tests.api.flow.serving import FlowStack, T

pytestmark = pytest.mark.asyncio


@pytest.mark.spec("TTI-6")
async def test_its_apps_look_again_what_is_public(stack: FlowStack) -> None:
    await stack.put(f"{T}/products/weather", {"facets": {"thethingsio": {"public": ["humidity"]}}}, 201)
    await stack.put(f"{T}/apps/weather-app", {"product": "weather", "resources": ["humidity"]}, 201)
    heard: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
    end = stack.live.listen(topic("weather-app"), lambda kind, body: heard.put_nowait((kind, body)))
    await stack.put(f"{T}/products/weather", {"facets": {"thethingsio": {"public": []}}})
    async with asyncio.timeout(10):
        assert await heard.get() == (KIND, [EVERYBODY])
    end()
