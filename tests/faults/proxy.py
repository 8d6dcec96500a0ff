"""A proxy between us and Redis that loses replies, cuts connections and stands still, on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class Proxy:
    """Forwards a unix socket. What it does to replies is set while it runs."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._drop_after: bytes | None = None
        self.dropped = 0
        self.open = True
        """While False every connection is cut and none is taken."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._flow = asyncio.Event()
        self._flow.set()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._writers) // 2

    def lose_reply_to(self, marker: bytes) -> None:
        """Let the next request that contains `marker` pass, then cut its connection instead of giving the reply."""
        self._drop_after = marker

    def hold(self) -> None:
        """Forward nothing until `release`."""
        self._flow.clear()

    def release(self) -> None:
        self._flow.set()

    def cut(self) -> None:
        """Cut all connections and take no more, until `open` is set again."""
        self.open = False
        for writer in list(self._writers):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            writer.transport.abort()
            return
        back_reader, back = await asyncio.open_unix_connection(self._upstream)
        self._writers |= {writer, back}
        muted = asyncio.Event()

        async def forth() -> None:
            while data := await reader.read(1 << 16):
                await self._flow.wait()
                if self._drop_after is not None and self._drop_after in data:
                    self._drop_after = None
                    muted.set()
                back.write(data)
                await back.drain()

        async def replies() -> None:
            while data := await back_reader.read(1 << 16):
                await self._flow.wait()
                if muted.is_set():
                    self.dropped += 1
                    return
                writer.write(data)
                await writer.drain()

        tasks = [asyncio.create_task(forth()), asyncio.create_task(replies())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._writers -= {writer, back}
            writer.transport.abort()
            back.transport.abort()


@asynccontextmanager
async def proxied(url: str, folder: Path) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy in front of `unix://…`, and its own URL."""
    proxy = Proxy(url.removeprefix("unix://"))
    path = folder / "proxy.sock"
    server = await asyncio.start_unix_server(proxy.serve, str(path), limit=1 << 20)
    try:
        yield proxy, f"unix://{path}"
    finally:
        proxy.release()
        proxy.cut()
        server.close()
        await asyncio.sleep(0.01)
