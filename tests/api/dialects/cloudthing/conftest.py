import pytest_asyncio

from tests.api.dialects.cloudthing.site import running


@pytest_asyncio.fixture
async def site(redis_url):
    async with running(redis_url) as site:
        yield site
