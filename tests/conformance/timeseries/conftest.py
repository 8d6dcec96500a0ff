"""Every test that takes `store` runs once for each store of `stores.STORES`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engine.stores.timeseries import Timeseries
from tests.conformance.timeseries.stores import STORES, Kind


@pytest.fixture(params=sorted(STORES))
def kind(request: pytest.FixtureRequest) -> Kind:
    return STORES[request.param]


@pytest_asyncio.fixture
async def store(kind: Kind, tmp_path: Path) -> AsyncIterator[Timeseries]:
    async with kind.opened(tmp_path) as opened:
        yield opened
