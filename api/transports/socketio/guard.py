"""Lets the library see well-formed packets only; the session of a client that sends any other is ended."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from typing import Any, Final
from urllib.parse import parse_qs

from api.transports.http_exchange import Asgi, Gone, Receive, Scope, Send, TooLarge
from api.transports.socketio.exchange import BAD_REQUEST, UNKNOWN_SESSION, answer, body_of, call, cors
from api.transports.socketio.packets import CLOSE, OPEN, SEPARATOR, fault, packets_of
from api.transports.socketio.sessions import Sessions

NORMAL, GOING_AWAY, PROTOCOL_ERROR = 1000, 1001, 1002
MOST_REASON: Final = 120
"""Characters of ASCII that a closing frame can hold."""
AT_ONCE: Final = 16
"""Packets that the library reads of one body; with more it reads none of them."""


class Guard:
    """An ASGI application before the library's."""

    def __init__(self, server: Asgi, sessions: Sessions) -> None:
        self._server, self._sessions = server, sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or websocket of revision 4."""
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["method"] == "POST":
            await self._post(scope, receive, send)
        else:
            await self._server(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        sid, ended = _sid(scope), False

        async def end(code: int, reason: str = "") -> MutableMapping[str, Any]:
            nonlocal ended
            ended = True
            await send({"type": "websocket.close", "code": code, "reason": reason[:MOST_REASON]})
            return {"type": "websocket.disconnect", "code": code}

        async def heard() -> MutableMapping[str, Any]:
            message = await receive()
            if message["type"] != "websocket.receive":
                return message
            if not self._sessions.alive(sid):
                return await end(GOING_AWAY)  # it was ended while its client spoke
            text = message.get("text")
            if text == CLOSE:
                return await end(NORMAL)
            if reason := fault(text if text is not None else message["bytes"], upgrade=True):
                await self._sessions.refuse(scope, sid, reason)
                return await end(PROTOCOL_ERROR, reason)
            return message

        async def say(message: MutableMapping[str, Any]) -> None:
            nonlocal sid
            if not sid and (message.get("text") or "").startswith(OPEN):
                sid = json.loads(message["text"][1:])["sid"]
            if not ended:
                await send(message)

        await self._server(scope, heard, say)

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        sid = _sid(scope)
        try:
            packets = packets_of(await body_of(scope, receive))
        except Gone:
            return
        except TooLarge as error:
            await answer(send, 413, cors(scope), str(error))
            return
        except ValueError as error:
            await self._sessions.refuse(scope, sid, str(error))
            await answer(send, 400, cors(scope), BAD_REQUEST)
            return
        for at in range(0, len(packets), AT_ONCE):
            if not self._sessions.alive(sid):
                await answer(send, 400, cors(scope), UNKNOWN_SESSION)
                return
            body = SEPARATOR.join(packets[at : at + AT_ONCE]).encode()
            status, headers, told = await call(self._server, scope, body)
            if status != 200:
                break
        await answer(send, status, headers, told)


def _sid(scope: Scope) -> str:
    query: bytes = scope["query_string"]
    return parse_qs(query.decode("latin-1")).get("sid", [""])[0]
