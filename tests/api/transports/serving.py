"""A front behind a listener, with a client of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from api.transports.http import Front
from api.transports.http_deadlines import Deadlines
from api.transports.http_server import HttpListener


@dataclass
class Served:
    front: Front
    listener: HttpListener
    http: httpx.AsyncClient
    port: int
    surface: Any = None

    async def raw(self, *parts: bytes, pause_s: float = 0.0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection on which these bytes are sent, a pause after each."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause_s)
        return reader, writer


@asynccontextmanager
async def serving(
    front: Front,
    server: Literal["uvicorn", "hypercorn"] = "uvicorn",
    deadlines: Deadlines | None = None,
    **options: Any,
) -> AsyncIterator[Served]:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    listening.setblocking(False)
    port = listening.getsockname()[1]
    listener = HttpListener("http", front, [listening], server=server, deadlines=deadlines, **options)
    await listener.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            yield Served(front, listener, client, port)
    finally:
        await listener.stop(1.0)
        listening.close()
