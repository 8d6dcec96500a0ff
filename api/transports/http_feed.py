"""Answers that go on for hours and are silent for most of them, such as a device's stream of commands."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from api.transports.http_exchange import Header, Request, Send

log = logging.getLogger("rulemill.http")

MAX_QUEUED: Final = 256
"""Chunks that may wait for a client that does not read; with one more it is cut off (`G-24`)."""
END_S: Final = 1.0
"""How long what is queued may take to go out once the feed ends."""


class Feed:
    """An answer that others write into. Between two chunks nothing of it runs, so that many may stay open.

    `opened` is called once the head is out, and returns what is called at the end, whichever side ends it.
    """

    __slots__ = ("_chunks", "_cut", "_ended", "_opened", "_owner", "_writer", "headers", "send", "status")

    def __init__(self, status: int, headers: Sequence[Header], opened: Callable[[Feed], Callable[[], None]]) -> None:
        self.status, self.headers = status, headers
        self._opened = opened
        self._chunks: list[bytes] = []
        self._writer: asyncio.Task[None] | None = None
        self._owner: asyncio.Task[None] | None = None
        """The request's task, while it waits for the client to go away."""
        self._ended = self._cut = False

    @property
    def busy(self) -> bool:
        """Whether chunks wait to be sent."""
        return self._writer is not None

    def push(self, chunk: bytes) -> bool:
        """Send a chunk after those before; it must not be empty. False when the client is gone, or is cut off now."""
        if self._ended:
            return False
        if len(self._chunks) >= MAX_QUEUED:
            log.warning("a client that does not read its answer is cut off: %d chunks wait for it", MAX_QUEUED)
            self.cut()
            return False
        self._chunks.append(chunk)
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write(), name="http-feed")
        return True

    def end(self) -> None:
        """End the answer as it should end, after what was pushed."""
        self._stop(cut=False)

    def cut(self) -> None:
        """End the answer such that its client sees that something is missing."""
        self._stop(cut=True)

    async def serve(self, cors: Sequence[Header], request: Request, send: Send) -> None:
        """Be the answer to a request until either side ends it; for the front."""
        self.send: Send = send
        await send({"type": "http.response.start", "status": self.status, "headers": [*self.headers, *cors]})
        forget = request.keep(self.end)
        close = self._opened(self)
        try:
            await self._until_stopped(request)
            if not self._cut and self._writer is not None:
                await asyncio.wait({self._writer}, timeout=END_S)
        finally:
            self._ended = True
            forget()
            close()
            complete = not self._cut and self._writer is None
            if self._writer is not None:
                self._writer.cancel()
                await asyncio.gather(self._writer, return_exceptions=True)
        if complete:
            await send({"type": "http.response.body", "body": b""})

    async def _until_stopped(self, request: Request) -> None:
        if self._ended:
            return
        task = self._owner = asyncio.current_task()
        try:
            await request.gone()
            self._ended = self._cut = True
        except asyncio.CancelledError:
            # Ours, or also somebody else's?
            if not self._ended or task is None or task.uncancel() > 0:
                raise
        finally:
            self._owner = None

    def _stop(self, *, cut: bool) -> None:
        if not self._ended:
            self._ended, self._cut = True, cut
            if self._owner is not None:
                self._owner.cancel()

    async def _write(self) -> None:
        try:
            while self._chunks:
                # Out of the list only when it is sent: what waits for a slow client counts.
                await self.send({"type": "http.response.body", "body": self._chunks[0], "more_body": True})
                del self._chunks[0]
        except Exception:
            log.exception("an answer that goes on ends, as it could not be written")
            self._stop(cut=True)
        finally:
            self._writer = None
