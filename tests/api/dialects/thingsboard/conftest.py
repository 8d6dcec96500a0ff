from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.api.dialects.thingsboard.site import Site


@pytest_asyncio.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as made:
        yield made
