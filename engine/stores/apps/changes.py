"""Telling all processes that somebody's rights or sessions in an app are not what they were."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import redis.asyncio as redis

from engine.bus import BUS
from engine.entries import encode

KIND: Final = "app"
EVERYBODY: Final = ""
"""In the place of a person: all users of the app."""


def topic(app: str) -> str:
    """What an app's changes are told under, on the bus."""
    return f"app:{app}"


async def tell(client: redis.Redis, tenant: str, app: str, people: Iterable[str]) -> None:
    """Tell whom a change concerns, by their folded addresses. Raises redis errors."""
    await client.publish(BUS, encode((KIND, tenant, topic(app), sorted(people))))
