"""Live updates over Socket.io: clients subscribe to resources, things, collections; writing is for HTTP (`TTI-S30`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import msgspec
from redis.exceptions import RedisError

from api.auth import token_print
from api.background import Background
from api.dialects.thethingsio.bodies import error_body
from api.dialects.thethingsio.callers import INVALID_SESSION, Caller, Callers
from api.dialects.thethingsio.dates import iso
from api.dialects.thethingsio.parts import Parts
from api.dialects.thethingsio.subscriptions import Subscriptions
from api.dialects.thethingsio.thing_calls import find_thing
from api.dialects.thethingsio.watching import SessionEnd, ThingToken, Watch
from api.live_values import Told
from api.transports.http_exchange import HttpError
from api.transports.socketio.server import SocketIo
from engine.errors import BadInput, Refused
from engine.stores.apps.objects import SHARED, Place, path_of, private
from engine.stores.registry import THING_TOKEN
from engine.stores.values import encodes

log = logging.getLogger("rulemill.thethingsio")

NAMESPACE: Final = "/v2"
MOST_WAITING: Final = 256
"""Events that may wait for a client; with one more it is cut off (`G-24`)."""
MOST_SUBSCRIPTIONS: Final = 100
IN_LIBRARY: Final = 32
"""Of them, packets that may lie in the library's own queue, which has no bound."""

End = Callable[[], Coroutine[Any, Any, None]]
Event = tuple[str, Any]


class _Client:
    """One connected client."""

    def __init__(self, sid: str, tls: bool) -> None:
        self.sid, self.tls = sid, tls
        self.caller: Caller | None = None
        self.ends: dict[str, End] = {}
        """What ends each subscription, by the resource's path."""
        self.waiting: asyncio.Queue[Event] = asyncio.Queue(MOST_WAITING)
        self.writer: asyncio.Task[None] | None = None
        self.changing = asyncio.Lock()
        self.cut = False
        self.turn = asyncio.Lock()
        """Of what the client says, one thing after the other, though the library begins all at once."""


Work = Callable[[_Client, Any], Awaitable[dict[str, Any]]]
"""Does what a client says, and gives the answer."""


