"""The event loop the endpoint runs on, and a Redis client for the tests that need one."""

import pytest
import pytest_asyncio
import uvloop
from redis.asyncio import Redis


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(config, item):
    """The loop the endpoint is meant for; where pytest-asyncio is too old to be told, asyncio's own."""
    return {"uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture
async def redis(redis_url):
    """A client of an empty server."""
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()
