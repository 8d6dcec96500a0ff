"""Work that one process of all does at a time: the holder of a lease in Redis. When it is gone another takes over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import redis.asyncio as redis
from redis.exceptions import RedisError

from engine.message import new_id
from engine.service import end

log = logging.getLogger("rulemill.alone")

LIFE_S: Final = 10.0
RENEW_EVERY_S: Final = 2.0
AGAIN_S: Final = 1.0
"""How long after work that ended or failed, or a lease that somebody else holds, it is tried again."""

_RENEW: Final = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('pexpire', KEYS[1], ARGV[2]) or 0"
_GIVE: Final = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('del', KEYS[1]) or 0"


class Alone:
    """Runs `work` for as long as this process holds the lease `name`; cancelled when it does not hold it any more.

    Work that ends or fails begins again after a second, perhaps in another process. The lease lasts ten seconds and is
    renewed every two: a process that died is followed after ten, and one that cannot reach Redis has stopped by then.
    """

    def __init__(
        self, client: redis.Redis, name: str, work: Callable[[], Awaitable[None]], *, life_s: float = LIFE_S
    ) -> None:
        self._client = client
        self._name = name
        self._key = f"rm:alone:{name}"
        self._work = work
        self._life_s = life_s
        self._token = new_id()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to ask for the lease."""
        self._task = asyncio.create_task(self._run(), name=f"alone-{self._name}")

    async def stop(self) -> None:
        """End the work, and give the lease back."""
        if self._task is not None:
            await end(self._task)
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                life_ms = int(self._life_s * 1000)
                asked_at = time.monotonic()
                if await self._client.set(self._key, self._token, nx=True, px=life_ms):
                    await self._hold(asked_at + self._life_s)
            except RedisError as error:
                log.warning("%s: %s", self._name, error)
            await asyncio.sleep(AGAIN_S)

    async def _hold(self, until: float) -> None:
        """Work, with the lease in hand until `until` unless it is renewed."""
        work = asyncio.ensure_future(self._work())
        try:
            while True:
                await asyncio.wait([work], timeout=min(RENEW_EVERY_S, self._life_s / 5))
                if work.done():
                    self._tell_end(work)
                    return
                asked_at = time.monotonic()
                try:
                    renewed = await self._evaluate(_RENEW, str(int(self._life_s * 1000)), timeout_s=until - asked_at)
                except (RedisError, TimeoutError) as error:
                    log.warning("%s: the lease cannot be renewed: %s", self._name, error or "no answer")
                    # Somebody else begins at the end of the lease: be gone a little before.
                    if time.monotonic() > until - self._life_s / 5:
                        return
                    continue
                if not renewed:
                    log.warning("%s: another process has the lease", self._name)
                    return
                until = asked_at + self._life_s
        finally:
            await end(work)
            with contextlib.suppress(RedisError, TimeoutError):
                await self._evaluate(_GIVE, timeout_s=1.0)

    async def _evaluate(self, script: str, *arguments: str, timeout_s: float) -> Any:
        async with asyncio.timeout(max(timeout_s - self._life_s / 5, 0.1)):
            return await self._client.eval(script, 1, self._key, self._token, *arguments)

    def _tell_end(self, work: asyncio.Future[None]) -> None:
        if work.cancelled():
            return
        error = work.exception()
        if error is not None:
            log.error("%s failed (begun again in %g s)", self._name, AGAIN_S, exc_info=error)
