from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.api.flow.serving import FlowStack


@pytest_asyncio.fixture
async def stack(redis_url: str) -> AsyncIterator[FlowStack]:
    async with FlowStack(redis_url) as made:
        yield made
