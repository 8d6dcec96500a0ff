"""The life of everything that runs: start, stop, and a supervised loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

log = logging.getLogger("rulemill.service")


class Service(Protocol):
    """Something that runs. `stop` may be called twice, and before `start`; it finishes what was accepted."""

    async def start(self) -> None:
        """Return when ready."""
        ...

    async def stop(self) -> None:
        """Return when nothing runs any more."""
        ...


async def end(task: asyncio.Future[Any], again_s: float = 1.0) -> None:
    """Cancel a task and wait until it has ended, whatever it ends with.

    It is cancelled anew every `again_s` seconds: on Python 3.11 `asyncio.wait_for`, with which redis-py sends, may lose
    a cancellation. Whoever waits here is cancelled only when the task has ended, or it would be left running.
    """
    cancelled = False
    while not task.done():
        task.cancel()
        try:
            await asyncio.wait([task], timeout=again_s)
        except asyncio.CancelledError:
            cancelled = True
    if not task.cancelled():
        task.exception()  # looked at, so that nobody is told of it at some later time
    if cancelled:
        raise asyncio.CancelledError


async def end_all(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait until all have ended; see `end`."""
    await asyncio.gather(*[end(task) for task in list(tasks)])


class Loop:
    """Calls `step` every `every_s` seconds until stopped; a failing step is logged and the next one comes in time."""

    def __init__(self, name: str, every_s: float, step: Callable[[], Awaitable[None]]) -> None:
        self._name, self._every_s, self._step = name, every_s, step
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; the first step comes after one period."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self._step()
            except Exception as error:
                log.warning("%s: %s: %s (tried again in %g s)", self._name, type(error).__name__, error, self._every_s)

    async def stop(self) -> None:
        """End; a step under way is cancelled."""
        if self._task is not None:
            await end(self._task)
            self._task = None
