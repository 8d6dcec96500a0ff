"""The way in: messages become durable here, and only then may anybody say so.

What gathers while a flush is in flight goes into the next one, with a linger of up to 2 ms under load. A flush is one
script call per partition, numbered; a lost reply is answered by sending the same flush again (submit.lua drops the
repeat), so nothing is stored twice and nothing overtakes what was refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from engine import metrics
from engine.entries import MAX_BYTES, MAX_MESSAGES, encode, pack_entry
from engine.errors import Refused, Unconfirmed
from engine.failpoints import failpoint
from engine.message import Message, new_id, now_ms
from engine.partitions import all_keys, partition_of
from engine.redis_scripts import SUBMIT
from engine.service import end
from engine.wire import Argument, Reply, Wire, call, failed

log = logging.getLogger("rulemill.ingress")

LINGER_S = 0.002
LINGER_FROM = 32
"""Flushes smaller than this go without linger: nobody waits in vain when there is little to join."""
CONFIRM_WITHIN_S = 5.0
"""How long callers wait for a Redis that does not answer before they are told that nobody knows."""
REFUSE_FOR_S = 0.05
"""After a refusal the partition takes nothing for so long: what was sent behind must not overtake what was refused."""
MAX_WAITING = 20_000
"""Messages in RAM over all partitions; beyond them the door is closed."""
MAX_WAITING_BYTES = 64 << 20
"""Their bytes: few large messages fill memory as well as many small ones, and Redis takes no write without a bound."""
PRODUCER_KEEP_MS = 86_400_000
"""How long Redis remembers a producer that says nothing."""


class _Shared(asyncio.Future[None]):
    """One flush's outcome, awaited by many: who is cancelled (a client hung up) goes alone, the others wait on."""

    def __await__(self) -> Generator[Any, None, None]:
        return super().__await__() if self.done() else asyncio.shield(self).__await__()

    __iter__ = __await__

    def cancel(self, msg: Any | None = None) -> bool:
        return False


@dataclass(slots=True)
class _Waiting:
    """What gathers for one partition until the next flush; everybody who added to it waits for the one future."""

    future: _Shared
    tenants: dict[str, list[bytes]] = field(default_factory=dict)
    count: int = 0
    size: int = 0


@dataclass(slots=True)
class Limits:
    """When the door closes."""

    entries: int = 20_000
    """Entries a partition's stream may hold."""


