from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from api.dialects.thethingsio.subscriptions import Subscriptions
from engine.commit import values_channel
from tests.api.dialects.thethingsio.world import world
from tests.api.stack import TENANT
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio


@pytest.mark.spec("G-24")
async def test_who_goes_away_while_the_channel_opens_keeps_nothing_open(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(redis_url) as w:
        values = w.parts.live_values
        listen, began = values.listen, asyncio.Event()

        async def slow(tenant: str, callback: Any) -> Callable[[], Awaitable[None]]:
            began.set()
            await asyncio.sleep(3600)
            return await listen(tenant, callback)

        subscriptions = Subscriptions(values)
        monkeypatch.setattr(values, "listen", slow)
        begin = asyncio.create_task(subscriptions.begin(TENANT, lambda told: None))
        await began.wait()
        begin.cancel()
        with pytest.raises(asyncio.CancelledError):
            await begin
        monkeypatch.setattr(values, "listen", listen)
        subscription = await subscriptions.begin(TENANT, lambda told: None)

        async def listeners() -> int:
            [(_, count)] = await w.parts.redis.pubsub_numsub(values_channel(TENANT))
            return int(count)

        assert await listeners() == 1
        await subscription.end()
        await subscription.end()

        async def nobody() -> bool:
            return await listeners() == 0

        await until(nobody)
