"""Opening a store without waiting for one that says nothing."""

from __future__ import annotations

import asyncio
from typing import Final

from engine.errors import StoreUnavailable
from engine.stores.timeseries import Timeseries

OPEN_WITHIN_S: Final = 3.0


async def open_soon(store: Timeseries) -> None:
    """Open a store; raises StoreUnavailable also for one that does not answer within OPEN_WITHIN_S, and Unfit."""
    try:
        async with asyncio.timeout(OPEN_WITHIN_S):
            await store.open()
    except TimeoutError:
        raise StoreUnavailable(f"no answer within {OPEN_WITHIN_S:g} s") from None
