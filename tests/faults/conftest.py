"""The bench that fault tests share with those of the kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.engine.bench import Bench


@pytest_asyncio.fixture
async def bench(redis_url: str) -> AsyncIterator[Bench]:
    async with Bench(redis_url) as made:
        yield made
