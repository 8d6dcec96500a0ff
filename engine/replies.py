"""Callers that wait: for the answer a chain gives, or for the end of their message. Pub/sub carries both.

Only a hint is lost when a caller's process dies or Redis blinks: the caller then sees its timeout.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, NamedTuple

import msgspec

from engine.message import new_id
from engine.wire import Subscriber

_decode = msgspec.msgpack.Decoder(tuple[str, str, Any, str]).decode


class Answer(NamedTuple):
    """What came: kind "reply" (the chain's answer), "end" (every copy has ended, `error` if one failed; it begins with
    `STORE_REFUSED` when the telemetry store never takes a point) or "delivered" (a one-way command was handed to a
    session of the device)."""

    kind: str
    data: Any
    error: str


class Waiting:
    """One caller's place in the queue of answers. Use as a context manager; `to` goes into Message.reply_to."""

    __slots__ = ("_answers", "_name", "_number", "_replies", "to")

    def __init__(self, replies: Replies, number: str, name: str) -> None:
        self._replies, self._number, self._name = replies, number, name
        self.to = f"{replies.process}/{number}"
        self._answers: asyncio.Queue[Answer] = asyncio.Queue()

    def __enter__(self) -> Waiting:
        self._replies.waiting[self._number] = self._answers
        if self._name:
            self._replies.named[self._name] = self._number
        return self

    def __exit__(self, *_: object) -> None:
        self._replies.waiting.pop(self._number, None)
        if self._replies.named.get(self._name) == self._number:
            del self._replies.named[self._name]

    async def next(self, timeout_s: float) -> Answer | None:
        """The next answer, None when the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._answers.get()
        except TimeoutError:
            return None


class Replies:
    """Answers for the callers of one process."""

    def __init__(self, url: str) -> None:
        self.process = new_id()
        self.waiting: dict[str, asyncio.Queue[Answer]] = {}
        self.named: dict[str, str] = {}
        """Number of the last caller of each name."""
        self._numbers = itertools.count(1)
        self._subscriber = Subscriber(url, "replies", [f"rm:reply:{self.process}"], self._handle)

    async def start(self) -> None:
        """Listen."""
        await self._subscriber.start()

    async def stop(self) -> None:
        """Listen no more; who still waits sees a timeout."""
        await self._subscriber.stop()

    def wait(self, name: str = "") -> Waiting:
        """A place to wait; enter it before the message is submitted. By the `name` other messages find it too."""
        return Waiting(self, str(next(self._numbers)), name)

    def _handle(self, _: str, payload: bytes) -> None:
        number, kind, data, error = _decode(payload)
        answers = self.waiting.get(self.named.get(number, number))
        if answers is not None:
            answers.put_nowait(Answer(kind, data, error))
