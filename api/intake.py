"""From what a device said to stored messages: their time, the metadata that all have, and who waits for their end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from msgspec.structs import replace
from prometheus_client import Counter

from api.activity import Activity
from engine import metrics
from engine.ingress import Ingress
from engine.message import Message, new_id
from engine.refused_points import STORE_REFUSED
from engine.replies import Answer, Replies
from engine.stores.registry import Device

AHEAD_MS: Final = 1000
"""How far a device's server time may run ahead of the clock."""
SLICE: Final = 5000
"""Messages of one request that are submitted at a time."""

OVERWRITTEN: Final = Counter(
    "rulemill_times_overwritten",
    "Messages that had to share a millisecond with another of their device",
    registry=metrics.REGISTRY,
)


class Stamps:
    """Server times, strictly increasing for each device: points are kept by the millisecond, and two of a burst must
    not become one."""

    def __init__(self) -> None:
        self._now: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._turn_ms = 0

    def next(self, device_id: str, now_ms: int) -> int:
        """The next time of a device: the clock's, or a millisecond after its last, at most a second ahead."""
        if now_ms >= self._turn_ms:
            # A time is ahead of the clock for a second at most, so what is older than two turns binds nobody.
            self._before, self._now = self._now, {}
            self._turn_ms = now_ms + AHEAD_MS + 100
        elif now_ms < self._turn_ms - 10 * AHEAD_MS:
            # The clock was set back.
            self._turn_ms = now_ms
        last = self._now.get(device_id)
        if last is None:
            last = self._before.get(device_id, 0)
        stamp = now_ms
        if last >= now_ms:
            stamp = last + 1
            if stamp > now_ms + AHEAD_MS:
                stamp = now_ms + AHEAD_MS
                OVERWRITTEN.inc()
        self._now[device_id] = stamp
        return stamp


class Failure(NamedTuple):
    """Why a message that was accepted is not kept, or not yet.

    `cause` is "chain" (a node failed), "store" (it never takes a value) or "time"; `reason` may name nodes.
    """

    cause: Literal["chain", "store", "time"]
    reason: str


class Intake:
    """What all dialects do with what came in."""

    def __init__(self, ingress: Ingress, replies: Replies, activity: Activity | None = None) -> None:
        self._ingress, self._replies, self._activity = ingress, replies, activity
        self._stamps = Stamps()
        self._counted: dict[tuple[str, str], Any] = {}

    def stamp(self, device_id: str) -> int:
        """The server's time for one request of a device, in milliseconds; never the same twice for one device."""
        return self._stamps.next(device_id, time.time_ns() // 1_000_000)

    def heard(self, device: Device) -> None:
        """The device has said something, whatever it was: it is active (`TB-S41`)."""
        if self._activity is not None:
            self._activity.heard(device)

    def came(self, device: Device, dialect: str, transport: str, *, holds: bool = True) -> None:
        """A session of the device begins; for each, `went` is called in the end. `holds`: it would end without it."""
        if self._activity is not None:
            self._activity.came(device, dialect, transport, holds=holds)

    def went(self, device: Device, dialect: str, transport: str, reason: str, *, holds: bool = True) -> None:
        """A session of the device has ended, and why."""
        if self._activity is not None:
            self._activity.went(device, dialect, transport, reason, holds=holds)

    def message(
        self,
        device: Device,
        type: str,
        data: Any,
        *,
        dialect: str,
        transport: str,
        ts_ms: int,
        metadata: Mapping[str, str] | None = None,
        reply_to: str = "",
        awaited: bool = False,
    ) -> Message:
        """A message of a device with the metadata that every message has (`G-18`), and `metadata` besides."""
        about = {
            "dialect": dialect,
            "transport": transport,
            "deviceName": device.name,
            "deviceType": device.shown_type,
        }
        if metadata:
            about.update(metadata)
        return Message(
            id=new_id(), ts_ms=ts_ms, tenant=device.tenant, type=type, originator=device.id, data=data,
            metadata=about, reply_to=reply_to, awaited=awaited,
        )  # fmt: skip

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[None]:
        """Store messages, all of one request or connection, in order; the future is done when they are durable.

        It fails with Refused when they are not.
        """
        future = self._ingress.submit(messages)
        if messages:
            metadata = messages[0].metadata
            key = (metadata.get("dialect", ""), metadata.get("transport", ""))
            counter = self._counted.get(key)
            if counter is None:
                counter = self._counted[key] = metrics.MESSAGES.labels(*key)
            future.add_done_callback(partial(_count, counter, len(messages)))
        return future

    async def store(self, messages: Sequence[Message]) -> None:
        """Store the messages of one request, however many; returns when they are durable.

        Raises Refused: then some of very many may be stored, and the request should be sent again.
        """
        if len(messages) <= SLICE:
            await self.submit(messages)
            return
        for i in range(0, len(messages), SLICE):
            await self.submit(messages[i : i + SLICE])

    async def ask(self, message: Message, timeout_s: float) -> Answer | None:
        """Store a message and wait for what its chain answers, or for its end without one; None: neither in time.

        Raises Refused.
        """
        with self._replies.wait() as waiting:
            await self.submit([replace(message, reply_to=waiting.to, awaited=True)])
            return await waiting.next(timeout_s)

    async def submit_and_wait(self, messages: Sequence[Message], timeout_s: float) -> str:
        """Store messages and wait for their end in the chain and in the telemetry store (`G-20`).

        Empty when all went well, else why one failed, or that they did not end in time. Raises Refused.
        """
        failure = await self.settle(messages, timeout_s)
        return failure.reason if failure is not None else ""

    async def settle(self, messages: Sequence[Message], timeout_s: float) -> Failure | None:
        """Store messages and wait for their end; the first failure, None when all went well. Raises Refused."""
        left = len(messages)
        deadline = time.monotonic() + timeout_s
        with self._replies.wait() as waiting:
            await self.store([replace(message, reply_to=waiting.to, awaited=True) for message in messages])
            failure: Failure | None = None
            while left:
                answer = await waiting.next(max(deadline - time.monotonic(), 0.0))
                if answer is None:
                    return failure or Failure("time", f"not finished within {timeout_s:g} s")
                if answer.kind == "end":
                    left -= 1
                    if answer.error and failure is None:
                        failure = Failure("store" if answer.error.startswith(STORE_REFUSED) else "chain", answer.error)
        return failure


def _count(counter: Any, number: int, future: asyncio.Future[None]) -> None:
    if not future.cancelled() and future.exception() is None:
        counter.inc(number)
