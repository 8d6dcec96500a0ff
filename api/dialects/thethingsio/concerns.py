"""Telling all processes that somebody's rights or sessions are not what they were, so that open streams look again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from api.dialects.thethingsio.parts import Parts
from engine.bus import BUS
from engine.entries import encode
from engine.stores.apps.apps import App

KIND: Final = "app"


def topic(app: str) -> str:
    """What an app's changes are told under, on the bus."""
    return f"app:{app}"


async def rights_changed(parts: Parts, app: App, people: Iterable[str]) -> None:
    """Somebody's rights changed. People by their folded address."""
    await _tell(parts, app, people)


async def session_ended(parts: Parts, app: App, people: Iterable[str]) -> None:
    """Somebody's sessions may have ended."""
    await _tell(parts, app, people)


async def _tell(parts: Parts, app: App, people: Iterable[str]) -> None:
    await parts.redis.publish(BUS, encode((KIND, app.tenant, topic(app.id), sorted(people))))


def on_change(parts: Parts, app: str, who: str, callback: Callable[[], None]) -> Callable[[], None]:
    """Call back when a user's rights or sessions may have changed; gives what ends that."""

    def heard(kind: str, body: Any) -> None:
        if kind == KIND and who in body:
            callback()

    return parts.live.listen(topic(app), heard)
