"""Who wants to be told of what: callbacks by topic, each ended by what adding it gives."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, ParamSpec

log = logging.getLogger("rulemill.live")

P = ParamSpec("P")


class Listeners(Generic[P]):
    """Callbacks, told in the order in which they came; one that fails harms no other. `of`: what it is about."""

    def __init__(self, of: str) -> None:
        self._of = of
        self._by_topic: dict[str, dict[object, Callable[P, None]]] = {}

    def __len__(self) -> int:
        """Topics of which somebody wants to be told."""
        return len(self._by_topic)

    def __contains__(self, topic: str) -> bool:
        return topic in self._by_topic

    def add(self, callback: Callable[P, None], topic: str = "") -> Callable[[], None]:
        """Call back from now on; gives what ends that (may be called twice)."""
        key = object()
        self._by_topic.setdefault(topic, {})[key] = callback

        def remove() -> None:
            callbacks = self._by_topic.get(topic)
            if callbacks is not None:
                callbacks.pop(key, None)
                if not callbacks:
                    del self._by_topic[topic]

        return remove

    def tell(self, topic: str, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call those of a topic; some may add or remove others."""
        for callback in list(self._by_topic.get(topic, {}).values()):
            try:
                callback(*args, **kwargs)
            except Exception:
                log.exception("a listener to %s failed", self._of)
