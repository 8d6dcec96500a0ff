"""A pipelined connection to Redis for the hot path: lists of commands out, lists of replies back.

redis-py costs 68 µs of CPU an awaited call and retries silently (a lost XADD reply is two entries); this costs a
third, never retries, and gives the errors of single commands in their place. Everything that is not hot uses redis-py.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, cast

import hiredis
from redis.asyncio.connection import parse_url
from redis.exceptions import ConnectionError as RedisConnectionError

from engine.redis_scripts import ALL, Script
from engine.service import end

Argument = str | bytes | int | float
Reply = Any

CONNECT_TIMEOUT_S = 5.0
PING_EVERY_S = 5.0
"""How often a subscription is asked whether it still stands: nothing else would tell of a peer that is gone."""

_SCRIPTS: Final[list[tuple[Argument, ...]]] = [("SCRIPT", "LOAD", script.text) for script in ALL]


class _Protocol(asyncio.Protocol):
    def __init__(self, push: Callable[[Reply], None] | None = None) -> None:
        self.reader = hiredis.Reader()
        self.waiting: deque[tuple[asyncio.Future[list[Reply]], int, list[Reply]]] = deque()
        self.transport: asyncio.Transport | None = None
        self.push = push
        self.lost: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        while (reply := self.reader.gets()) is not False:
            if self.push is not None and isinstance(reply, list) and reply[0] == b"message":
                self.push(reply)
            elif self.waiting:
                future, count, replies = self.waiting[0]
                replies.append(reply)
                if len(replies) == count:
                    self.waiting.popleft()
                    if not future.done():
                        future.set_result(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = RedisConnectionError("connection to Redis lost")
        for future, _, _ in self.waiting:
            if not future.done():
                future.set_exception(self.lost)
        self.waiting.clear()


class Wire:
    """One connection; `execute` may be called again before the last call has returned."""

    def __init__(self, url: str, name: str, push: Callable[[Reply], None] | None = None) -> None:
        self._where = parse_url(url)
        self._name = name
        self._push = push
        self._protocol: _Protocol | None = None
        self._connecting = asyncio.Lock()

    @property
    def connected(self) -> bool:
        """Whether the connection is up, as far as is known here."""
        return self._protocol is not None and self._protocol.lost is None

    async def execute(self, commands: Sequence[tuple[Argument, ...]], timeout_s: float = 10.0) -> list[Reply]:
        """Send commands in one write and return their replies in order; a failed command's reply is an error object.

        Raises redis.exceptions.ConnectionError when the connection is or gets lost, or is silent for `timeout_s`:
        then nobody knows what was done.
        """
        if not commands:
            return []
        protocol = self._protocol
        if protocol is None or protocol.lost is not None:
            protocol = await self._connect()
        future = self._send(protocol, commands)
        assert protocol.transport is not None
        silence = asyncio.get_running_loop().call_later(timeout_s, protocol.transport.abort)
        try:
            replies = await future
            if any(failed(reply) and str(reply).startswith("NOSCRIPT") for reply in replies):
                # Redis was made to forget its scripts: whoever tries again shall have better luck.
                await self._send(protocol, _SCRIPTS)
            return replies
        finally:
            silence.cancel()

    def _send(self, protocol: _Protocol, commands: Sequence[tuple[Argument, ...]]) -> asyncio.Future[list[Reply]]:
        future: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        protocol.waiting.append((future, len(commands), []))
        assert protocol.transport is not None
        protocol.transport.write(b"".join([hiredis.pack_command(cast(Any, command)) for command in commands]))
        return future

    async def _connect(self) -> _Protocol:
        async with self._connecting:
            if self._protocol is not None and self._protocol.lost is None:
                return self._protocol
            loop = asyncio.get_running_loop()
            where = self._where
            make = partial(_Protocol, self._push)
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    if "path" in where:
                        _, protocol = await loop.create_unix_connection(make, where["path"])
                    else:
                        secure = "SSL" in where.get("connection_class", type).__name__
                        tls = ssl.create_default_context() if secure else None
                        host, port = where.get("host", "localhost"), where.get("port", 6379)
                        _, protocol = await loop.create_connection(make, host, port, ssl=tls)
                    await self._greeted(protocol)
            except (OSError, TimeoutError) as error:
                raise RedisConnectionError(f"cannot reach Redis: {error}") from error
            self._protocol = protocol
            return protocol

    async def _greeted(self, protocol: _Protocol) -> None:
        try:
            await self._greet(protocol)
        except BaseException:
            # Also when the caller gives up: nobody else knows of this connection.
            if protocol.transport is not None:
                protocol.transport.close()
            raise

    async def _greet(self, protocol: _Protocol) -> None:
        where = self._where
        hello: list[tuple[Argument, ...]] = [("CLIENT", "SETNAME", self._name)]
        if where.get("password"):
            user = (where["username"],) if where.get("username") else ()
            hello.insert(0, ("AUTH", *user, where["password"]))
        if where.get("db"):
            hello.append(("SELECT", where["db"]))
        hello += _SCRIPTS
        for reply in await self._send(protocol, hello):
            if isinstance(reply, hiredis.ReplyError):
                raise RedisConnectionError(f"Redis refused us: {reply}")

    async def close(self) -> None:
        """Disconnect; what was under way fails with ConnectionError."""
        if self._protocol is not None and self._protocol.transport is not None:
            self._protocol.transport.close()
        self._protocol = None


def call(script: Script, keys: Sequence[str], *args: Argument) -> tuple[Argument, ...]:
    """The command that runs a script."""
    return ("EVALSHA", script.sha, len(keys), *keys, *args)


def failed(reply: Reply) -> bool:
    """Whether the reply of one command is an error."""
    return isinstance(reply, hiredis.ReplyError)


class Subscriber:
    """Calls `handle(channel, payload)` for what is published, reconnecting for ever; `lost()` after each break.

    Pub/sub is only a hint: whatever was said during a break is gone, so `lost` must make the owner look for itself.
    """

    def __init__(
        self, url: str, name: str, channels: Sequence[str], handle: Callable[[str, bytes], None],
        lost: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self._wire = Wire(url, name, self._pushed)
        self._channels = dict.fromkeys(channels)
        self._handle = handle
        self._lost = lost
        self._task: asyncio.Task[None] | None = None

    def _pushed(self, reply: Reply) -> None:
        self._handle(reply[1].decode(), reply[2])

    async def start(self) -> None:
        """Subscribe; returns when Redis has confirmed."""
        await self._subscribe()
        self._task = asyncio.create_task(self._keep(), name="subscriber")

    async def _subscribe(self) -> None:
        # One reply per channel: the wire counts them as one command each.
        await self._wire.execute([("SUBSCRIBE", channel) for channel in self._channels])

    async def add(self, channel: str) -> None:
        """Hear of one more channel; returns when Redis has confirmed."""
        self._channels[channel] = None
        await self._wire.execute([("SUBSCRIBE", channel)])

    async def remove(self, channel: str) -> None:
        """Hear no more of a channel."""
        self._channels.pop(channel, None)
        if self._wire.connected:
            await self._wire.execute([("UNSUBSCRIBE", channel)])

    async def _keep(self) -> None:
        pinged = time.monotonic()
        while True:
            await asyncio.sleep(min(0.25, PING_EVERY_S))
            if self._wire.connected:
                if time.monotonic() - pinged >= PING_EVERY_S:
                    pinged = time.monotonic()
                    with contextlib.suppress(RedisConnectionError):
                        await self._wire.execute([("PING",)], timeout_s=PING_EVERY_S)
                continue
            if self._lost is not None:
                self._lost()
            with contextlib.suppress(RedisConnectionError):
                await self._subscribe()
                if self._lost is not None:
                    self._lost()

    async def stop(self) -> None:
        """Unsubscribe; tolerates being called twice."""
        if self._task is not None:
            await end(self._task)
            self._task = None
        await self._wire.close()
