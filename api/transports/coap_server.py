"""CoAP over UDP through aiocoap, which the extra `coap` installs: retransmission, duplicates, blocks and observing.

Three things of aiocoap that have no public door are used, all in this file: a socket that is bound already, the
message layer's word that a notification was confirmed, and the list of a context's interfaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Sequence
from typing import Any, Final

from aiocoap import Context, Message
from aiocoap.blockwise import Block2Cache
from aiocoap.messagemanager import MessageManager
from aiocoap.numbers.codes import Code
from aiocoap.numbers.constants import Reliable
from aiocoap.numbers.types import ACK, CON
from aiocoap.tokenmanager import TokenManager
from aiocoap.transports.udp6 import MessageInterfaceUDP6
from aiocoap.util.socknumbers import HAS_RECVERR, IP_RECVERR, IPV6_RECVERR
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError

from api.transports.coap import (
    BAD_REQUEST,
    INTERNAL,
    UNAVAILABLE,
    CoapError,
    Observation,
    Request,
    Response,
    Surface,
    find,
)
from api.transports.coap_blocks import Assemblies
from engine.errors import BadInput, Refused

log = logging.getLogger("rulemill.coap")

MOST_REQUESTS: Final = 2000
"""Requests in hand at a time; further ones are answered 5.03."""
MOST_WATCHERS: Final = 10_000
CONTINUE: Final = 0x5F
_STORAGE_AWAY: Final = (RedisConnectionError, RedisTimeoutError, OutOfMemoryError, ReadOnlyError)


class CoapServer:
    """Serves surfaces, each at its own paths, on a bound UDP socket of family AF_INET6 (IPv4 comes mapped)."""

    def __init__(self, surfaces: Sequence[Surface], listening: socket.socket) -> None:
        self._socket = listening
        self._root = _Root(surfaces)
        self._context: Any = None

    async def start(self) -> None:
        """Answer from now on."""
        loop = asyncio.get_running_loop()
        context = Context(loop=loop, serversite=self._root, loggername="rulemill.coap.library")
        # It logs every datagram that cannot be read, and every error answer.
        context.log.setLevel(logging.ERROR)
        tokens = TokenManager(context)
        messages = self._root.messages = _Messages(tokens)
        messages.message_interface = await MessageInterfaceUDP6._create_transport_endpoint(
            self._socket, messages, context.log, loop
        )
        _expect_no_errors(self._socket)
        tokens.token_interface = messages
        context.request_interfaces.append(tokens)
        self._context = context

    async def stop(self, drain_s: float) -> None:
        """Take nothing more, give requests in hand `drain_s` seconds, and close."""
        if self._context is None:
            return
        context, self._context = self._context, None
        self._root.stopping = True
        for task in self._root.watching:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                await self._root.idle.wait()
        await context.shutdown()


def _expect_no_errors(listening: socket.socket) -> None:
    """Let the socket not tell that a peer is unreachable: retransmission that nobody answers tells the same, later.

    aiocoap asks for it, but a loop of libuv takes an error of a socket for its end, and never reads from it again: any
    client that leaves before its answer would silence the server.
    """
    if HAS_RECVERR:
        listening.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 0)
        listening.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 0)


class _Messages(MessageManager):  # type: ignore[misc]
    """The message layer, which also tells when the peer confirmed a message."""

    def __init__(self, tokens: Any) -> None:
        super().__init__(tokens)
        self._unconfirmed: dict[tuple[Any, int], asyncio.Future[None]] = {}

    async def confirmed(self, message: Any) -> None:
        """Wait until a message that was sent just now is confirmed. Whoever gives up on the peer cancels this."""
        if message.mtype is not CON:
            return
        key = (message.remote, message.mid)
        future = self._unconfirmed[key] = asyncio.get_running_loop().create_future()
        try:
            await future
        finally:
            self._unconfirmed.pop(key, None)

    def _remove_exchange(self, message: Any) -> None:
        super()._remove_exchange(message)
        future = self._unconfirmed.get((message.remote, message.mid))
        if message.mtype is ACK and future is not None and not future.done():
            future.set_result(None)


class _Root:
    """All resources: what aiocoap calls with every request."""

    def __init__(self, surfaces: Sequence[Surface]) -> None:
        self._surfaces = surfaces
        self._assemblies = Assemblies()
        self._answers = Block2Cache()
        self.messages: Any = None
        self.stopping = False
        self.watching: set[asyncio.Task[Any]] = set()
        self._in_hand = 0
        self.idle = asyncio.Event()
        self.idle.set()

    async def render_to_pipe(self, pipe: Any) -> None:
        """Answer one request, or many times if it observes."""
        if self.stopping or self._in_hand >= MOST_REQUESTS:
            reason = "the server stops" if self.stopping else "too many requests at a time"
            pipe.add_response(_message(_diagnostic(UNAVAILABLE, reason, 1)), is_last=True)
            return
        self._in_hand += 1
        self.idle.clear()
        observation: Observation | None = None
        try:
            message = pipe.request
            if _asks_to_observe(message) and len(self.watching) < MOST_WATCHERS:
                observation, answer = await self._observe(message)
            else:
                answer = await self._answers.extract_or_insert(message, lambda: self._answer(message))
                # Of this one block, not of the whole that is kept for the next ones.
                answer.opt.block1 = message.opt.block1
            pipe.add_response(answer, is_last=observation is None)
        except BaseException:
            if observation is not None:
                observation.close()
            raise
        finally:
            self._in_hand -= 1
            if not self._in_hand:
                self.idle.set()
        if observation is not None:
            await self._notify(pipe, observation)

    async def _answer(self, message: Any) -> Any:
        """The whole answer, errors too."""
        try:
            request = _request(message)
            surface, route, names = find(self._surfaces, request.method, request.segments)
            block = message.opt.block1
            if block is not None:
                await surface.admit(request, names)
                key = (message.remote.blockwise_key, request.method, request.segments, tuple(request.query.items()))
                body = self._assemblies.add(key, block.start, message.payload, block.more, surface.max_body)
                if body is None:
                    return _message(Response(CONTINUE))
                request = request._replace(body=body)
            else:
                request = request._replace(body=message.payload)
            return _message(await route.handler(request, names))
        except Exception as error:
            return _message(_told(error))

    async def _observe(self, message: Any) -> tuple[Observation | None, Any]:
        try:
            request = _request(message)
            _, route, names = find(self._surfaces, request.method, request.segments)
            if route.watch is None:
                return None, await self._answer(message)
            observation = await route.watch(request, names)
        except Exception as error:
            return None, _message(_told(error))
        first = _message(observation.first)
        if len(first.payload) > message.remote.maximum_payload_size:
            # The rest is fetched by plain requests; what changes later is told all the same.
            first = await self._answers.extract_or_insert(message, _given(first))
        if not observation.first.success:
            observation.close()
            return None, first
        first.opt.observe = 0
        return observation, first

    async def _notify(self, pipe: Any, observation: Observation) -> None:
        """Tell what changes, each once the one before is confirmed, until the peer or the dialect ends it."""
        task = asyncio.current_task()
        assert task is not None
        self.watching.add(task)
        try:
            number = 0
            last = False
            while not last:
                try:
                    response = await observation.next()
                except Exception as error:
                    response = _told(error)
                last = not response.success
                message = await self._answers.extract_or_insert(pipe.request, _given(_message(response)))
                message.transport_tuning = Reliable()
                if not last:
                    number += 1
                    message.opt.observe = number
                pipe.add_response(message, is_last=last)
                if not last:
                    await self.messages.confirmed(message)
        finally:
            self.watching.discard(task)
            observation.close()


def _asks_to_observe(message: Any) -> bool:
    block = message.opt.block2
    return message.opt.observe == 0 and message.code == Code.GET and (block is None or block.block_number == 0)


def _request(message: Any) -> Request:
    """The head of a request."""
    query: dict[str, str] = {}
    for part in message.opt.uri_query:
        name, _, value = part.partition("=")
        query.setdefault(name, value)
    format = message.opt.content_format
    return Request(
        str(message.code), tuple(message.opt.uri_path), query, None if format is None else int(format), b"",
        message.opt.observe == 1,
    )  # fmt: skip


def _message(response: Response) -> Any:
    message = Message(code=Code(response.code), payload=response.body)
    if response.format is not None:
        message.opt.content_format = response.format
    if response.max_age_s is not None:
        message.opt.max_age = response.max_age_s
    return message


def _diagnostic(code: int, reason: str, max_age_s: int | None = None) -> Response:
    return Response(code, reason.encode(errors="replace")[:1000], None, max_age_s)


def _told(error: Exception) -> Response:
    """The answer that stands for an error."""
    if isinstance(error, CoapError):
        return _diagnostic(error.code, error.reason)
    if isinstance(error, BadInput):
        return _diagnostic(BAD_REQUEST, str(error))
    if isinstance(error, Refused):
        return _diagnostic(UNAVAILABLE, error.reason, error.retry_after_s)
    if isinstance(error, _STORAGE_AWAY):
        log.warning("a request is refused: %s", error)
        return _diagnostic(UNAVAILABLE, "the storage cannot be reached", 1)
    log.error("a CoAP request failed", exc_info=error)
    return _diagnostic(INTERNAL, "internal error")


def _given(message: Any) -> Any:
    async def give() -> Any:
        return message

    return give