class Realtime:
    """The namespace, on `sockets`."""

    def __init__(self, parts: Parts, subscriptions: Subscriptions, sockets: SocketIo) -> None:
        self._parts, self._subscriptions, self._sockets = parts, subscriptions, sockets
        self._callers = Callers(parts)
        self._clients: dict[str, _Client] = {}
        self._background = Background("live updates")
        handlers = {
            "connect": self._connected, "disconnect": self._disconnected, "authenticate": self._on_authenticate,
            "subscribe": self._on_subscribe, "unsubscribe": self._on_unsubscribe,
        }  # fmt: skip
        sockets.serve(NAMESPACE, handlers)

    async def stop(self) -> None:
        """Wait until subscriptions that have ended are let go."""
        await self._background.stop()

    # Connections. A client may send events of these two names itself, with whatever it likes in them.

    async def _connected(self, sid: str, environ: Any = None, *_: Any) -> None:
        """Somebody is there; who, they tell later."""
        if sid not in self._clients and self._sockets.came_with(NAMESPACE, sid, environ):
            client = self._clients[sid] = _Client(sid, environ["asgi.scope"].get("scheme") in ("https", "wss"))
            client.writer = asyncio.create_task(self._write(client), name="realtime")

    async def _disconnected(self, sid: str, *_: Any) -> None:
        """Nobody is there any more."""
        if not self._sockets.is_connected(NAMESPACE, sid):
            await self._forget(sid)

    async def _forget(self, sid: str) -> None:
        client = self._clients.pop(sid, None)
        if client is None:
            return
        if client.writer is not None:
            client.writer.cancel()
        async with client.changing:
            ends, client.ends = list(client.ends.values()), {}
        for end in ends:
            await end()

    async def _write(self, client: _Client) -> None:
        """Give events to the library no faster than its client takes them."""
        while True:
            event, data = await client.waiting.get()
            while self._sockets.waiting(NAMESPACE, client.sid) > IN_LIBRARY:  # noqa: ASYNC110 - the library tells nobody
                await asyncio.sleep(0.02)
            await self._sockets.emit(NAMESPACE, client.sid, event, data)

    def _say(self, client: _Client, event: str, data: Any) -> None:
        if client.cut or client.sid not in self._clients:
            return
        try:
            client.waiting.put_nowait((event, data))
        except asyncio.QueueFull:
            client.cut = True
            log.warning("a client that does not read is cut off: %d events wait for it", MOST_WAITING)
            self._background.run(self._cut(client.sid))

    async def _cut(self, sid: str) -> None:
        await self._forget(sid)
        await self._sockets.cut(NAMESPACE, sid)

    # What clients say

    async def _on_authenticate(self, sid: str, data: Any = None, *_: Any) -> None:
        """`{"sessionToken": …}` (`TTI-S31`)."""
        await self._answer(sid, "authenticate", self._authenticate, data)

    async def _authenticate(self, client: _Client, data: Any) -> dict[str, Any]:
        if self._parts.settings.require_tls and not client.tls:
            raise HttpError(403, "HTTPS required")
        token = data.get("sessionToken") if isinstance(data, dict) else None
        caller = await self._callers.by_token(token) if isinstance(token, str) else None
        if caller is None:
            raise HttpError(401, INVALID_SESSION)
        client.caller = caller
        return {"status": "success", "message": "authenticated"}

    async def _on_subscribe(self, sid: str, data: Any = None, *_: Any) -> None:
        """`{"resource": "/me/resources/temperature"}`, or `/things/{token}`, or `/classes/…` (`TTI-S32`)."""
        await self._answer(sid, "subscribe", self._subscribe, data)

    async def _on_unsubscribe(self, sid: str, data: Any = None, *_: Any) -> None:
        """The same, ended."""
        await self._answer(sid, "unsubscribe", self._unsubscribe, data)

    async def _answer(self, sid: str, event: str, work: Work, data: Any) -> None:
        client = self._clients.get(sid)
        if client is not None:
            self._say(client, event, await self._told(client, work, data))

    async def _told(self, client: _Client, work: Work, data: Any) -> dict[str, Any]:
        try:
            async with client.turn:
                return await work(client, data)
        except HttpError as error:
            return error_body(error.status, error.reason)
        except BadInput as error:
            return error_body(400, str(error))
        except (RedisError, Refused) as error:
            log.warning("a client of live updates is told to try again: %s", error)
            return error_body(503, "storage does not answer")

    async def _subscribe(self, client: _Client, data: Any) -> dict[str, Any]:
        path = _resource(data)
        async with client.changing:
            if path not in client.ends:
                if len(client.ends) >= MOST_SUBSCRIPTIONS:
                    raise BadInput(f"at most {MOST_SUBSCRIPTIONS} subscriptions")
                end = await self._begin(client, path)
                if client.sid not in self._clients:
                    await end()
                else:
                    client.ends[path] = end
        return {"status": "success", "resource": path}

    async def _unsubscribe(self, client: _Client, data: Any) -> dict[str, Any]:
        path = _resource(data)
        async with client.changing:
            end = client.ends.pop(path, None)
        if end is None:
            raise HttpError(404, "there is no such subscription")
        await end()
        return {"status": "success", "resource": path}

    async def _begin(self, client: _Client, path: str) -> End:
        names = path.strip("/").split("/")
        if names[0] == "things" and len(names) == 2:
            return await self._thing(client, path, names[1])
        caller = client.caller
        if caller is None or (caller := await self._callers.by_print(caller.print_)) is None:
            raise HttpError(401, INVALID_SESSION)
        client.caller = caller
        if names[:2] == ["me", "resources"] and len(names) in (3, 4):
            return await self._values(client, caller, path, names[2], names[3] if len(names) == 4 else None)
        if names[0] == "classes" and names[1:2] in (["me"], ["app"]) and len(names) > 2 and len(names) % 2:
            return self._collection(client, caller, path, names)
        raise HttpError(404, "Resource not found")

    # Subscriptions

    async def _values(self, client: _Client, caller: Caller, path: str, resource: str, thing: str | None) -> End:
        """Values as `[{"value", "id", "datetime"}]`, in an event named like the resource (`TTI-S33`)."""
        self._callers.check_resource(caller, resource)
        refused: list[dict[str, Any]] = []

        def value(told: Told, value: Any) -> None:
            self._say(client, path, [{"value": value, "id": told.device, "datetime": iso(told.ts_ms)}])

        def ended(error: dict[str, Any]) -> None:
            refused.append(error)
            self._lost(client, path, error)

        watch = Watch(self._parts, self._callers, caller, resource, thing, value, ended)
        await watch.begin(self._subscriptions)
        if refused:
            await watch.end()
            raise HttpError(403, "Permission denied")
        return watch.end

    async def _thing(self, client: _Client, path: str, token: str) -> End:
        """Values as `[{"key", "value", "datetime"}]`; the token is all that is needed."""
        device = await find_thing(self._parts, token)
        if device is None:
            raise HttpError(401, "Invalid thing token")

        def heard(told: Told) -> None:
            date = iso(told.ts_ms)
            self._say(
                client, path, [{"key": key, "value": value, "datetime": date} for key, value in told.values.items()]
            )

        watch = ThingToken(
            self._parts, device, token_print(THING_TOKEN, token), heard, lambda error: self._lost(client, path, error)
        )
        await watch.begin(self._subscriptions)
        return watch.end

    def _collection(self, client: _Client, caller: Caller, path: str, names: list[str]) -> End:
        """Changed objects, as an app's stream has them."""
        scope = SHARED if names[1] == "app" else private(caller.user.key)
        place = Place(caller.app.id, scope, path_of(names[2:]))
        unlisten = self._parts.live.listen(
            place.topic, lambda _, body: self._say(client, path, msgspec.json.decode(body))
        )
        session = SessionEnd(self._parts, self._callers, caller, lambda error: self._lost(client, path, error))
        session.start()

        async def end() -> None:
            unlisten()
            session.stop()

        return end

    def _lost(self, client: _Client, path: str, error: dict[str, Any]) -> None:
        """A subscription has ended by itself."""
        end = client.ends.pop(path, None)
        if end is not None:
            self._say(client, "subscribe", {**error, "resource": path})
            self._background.run(end())


def _resource(data: Any) -> str:
    path = data.get("resource") if isinstance(data, dict) else None
    if not isinstance(path, str) or not path.startswith("/") or len(path) > 1024 or not encodes(path):
        raise BadInput("resource must be a path, such as /me/resources/temperature")
    return path
