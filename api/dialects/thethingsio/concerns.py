"""Telling all processes that somebody's rights or sessions are not what they were, so that open streams look again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from api.dialects.thethingsio.parts import Parts
from engine.stores.apps.apps import App
from engine.stores.apps.changes import EVERYBODY, KIND, tell, topic


async def rights_changed(parts: Parts, app: App, people: Iterable[str]) -> None:
    """Somebody's rights changed. People by their folded address."""
    await tell(parts.redis, app.tenant, app.id, people)


async def session_ended(parts: Parts, app: App, people: Iterable[str]) -> None:
    """Somebody's sessions may have ended."""
    await tell(parts.redis, app.tenant, app.id, people)


def on_change(parts: Parts, app: str, who: str, callback: Callable[[], None]) -> Callable[[], None]:
    """Call back when a user's rights or sessions may have changed; gives what ends that."""

    def heard(kind: str, body: Any) -> None:
        if kind == KIND and (who in body or EVERYBODY in body):
            callback()

    return parts.live.listen(topic(app), heard)
