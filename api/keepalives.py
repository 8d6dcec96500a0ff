"""Blank messages on streams that were silent for too long: one timer and one heap for all streams of a process."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Final, Protocol

_EARLY_S: Final = 0.001
"""What is due within this is done at once, so that the timer does not fire twice for it."""


class Quiet(Protocol):
    """A stream. Its times are those of the event loop's clock."""

    every_s: float
    """How long it may be silent."""
    spoke_s: float
    """When something was last sent on it; it notes that itself."""

    def blank(self) -> None:
        """Send a blank message, which notes the time too."""


class _Entry:
    __slots__ = ("due_s", "number", "stream")

    def __init__(self, due_s: float, number: int, stream: Quiet) -> None:
        self.due_s, self.number = due_s, number
        self.stream: Quiet | None = stream

    def __lt__(self, other: _Entry) -> bool:
        return (self.due_s, self.number) < (other.due_s, other.number)


class KeepAlives:
    """The streams of one process.

    What is sent on a stream moves nothing here: only when its entry comes up is it asked when it last spoke.
    """

    def __init__(self) -> None:
        self._heap: list[_Entry] = []
        self._numbers = itertools.count()
        self._gone = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: Quiet) -> Callable[[], None]:
        """Keep a stream alive from now on; returns what ends that."""
        entry = _Entry(stream.spoke_s + stream.every_s, next(self._numbers), stream)
        heapq.heappush(self._heap, entry)
        self._arm()

        def remove() -> None:
            if entry.stream is not None:
                entry.stream = None
                self._gone += 1
                self._tidy()

        return remove

    def stop(self) -> None:
        """Send no more."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tidy(self) -> None:
        """Entries of streams that ended are left until their turn, or until they are most of all."""
        if self._gone > 1000 and self._gone > len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if entry.stream is not None]
            heapq.heapify(self._heap)
            self._gone = 0

    def _arm(self) -> None:
        if not self._heap:
            return
        due_s = self._heap[0].due_s
        if self._timer is not None:
            if self._timer.when() <= due_s:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(due_s, self._look)

    def _look(self) -> None:
        self._timer = None
        now_s = asyncio.get_running_loop().time()
        while self._heap and self._heap[0].due_s <= now_s + _EARLY_S:
            entry = heapq.heappop(self._heap)
            stream = entry.stream
            if stream is None:
                self._gone -= 1
                continue
            if stream.spoke_s + stream.every_s <= now_s + _EARLY_S:
                stream.blank()
            entry.due_s = stream.spoke_s + stream.every_s
            heapq.heappush(self._heap, entry)
        self._arm()
