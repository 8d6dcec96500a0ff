"""What fault tests share: the bench of the kernel, and whole servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.engine.bench import Bench
from tests.faults.load import DEVICES
from tests.faults.server import Server


@pytest_asyncio.fixture
async def bench(redis_url: str) -> AsyncIterator[Bench]:
    async with Bench(redis_url) as made:
        yield made


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def make(**settings: str) -> Server:
        made.append(Server(tmp_path, DEVICES, **settings))
        made[0].start()
        return made[0]

    yield make
    for server in made:
        server.stop()
