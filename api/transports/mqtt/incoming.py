"""What one client published and has no answer to yet.

One batch is on its way to the store, the next gathers behind it. So a client's messages are stored in their order even
when some are refused and submitted again, its acknowledgements leave in that order, and a batch takes one write.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from api.transports.mqtt.batch import Batch
from api.transports.mqtt.dialect import Accepted, Submit
from engine.errors import BadInput, Refused

_log = logging.getLogger("rulemill.mqtt")

JITTER: Final = 0.25
"""How much later than asked a refused batch may be submitted again, as a share of the wait."""


class Incoming:
    """The receiving half of a connection. Put packets into `held`, then call `flush`.

    `answered(batch)` is called when a batch is stored, `refused()` each time the store wants none of it for now,
    `failed(reason)` when it can never be stored, `wrong(reason)` when a publication turns out to be one that closes the
    connection, `lost(batch)` for one given up after `close`.
    """

    __slots__ = (
        "_answered",
        "_closed",
        "_failed",
        "_flying",
        "_idle",
        "_journal",
        "_loop",
        "_lost",
        "_refused",
        "_retry",
        "_submit",
        "_task",
        "_wrong",
        "held",
    )

    def __init__(
        self,
        submit: Submit,
        *,
        answered: Callable[[Batch], None],
        refused: Callable[[], None],
        failed: Callable[[str], None],
        wrong: Callable[[str], None],
        lost: Callable[[Batch], None],
    ) -> None:
        self.held = Batch()
        self._loop = asyncio.get_running_loop()
        self._submit = submit
        self._answered = answered
        self._refused = refused
        self._failed = failed
        self._wrong = wrong
        self._lost = lost
        self._journal: Callable[[Mapping[str, bytes]], Awaitable[bool]] | None = None
        self._flying: Batch | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        """Does what the batch waits for before or after it is stored."""
        self._idle: asyncio.Future[None] | None = None
        self._closed = False

    def keep_in(self, journal: Callable[[Mapping[str, bytes]], Awaitable[bool]]) -> None:
        """Write `Batch.changes` with `journal`: False means never, Refused means later."""
        self._journal = journal

    @property
    def idle(self) -> bool:
        """Whether everything has its answer."""
        return self._flying is None and not self.held.packets

    @property
    def unconfirmed(self) -> tuple[int, int]:
        """How many messages (or, if more, packets) and bytes have no answer yet."""
        held, flying = self.held, self._flying
        count, size = max(held.packets, len(held.messages)), held.bytes
        if flying is not None:
            count += max(flying.packets, len(flying.messages))
            size += flying.bytes
        return count, size

    @property
    def pubacks(self) -> int:
        """How many publications of QoS 1 have no answer yet."""
        return self.held.pubacks + (self._flying.pubacks if self._flying is not None else 0)

    def flush(self) -> None:
        """Send what is held on its way, unless a batch is out already."""
        if self._flying is None and self.held.packets:
            self._flying = self.held
            self.held = Batch()
            self._attempt()

    def close(self) -> None:
        """Answer nobody any more. What is out may still be stored, and what is held behind it, until a refusal."""
        self._closed = True
        if self._retry is not None:
            self._give_up()

    def abandon(self) -> None:
        """Wait for nothing any more: what is out may be stored or not."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        self._give_up()

    async def ended(self) -> None:
        """Wait, after `close`, until the fate of everything is known."""
        if not self.idle:
            self._idle = self._loop.create_future()
            await self._idle

    def _attempt(self) -> None:
        batch = self._flying
        assert batch is not None
        self._retry = None
        if batch.firsts:
            self._task = self._loop.create_task(self._prepare(batch))
            return
        if not batch.messages:
            self._stored()
            return
        try:
            future = self._submit(batch.messages)
        except Refused as error:
            self._later(error)
            return
        if future.done():
            self._submitted(future)
        else:
            future.add_done_callback(self._submitted)

    async def _prepare(self, batch: Batch) -> None:
        """Do what publications of the batch wait for, in their order, then store it."""
        while batch.firsts:
            try:
                got = await batch.firsts[0].call()
            except Refused as error:
                self._later(error)
                return
            except asyncio.CancelledError:
                if self._flying is batch:
                    self._fail("what a publication waited for was given up")
                raise
            except Exception as error:
                # What came before it is stored, as if it had been known at once; what came behind it is not.
                batch.cut()
                self.held = Batch()
                if isinstance(error, BadInput):
                    self._wrong(str(error))
                else:
                    _log.exception("a publication could not be dealt with")
                    self._failed(f"a publication could not be dealt with: {error}")
                break
            batch.fill(got if isinstance(got, Accepted) else Accepted(got))
        if self._flying is batch:
            self._attempt()

    def _submitted(self, future: asyncio.Future[None]) -> None:
        if self._flying is None:
            return
        if future.cancelled():
            self._fail("the store was stopped")
            return
        error = future.exception()
        if error is None:
            self._stored()
        elif isinstance(error, Refused):
            self._later(error)
        else:
            _log.error("messages cannot be stored", exc_info=error)
            self._fail(f"messages cannot be stored: {error}")

    def _later(self, error: Refused) -> None:
        if self._closed:
            self._give_up()
            return
        self._refused()
        wait_s = error.retry_after_s * (1 + JITTER * random.random())
        self._retry = self._loop.call_later(wait_s, self._attempt)

    def _stored(self) -> None:
        batch = self._flying
        assert batch is not None
        if batch.changes and self._journal is not None:
            batch.stored()
            self._task = self._loop.create_task(self._record(batch, self._journal))
            return
        self._done(batch)

    async def _record(self, batch: Batch, journal: Callable[[Mapping[str, bytes]], Awaitable[bool]]) -> None:
        while True:
            try:
                written = await journal(dict(batch.changes))
                break
            except Refused as error:
                if self._closed:
                    self._give_up()
                    return
                self._refused()
                await asyncio.sleep(error.retry_after_s)
            except Exception as error:
                _log.exception("a session could not be written")
                self._fail(f"the session could not be written: {error}")
                return
        if written:
            self._done(batch)
        else:
            self._fail("the session has another owner")

    def _done(self, batch: Batch) -> None:
        self._flying = None
        self._answered(batch)
        for after in batch.afters:
            try:
                after()
            except Exception:
                _log.exception("a hook after storing failed")
        if self.held.packets:
            self.flush()
        elif self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _fail(self, reason: str) -> None:
        self._closed = True
        self._failed(reason)
        self._give_up()

    def _give_up(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        for batch in (self._flying, self.held):
            if batch is not None and batch.packets:
                self._lost(batch)
        self._flying = None
        self.held = Batch()
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
