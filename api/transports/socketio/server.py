"""The Socket.io server of a process, for both revisions of its protocol. Namespaces are the dialects'."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import socketio

from api.transports.http_exchange import Asgi
from api.transports.socketio.exchange import MAX_BODY_BYTES
from api.transports.socketio.guard import Guard
from api.transports.socketio.neighbours import Neighbours
from api.transports.socketio.sessions import Sessions
from api.transports.socketio.translation import Translation

PING_INTERVAL_S, PING_TIMEOUT_S = 25, 5
PATH: Final = "socket.io"
"""First segment of its paths."""

Handler = Callable[..., Awaitable[None]]


class SocketIo:
    """The library's server, behind guard, translation and neighbours. `application` goes into the front."""

    def __init__(self, redis_url: str, ping_interval_s: float = PING_INTERVAL_S) -> None:
        self.server = socketio.AsyncServer(
            async_mode="asgi", cors_allowed_origins="*", ping_interval=ping_interval_s, ping_timeout=PING_TIMEOUT_S,
            max_http_buffer_size=MAX_BODY_BYTES, logger=False, engineio_logger=False,
            # Clients of revision 3 are always in the first namespace as well.
            namespaces=["/"],
        )  # fmt: skip
        self._stopped = False
        engine = self.server.eio
        self._sessions = Sessions(engine)
        application = Guard(socketio.ASGIApp(self.server, socketio_path=PATH), self._sessions)
        translated = Translation(application, self._sessions, ping_interval_s, PING_TIMEOUT_S)
        self._neighbours = Neighbours(translated, redis_url, ping_interval_s + 2 * PING_TIMEOUT_S)
        self.application: Asgi = self._neighbours
        new_id: Callable[[], str] = engine.generate_id
        engine.generate_id = lambda: self._neighbours.own(new_id())

    def serve(self, namespace: str, handlers: Mapping[str, Handler]) -> None:
        """Take clients of a namespace; handlers are called with the client's id and what its event brings."""
        for event, handler in handlers.items():
            self.server.on(event, handler, namespace=namespace)

    def is_connected(self, namespace: str, sid: str) -> bool:
        """Whether a client is there, neither coming nor going."""
        return bool(self.server.manager.is_connected(sid, namespace))

    def came_with(self, namespace: str, sid: str, environ: Any) -> bool:
        """Whether that is the environment of a client's own first request; `asgi.scope` in it is the scope."""
        return environ is not None and environ is self.server.get_environ(sid, namespace)

    async def emit(self, namespace: str, sid: str, event: str, data: Any) -> None:
        """Give an event for a client to the library, which takes any number."""
        await self.server.emit(event, data, to=sid, namespace=namespace)

    def waiting(self, namespace: str, sid: str) -> int:
        """Packets that a client of a namespace has not taken yet."""
        return self._sessions.waiting(self._session(namespace, sid))

    async def cut(self, namespace: str, sid: str) -> None:
        """End a client's session without sending what it has not taken yet."""
        await self._sessions.cut(self._session(namespace, sid))

    def _session(self, namespace: str, sid: str) -> str:
        return self.server.manager.eio_sid_from_sid(sid, namespace) or ""

    async def start(self) -> None:
        """Hear neighbours; raises redis ConnectionError when Redis is away."""
        await self._neighbours.start()

    async def stop(self) -> None:
        """Look after sessions no more, and break off what is passed on; the front ends connections. Twice is once."""
        if not self._stopped:
            self._stopped = True
            await self.server.shutdown()  # fails when it is called again
        await self._neighbours.stop()
