"""Engine.IO sessions of the library's server: which there are, what waits for them, and how they are ended."""

from __future__ import annotations

import logging
from typing import Any

from api.transports.http_exchange import Scope

log = logging.getLogger("rulemill.socketio")


class Sessions:
    """The sessions of an Engine.IO server, by their ids."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def alive(self, sid: str) -> bool:
        """Whether there is such a session. One that has ended lies about in the library for a while."""
        session = self._server.sockets.get(sid)
        return session is not None and not session.closed

    def waiting(self, sid: str) -> int:
        """Packets that a client has not taken yet."""
        session = self._server.sockets.get(sid)
        return 0 if session is None else int(session.queue.qsize())

    async def cut(self, sid: str) -> None:
        """End a session at once; what waits for its client is not sent any more."""
        session = self._server.sockets.get(sid)
        if session is not None:
            await session.close(wait=False, abort=True)
            session.queue.put_nowait(None)  # the writer of its connection ends, and closes it

    async def refuse(self, scope: Scope, sid: str, reason: str) -> None:
        """End the session of a client that says what cannot be understood, and say so."""
        client = scope.get("client") or ("an unknown address",)
        log.warning("a client at %s is disconnected: %s", client[0], reason)
        await self.cut(sid)