class Ingress:
    """Makes messages durable. `submit` is called from the event loop and never blocks it."""

    def __init__(self, wire: Wire, partitions: int, limits: Limits | None = None) -> None:
        self._wire = wire
        self._partitions = partitions
        self._keys = all_keys(partitions)
        self._limits = limits or Limits()
        self._waiting: dict[int, _Waiting] = {}
        self._held = 0
        self._held_bytes = 0
        self._refusing: set[int] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._producer = [new_id() for _ in range(partitions)]
        self._number = [1] * partitions
        self._spoke_ms = [now_ms()] * partitions
        self._last = 0
        self.closed_reason = ""
        """Why the door is closed; empty while it is open. Set by the door watch."""
        self.closed_for_s = 1
        """What callers are then told to wait."""
        self._stopping = False

    async def start(self) -> None:
        """Begin flushing."""
        self._task = asyncio.create_task(self._run(), name="ingress")

    async def stop(self) -> None:
        """Flush what was accepted, then refuse."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._task), CONFIRM_WITHIN_S)
            await end(self._task)
            self._task = None

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[None]:
        """Store messages, in order; the future is done when they are durable (one future serves a whole flush).

        It fails with Refused when nothing was stored, and with Unconfirmed when Redis did not answer in time. Raises
        what the encoder raises for a message that cannot be written down; then none of them is stored.
        """
        full = self._held >= MAX_WAITING or self._held_bytes >= MAX_WAITING_BYTES
        if self.closed_reason or self._stopping or full:
            reason = self.closed_reason or ("stopping" if self._stopping else "ingress full")
            return self._refuse(len(messages), reason, self.closed_for_s if self.closed_reason else 1)
        numbers = [partition_of(message.tenant, message.originator, self._partitions) for message in messages]
        if self._refusing and not self._refusing.isdisjoint(numbers):
            return self._refuse(len(messages), "backlog full")
        blobs = [encode(message) for message in messages]
        futures: dict[int, asyncio.Future[None]] = {}
        for message, number, blob in zip(messages, numbers, blobs, strict=True):
            waiting = self._waiting.get(number)
            if waiting is None:
                waiting = self._waiting[number] = _Waiting(_Shared(loop=asyncio.get_running_loop()))
                # A future that fails with nobody left to ask is not an accident.
                waiting.future.add_done_callback(_seen)
            parts = waiting.tenants.get(message.tenant)
            if parts is None:
                parts = waiting.tenants[message.tenant] = []
            parts.append(blob)
            waiting.count += 1
            waiting.size += len(blob)
            futures[number] = waiting.future
        self._held += len(messages)
        self._held_bytes += sum(map(len, blobs))
        self._wake.set()
        if len(futures) == 1:
            return futures.popitem()[1]
        return _all(list(futures.values()))

    def _refuse(self, count: int, reason: str, retry_after_s: int = 1) -> asyncio.Future[None]:
        metrics.REFUSED.labels(reason).inc(count)
        refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        refused.add_done_callback(_seen)
        refused.set_exception(Refused(reason, retry_after_s))
        return refused

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            if self._stopping and not self._waiting:
                return
            if self._last >= LINGER_FROM and not self._stopping:
                await self._linger()
            self._wake.clear()
            waiting, self._waiting = self._waiting, {}
            if not waiting:
                continue
            self._last = sum(part.count for part in waiting.values())
            started = time.perf_counter()
            try:
                await self._flush(waiting)
            finally:
                for part in waiting.values():
                    self._let_go(part)
            metrics.SUBMIT_S.observe(time.perf_counter() - started)
            metrics.FLUSHED.observe(self._last)
            if self._waiting or self._stopping:
                self._wake.set()

    def _let_go(self, part: _Waiting) -> None:
        self._held -= part.count
        self._held_bytes -= part.size

    async def _linger(self) -> None:
        """Let the flush gather what is on its way: until two turns of the loop have brought nothing, at most LINGER_S.

        Clients that answer each other's pace (HTTP on kept connections) would otherwise all wait for nobody.
        """
        until, held, quiet = time.monotonic() + LINGER_S, self._held, 0
        while quiet < 2 and time.monotonic() < until:
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._held == held else 0
            held = self._held

    async def _flush(self, waiting: dict[int, _Waiting]) -> None:
        failpoint("before-submit")
        todo = {number: _entries(part) for number, part in waiting.items()}
        self._rename_forgotten(todo)
        deadline = time.monotonic() + CONFIRM_WITHIN_S
        while todo:
            try:
                commands = [self._command(number, todo[number]) for number in todo]
                replies = await self._wire.execute(commands, timeout_s=CONFIRM_WITHIN_S)
            except RedisConnectionError as error:
                await self._unanswered([waiting[number].future for number in todo], deadline, error)
                continue
            failpoint("after-submit")
            again: dict[int, list[bytes]] = {}
            for number, reply in zip(list(todo), replies, strict=True):
                verdict = self._read(number, reply)
                if verdict == "again":
                    again[number] = todo[number]
                else:
                    self._settle(number, waiting[number], verdict)
            if again:
                # Whatever was wrong (scripts flushed, a log lost), a fresh connection starts from known ground.
                await self._wire.close()
            todo = again

    def _rename_forgotten(self, numbers: Iterable[int]) -> None:
        """Where this process was silent for long, housekeeping has dropped its name; nothing of then is unanswered."""
        now = now_ms()
        for number in numbers:
            if now - self._spoke_ms[number] > PRODUCER_KEEP_MS // 2:
                self._producer[number], self._number[number] = new_id(), 1
            self._spoke_ms[number] = now

    def _command(self, number: int, entries: list[bytes]) -> tuple[Argument, ...]:
        keys = self._keys[number]
        names = (keys.inbox, keys.producers)
        most = self._limits.entries
        return call(SUBMIT, names, self._producer[number], self._number[number], most, now_ms(), *entries)

    def _read(self, number: int, reply: Reply) -> str:
        """Empty when stored, "again" to send the flush anew, else the reason of the refusal."""
        if failed(reply):
            code = str(reply).split(" ", 1)[0]
            if code == "NOSCRIPT":
                return "again"
            log.error("submit to partition %d: %s", number, reply)
            return f"storage refuses ({code.lower()})"
        if reply[0] in (b"ok", b"done"):
            self._number[number] += 1
            return ""
        if reply[0] == b"full":
            return "backlog full"
        # Redis has lost the tail that it had confirmed (a restart without its log): go on under a new name.
        log.error("partition %d has forgotten what it confirmed to us; was Redis restarted without its log?", number)
        self._producer[number] = new_id()
        self._number[number] = 1
        return "again"

    def _settle(self, number: int, waiting: _Waiting, refused: str) -> None:
        if not refused:
            failpoint("before-ack")
            if not waiting.future.done():
                waiting.future.set_result(None)
            return
        behind = self._waiting.pop(number, None)
        self._refusing.add(number)
        asyncio.get_running_loop().call_later(REFUSE_FOR_S, self._refusing.discard, number)
        if behind is not None:
            self._let_go(behind)
        for part in (waiting, behind):
            if part is not None:
                metrics.REFUSED.labels(refused).inc(part.count)
                if not part.future.done():
                    part.future.set_exception(Refused(refused))

    async def _unanswered(self, futures: list[_Shared], deadline: float, error: Exception) -> None:
        """Redis does not answer: tell the callers when their time is up; the same flush is tried again for ever."""
        if time.monotonic() > deadline:
            if not futures[0].done():
                log.error("Redis does not answer: %s", error)
            for future in futures:
                if not future.done():
                    future.set_exception(Unconfirmed("storage does not answer"))
            self._turn_away()
        await asyncio.sleep(0.1)

    def _turn_away(self) -> None:
        """Refuse what has gathered behind a flush that is not answered: none of it was sent."""
        behind, self._waiting = self._waiting, {}
        for part in behind.values():
            self._let_go(part)
            metrics.REFUSED.labels("storage does not answer").inc(part.count)
            if not part.future.done():
                part.future.set_exception(Refused("storage does not answer"))


def _all(futures: Sequence[asyncio.Future[None]]) -> asyncio.Future[None]:
    """One future for messages that went to several partitions: fails if any of them does."""
    whole: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    whole.add_done_callback(_seen)
    left = len(futures)

    def one(future: asyncio.Future[None]) -> None:
        nonlocal left
        left -= 1
        if whole.done():
            return
        error = future.exception()
        if error is not None:
            # Some of it may be stored: only "nobody knows" is true of the whole.
            whole.set_exception(Unconfirmed(str(error)))
        elif left == 0:
            whole.set_result(None)

    for future in futures:
        future.add_done_callback(one)
    return whole


def _entries(part: _Waiting) -> list[bytes]:
    """Cut what has gathered into entries of at most MAX_MESSAGES and MAX_BYTES; a tenant's order is kept."""
    entries: list[bytes] = []
    groups: list[tuple[str, list[bytes]]] = []
    count = size = 0
    for tenant, parts in part.tenants.items():
        group: list[bytes] = []
        for blob in parts:
            if count and (count >= MAX_MESSAGES or size + len(blob) > MAX_BYTES):
                if group:
                    groups.append((tenant, group))
                entries.append(pack_entry(groups))
                groups, group, count, size = [], [], 0, 0
            group.append(blob)
            count += 1
            size += len(blob)
        if group:
            groups.append((tenant, group))
    if groups:
        entries.append(pack_entry(groups))
    return entries


def _seen(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()
