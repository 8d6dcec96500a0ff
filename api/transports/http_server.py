"""Listeners for HTTP on sockets that are bound already: uvicorn for plain and fast, Hypercorn for HTTP/2.

Lifespan and signals are not the servers' business here: what runs is started and stopped by the composition root.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import MutableMapping, Sequence
from email.utils import formatdate
from typing import Any, Final, Literal, cast

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.run import worker_serve
from hypercorn.config import Config as HypercornConfig
from hypercorn.config import Sockets
from uvicorn.config import Config as UvicornConfig
from uvicorn.server import ServerState

from api.transports import http_connections
from api.transports.http import Asgi, Receive, Scope, Send
from api.transports.http_deadlines import Deadlines, PacedReceive, paced_protocol, paced_websocket
from api.transports.http_resets import reset_incomplete
from api.transports.http_unread import Unread
from engine.config import Tls

log = logging.getLogger("rulemill.http")

BACKLOG: Final = 2048
KEEP_ALIVE_S: Final = 75
"""How long a connection may stay silent between two requests: devices that send every minute keep theirs."""


class HttpListener:
    """Serves `app` on sockets. Requests tell `key` as `scope["state"]["listener"]`.

    `tls` names certificate and key. With "hypercorn", `http2` decides whether TLS clients are offered HTTP/2.
    """

    def __init__(
        self,
        key: str,
        app: Asgi,
        sockets: Sequence[socket.socket],
        *,
        tls: Tls | None = None,
        server: Literal["uvicorn", "hypercorn"] = "uvicorn",
        http2: bool = True,
        deadlines: Deadlines | None = None,
    ) -> None:
        deadlines = deadlines or Deadlines()
        self._server: _Uvicorn | _Hypercorn
        if server == "uvicorn":
            context = _context(tls, ["http/1.1"]) if tls else None
            self._server = _Uvicorn(key, app, sockets, context, deadlines)
        else:
            context = _context(tls, ["h2", "http/1.1"] if http2 else ["http/1.1"]) if tls else None
            self._server = _Hypercorn(key, app, sockets, context, deadlines)

    async def start(self) -> None:
        """Accept connections from now on."""
        await self._server.start()

    async def stop(self, drain_s: float) -> None:
        """Accept nothing more, let requests end for `drain_s`, then cut what is left. May be called twice."""
        await self._server.stop(drain_s)


def _context(tls: Tls, protocols: list[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.certificate, tls.key)
    context.set_alpn_protocols(protocols)
    return context


class _Uvicorn:
    """uvicorn's protocol without its server, whose start and stop take the process's signals."""

    def __init__(
        self, key: str, app: Asgi, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None, deadlines: Deadlines
    ) -> None:
        self._sockets, self._tls = sockets, tls
        self._app_state = {"listener": key}
        self._protocol = paced_protocol(deadlines)
        self._handshake_s = deadlines.handshake_s
        self._config = UvicornConfig(
            app, http=self._protocol, ws=paced_websocket(deadlines), lifespan="off", interface="asgi3", log_config=None,
            access_log=False, proxy_headers=False, server_header=False, timeout_keep_alive=KEEP_ALIVE_S,
        )  # fmt: skip
        self._state = ServerState()
        self._servers: list[asyncio.Server] = []
        self._dating: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._config.load()
        self._date()
        self._dating = asyncio.create_task(self._keep_date(), name="http-date")
        loop = asyncio.get_running_loop()
        handshake_s = self._handshake_s if self._tls else None
        self._servers = [
            await loop.create_server(
                self._connection, sock=each, ssl=self._tls, backlog=BACKLOG, ssl_handshake_timeout=handshake_s
            )
            for each in self._sockets
        ]

    def _connection(self) -> Any:
        return self._protocol(config=self._config, server_state=self._state, app_state=self._app_state)

    def _date(self) -> None:
        self._state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]

    async def _keep_date(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._date()

    async def stop(self, drain_s: float) -> None:
        for server in self._servers:
            server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        await self._ended(drain_s)
        for connection in list(self._state.connections):
            # Their requests see that the client is gone, and end by themselves.
            if connection.transport is not None:
                connection.transport.abort()
        await self._ended(1.0)
        for task in list(self._state.tasks):
            task.cancel()
        await asyncio.gather(*self._state.tasks, return_exceptions=True)
        if self._dating is not None:
            self._dating.cancel()
            await asyncio.gather(self._dating, return_exceptions=True)
            self._dating = None

    async def _ended(self, within_s: float) -> None:
        for _ in range(int(within_s / 0.02)):
            if not self._state.connections and not self._state.tasks:
                return
            await asyncio.sleep(0.02)


class _GivenTls(HypercornConfig):
    """Hypercorn's settings with a TLS context made by us."""

    given: ssl.SSLContext | None = None

    @property
    def ssl_enabled(self) -> bool:
        return self.given is not None

    def create_ssl_context(self) -> ssl.SSLContext | None:
        return self.given


class _Hypercorn:
    def __init__(
        self, key: str, app: Asgi, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None, deadlines: Deadlines
    ) -> None:
        self._config = _GivenTls()
        self._config.given = tls
        self._config.accesslog = None
        self._config.errorlog = None
        self._config.include_server_header = False
        self._config.keep_alive_timeout = KEEP_ALIVE_S
        self._config.ssl_handshake_timeout = deadlines.handshake_s
        self._config.backlog = BACKLOG
        secure, plain = (list(sockets), []) if tls else ([], list(sockets))
        self._sockets = Sockets(secure, plain, [])
        for each in sockets:
            # Hypercorn waits for ever for a client that does not read; what is accepted here inherits this.
            if each.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(deadlines.write_stall_s * 1000))
        self._app = _Tagged(key, app, deadlines)
        self._stop = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        http_connections.install()
        # The sockets listen since they were bound: who connects before the first accept waits in the backlog.
        serve = worker_serve(
            ASGIWrapper(cast(Any, self._app)), self._config, sockets=self._sockets, shutdown_trigger=self._stop.wait
        )
        self._serving = asyncio.create_task(serve, name="hypercorn")
        self._serving.add_done_callback(_told)

    async def stop(self, drain_s: float) -> None:
        if self._serving is None:
            return
        self._config.graceful_timeout = drain_s
        self._stop.set()
        await asyncio.wait([self._serving], timeout=drain_s + 1.0)
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        self._serving = None


def _told(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("an HTTP listener has ended", exc_info=error)


class _Tagged:
    """Tells the application which listener a request came by, cuts bodies that trickle, leaves what nobody reads,
    resets what has no end.
    """

    def __init__(self, key: str, app: Asgi, deadlines: Deadlines) -> None:
        self._key, self._app, self._deadlines = key, app, deadlines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            # Not forwarded: start and stop of what runs belong to the composition root.
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        scope = {**scope, "state": {**scope.get("state", {}), "listener": self._key}}
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        unread = Unread(receive, send)

        async def sent(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                unread.leave()
            await send(message)

        try:
            await self._app(scope, PacedReceive(unread.receive, self._deadlines), sent)
        finally:
            unread.leave()
            await reset_incomplete(send)
