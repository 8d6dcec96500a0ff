"""The parent of `rulemill up`: starts Redis, API and worker processes, watches them, and ends them in order.

A child gives signs of life on a pipe (`engine/watch.py`). One that falls silent is killed; a dead worker's leases are
given back at once, so that its partitions go on within seconds, and another is started in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from api.embedded_redis import EmbeddedRedis, die_with_parent
from engine.errors import RulemillError
from engine.failpoints import VARIABLE as FAILPOINTS
from engine.leases import give_back
from engine.message import new_id
from engine.service import end_all
from engine.watch import VARIABLE

log = logging.getLogger("rulemill.supervisor")

COMMAND = (sys.executable, "-P", "-m", "api")
SILENT_S = 5.0
"""A child that gives no sign for so long makes no progress."""
START_WITHIN_S = 60.0
"""A child that is not ready by then never will be."""
BACKOFF_S = (0.0, 0.0, 0.0, 0.5, 1.0, 2.0, 5.0)
"""Before the n-th start within a minute: the first deaths are answered at once, a poison message needs three."""
API_DRAIN_S = 4.0
WORKER_DRAIN_S = 5.0


class StartError(RulemillError):
    """A child ended before it was ready, or did not become ready."""


@dataclass(slots=True)
class Child:
    """A process under watch. `arguments` makes its command line from its name, new at each start."""

    role: str
    arguments: Callable[[str], list[str]]
    descriptors: tuple[int, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    process: asyncio.subprocess.Process | None = None
    last_sign: float = 0.0
    starts: list[float] = field(default_factory=list)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    was_ready: bool = False
    """It came up once, so its settings hold: whatever ends it now may pass."""


class Supervisor:
    """All children of one server."""

    def __init__(self, children: list[Child], url: str, partitions: int, redis: EmbeddedRedis | None) -> None:
        self._children = children
        self._url, self._partitions = url, partitions
        self._redis = redis
        self._redis_process: asyncio.subprocess.Process | None = None
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.failed = asyncio.Event()
        """Set when something cannot be kept running."""

    async def start(self, redis_process: asyncio.subprocess.Process | None) -> None:
        """Start all children; returns when all are ready, raises when one cannot start."""
        self._redis_process = redis_process
        if redis_process is not None:
            self._tasks.append(asyncio.create_task(self._watch_redis(), name="watch-redis"))
        for child in self._children:
            await self._start(child)
            self._tasks.append(asyncio.create_task(self._watch(child), name=f"watch-{child.role}"))
        deadline = time.monotonic() + START_WITHIN_S
        while waiting := [child.name for child in self._children if not child.ready.is_set()]:
            if self.failed.is_set():
                raise StartError("a process could not start; its last words are above")
            if time.monotonic() > deadline:
                raise StartError(f"not ready within {START_WITHIN_S:g} s: {', '.join(waiting)}")
            await asyncio.sleep(0.02)

    async def _start(self, child: Child) -> None:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        child.name = f"{child.role}-{new_id()[-12:]}"
        child.ready.clear()
        environment = {**os.environ, **child.environment, VARIABLE: str(writing)}
        if child.starts:
            # A test's failpoint is for the first process: what follows it shall live.
            environment.pop(FAILPOINTS, None)
        try:
            child.process = await asyncio.create_subprocess_exec(
                *COMMAND, *child.arguments(child.name),
                stdin=subprocess.DEVNULL, pass_fds=(writing, *child.descriptors),
                env=environment,
                preexec_fn=die_with_parent, start_new_session=True,
            )  # fmt: skip
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        child.last_sign = time.monotonic()
        child.starts = [at for at in child.starts if at > child.last_sign - 60] + [child.last_sign]
        asyncio.get_running_loop().add_reader(reading, self._sign, child, reading)

    def _sign(self, child: Child, reading: int) -> None:
        try:
            signs = os.read(reading, 4096)
        except BlockingIOError:
            return
        if not signs:
            asyncio.get_running_loop().remove_reader(reading)
            os.close(reading)
            return
        child.last_sign = time.monotonic()
        if b"R" in signs:
            child.was_ready = True
            child.ready.set()

    async def _watch(self, child: Child) -> None:
        """Kill the child when it falls silent; start another when it has ended."""
        while not self._stop.is_set():
            code = await self._end_of(child)
            if self._stop.is_set():
                return
            if not child.was_ready:
                log.error("%s ended with %s before it was ready", child.name, code)
                self.failed.set()
                return
            log.warning("%s ended with %s; starting another", child.name, code)
            if child.role == "worker":
                await self._leases_of(child.name)
            await self._start_again(child)

    async def _end_of(self, child: Child) -> int:
        """Wait for a child's end, which comes at once when it gives no sign; its exit code."""
        assert child.process is not None
        waiting = asyncio.ensure_future(child.process.wait())
        while not waiting.done():
            await asyncio.wait([waiting], timeout=0.25)
            silent_s = time.monotonic() - child.last_sign
            if silent_s > (SILENT_S if child.ready.is_set() else START_WITHIN_S) and not waiting.done():
                log.error("%s gives no sign of progress for %.0f s: killed", child.name, silent_s)
                with contextlib.suppress(ProcessLookupError):
                    child.process.kill()
                child.last_sign = time.monotonic()
        return waiting.result()

    async def _start_again(self, child: Child) -> None:
        """Start a child in the place of one that ended, however often it takes."""
        while True:
            await asyncio.sleep(BACKOFF_S[min(len(child.starts), len(BACKOFF_S) - 1)])
            if self._stop.is_set():
                return
            try:
                await self._start(child)
            except OSError as error:
                log.error("no process can be made for %s: %s", child.name, error)
                await asyncio.sleep(BACKOFF_S[-1])
                continue
            if self._stop.is_set():
                # Made while everything else was being told to end.
                await self._end([child], WORKER_DRAIN_S)
            return

    async def _leases_of(self, worker: str) -> None:
        for _ in range(20):
            try:
                returned = await asyncio.to_thread(give_back, self._url, worker, self._partitions)
            except Exception as error:
                log.warning("leases of %s are not given back yet: %s", worker, error)
                await asyncio.sleep(0.5)
            else:
                log.info("gave back %d partitions of %s", returned, worker)
                return

    async def _watch_redis(self) -> None:
        assert self._redis is not None
        assert self._redis_process is not None
        starts = 0
        while not self._stop.is_set():
            began = time.monotonic()
            code = await self._redis_process.wait()
            if self._stop.is_set():
                return
            starts = starts + 1 if time.monotonic() - began < 5 else 1
            log.error("the embedded Redis ended with %s; starting it again", code)
            await asyncio.sleep(min(0.1 * 2**starts, 5.0) if starts > 1 else 0)
            try:
                self._redis_process = await self._redis.start()
            except Exception as error:
                log.error("%s", error)
                if starts > 5:
                    self.failed.set()
                    return

    async def stop(self) -> None:
        """End everything in order: doors first (what was accepted is answered), then workers, then Redis."""
        self._stop.set()
        await self._end([child for child in self._children if child.role == "api"], API_DRAIN_S)
        await self._end([child for child in self._children if child.role != "api"], WORKER_DRAIN_S)
        await end_all(self._tasks)
        if self._redis is not None:
            await self._redis.stop()

    async def _end(self, children: list[Child], within_s: float) -> None:
        running = [child.process for child in children if child.process and child.process.returncode is None]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        if not running:
            return
        _, late = await asyncio.wait([asyncio.ensure_future(p.wait()) for p in running], timeout=within_s)
        if late:
            log.warning("%d processes did not end in %.0f s: killed", len(late), within_s)
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await asyncio.gather(*late)
