"""The MQTT endpoint of a process: its listeners, who is connected, and what is sent to whom."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import uuid
from collections.abc import Awaitable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from redis.exceptions import RedisError

from api.transports.mqtt.connection import Connection
from api.transports.mqtt.dialect import Choose, CloseReason, Login, Refusal, Submit
from api.transports.mqtt.handshake import objection, wanted_expiry_s
from api.transports.mqtt.host import Admitted, Owner
from api.transports.mqtt.packets import NOT_AUTHORISED, UNAVAILABLE, Connect
from api.transports.mqtt.sessions import Holder, Opened, SessionStore
from api.transports.mqtt.settings import Counters, Settings
from engine.errors import Refused
from engine.service import end_all

_log = logging.getLogger("rulemill.mqtt")

T = TypeVar("T")

SAVE_ATTEMPTS: Final = 3
BACKLOG: Final = 1024


class MqttServer:
    """Accepts MQTT clients, asks dialects who they are, stores what they publish before it is acknowledged.

    `choose` names the dialects for a CONNECT, `submit` stores messages. Without `sessions` every session is clean,
    and client ids are exclusive in this process only. `counters` may be read at any time.
    """

    def __init__(
        self,
        choose: Choose,
        submit: Submit,
        sessions: SessionStore | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.counters = Counters()
        self.submit = submit
        self._choose = choose
        self._sessions = sessions
        self._listeners: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._owners: dict[tuple[str, str], Owner] = {}
        self._scopes: dict[str, set[Connection]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening = False
        self._stopping = False

    async def start(
        self,
        *,
        sockets: Iterable[socket.socket] = (),
        host: str | None = None,
        port: int = 1883,
        tls: ssl.SSLContext | None = None,
        name: str = "mqtt",
    ) -> list[tuple[str, int]]:
        """Listen on sockets that are bound already, else on an address; the addresses it listens on.

        May be called for any number of listeners; `name` is what dialects see as `Peer.listener`.
        """
        if self._sessions is not None and not self._listening:
            self._sessions.start(self._taken_over, self._held, self._lost)
        self._listening = True
        loop = asyncio.get_running_loop()

        def connection() -> Connection:
            return Connection(self, name)

        handshake_s = self.settings.handshake_s if tls is not None else None
        listen = partial(loop.create_server, connection, ssl=tls, backlog=BACKLOG, ssl_handshake_timeout=handshake_s)
        made = [await listen(sock=sock) for sock in sockets] or [await listen(host=host, port=port)]
        self._listeners += made
        return [listening.getsockname()[:2] for server in made for listening in server.sockets]

    async def stop(self, drain_s: float = 5.0) -> None:
        """Accept and read nothing more, answer what gets stored within `drain_s`, close, save the sessions."""
        self._stopping = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.drain()
        await self._all_finished(drain_s)
        for connection in list(self._connections):
            connection.abandon()
        await self._all_finished(self.settings.close_s + SAVE_ATTEMPTS)
        for listener in self._listeners:
            await listener.wait_closed()
        self._listeners = []
        await end_all(self._tasks)
        if self._sessions is not None:
            await self._sessions.stop()

    def send(self, scope: str, topic: str, payload: bytes, qos: int = 1) -> int:
        """Publish to every client of a scope that is connected here and wants the topic; how many there were."""
        return sum([client.send(topic, payload, qos) for client in list(self._scopes.get(scope, ()))])

    async def enqueue(self, scope: str, topic: str, payload: bytes, qos: int = 1) -> int:
        """Keep a publication for absent clients of a scope, whichever process they were connected to; how many.

        To be called in one process only, once for each publication. Raises Refused when Redis does not answer.
        """
        if self._sessions is None:
            return 0
        taken, dropped = await _redis(self._sessions.enqueue(scope, topic, payload, qos))
        self.counters.dropped += dropped
        return taken

    def clients(self, scope: str) -> list[Connection]:
        """The connected clients of a scope in this process."""
        return list(self._scopes.get(scope, ()))

    # What a connection asks.

    def attached(self, connection: Connection) -> bool:
        """A connection was made; False when there are too many."""
        self._connections.add(connection)
        self.counters.connections += 1
        return not self._stopping and len(self._connections) <= self.settings.max_connections

    async def admit(self, connection: Connection, connect: Connect) -> Admitted | Refusal:
        """Log the client in, end the connection it takes over, open its session."""
        fault = objection(connect)
        if fault is not None:
            return fault
        login = await self._log_in(connection, connect)
        if isinstance(login, Refusal):
            return login
        client_id = connect.client_id or f"rm-{uuid.uuid4().hex}"
        key = (login.scope, client_id)
        while (old := self._owners.get(key)) is not None:
            self.counters.taken_over += 1
            old.connection.close(CloseReason.TAKEN_OVER)
            await asyncio.wait([old.connection.finished])
        expiry_s = 0
        if self._sessions is not None and login.may_persist:
            expiry_s = wanted_expiry_s(connect, self._sessions.keep_s)
        owner = Owner(connection, Holder(login.scope, client_id, uuid.uuid4().hex, expiry_s))
        self._owners[key] = owner
        connection.owner = owner
        opened = Opened(0)
        if self._sessions is not None:
            clean = connect.clean or not login.may_persist
            try:
                opened = await _redis(self._sessions.open(owner.holder, clean=clean))
            except Refused as error:
                return Refusal(UNAVAILABLE, error.reason)
            owner.number = opened.number
            if owner.superseded > owner.number:
                return Refusal(UNAVAILABLE, "taken over while connecting")
        return Admitted(login, client_id, opened, expiry_s)

    def established(self, connection: Connection) -> None:
        """The client has its CONNACK."""
        assert connection.login is not None
        self._scopes.setdefault(connection.login.scope, set()).add(connection)

    async def record(self, connection: Connection, changes: Mapping[str, bytes]) -> bool:
        """Write fields of the persistent session; False when somebody else owns it. Raises Refused without Redis."""
        if self._sessions is None or connection.owner is None:
            return True
        return await _redis(self._sessions.apply(connection.owner.holder, changes))

    def keep(self, connection: Connection, expiry_s: int) -> None:
        """Let the session, if it is to outlive the connection, do so for another time; 0 ends it with it."""
        owner = connection.owner
        if owner is not None and owner.persistent and self._sessions is not None:
            owner.holder = owner.holder._replace(expiry_s=min(expiry_s, self._sessions.keep_s))

    def settled(self, connection: Connection) -> None:
        """What the persistent session had kept was delivered."""
        if self._sessions is not None and connection.owner is not None:
            self._spawn(self._settle(self._sessions, connection.owner.holder))

    def gone(self, connection: Connection) -> None:
        """The connection is lost."""
        self.counters.connections -= 1
        if connection.login is not None:
            clients = self._scopes.get(connection.login.scope, set())
            clients.discard(connection)
            if not clients:
                self._scopes.pop(connection.login.scope, None)
        self._spawn(self._let_go(connection))

    # Inside.

    async def _log_in(self, connection: Connection, connect: Connect) -> Login | Refusal:
        first: Refusal | None = None
        for dialect in self._choose(connect, connection.peer):
            login = await dialect.login(connect, connection.peer)
            if not isinstance(login, Refusal):
                return login
            first = first or login
            if not login.unknown:
                break
        return first or Refusal(NOT_AUTHORISED, "no dialect takes this login")

    async def _settle(self, sessions: SessionStore, holder: Holder) -> None:
        try:
            await _redis(sessions.settled(holder))
        except Refused as error:
            # It stays until the connection ends; after a crash the client would get these again.
            _log.warning("the queue of MQTT client %r is not cleared: %s", holder.client_id, error.reason)

    async def _let_go(self, connection: Connection) -> None:
        try:
            await connection.ended()
            owner = connection.owner
            if owner is not None and owner.persistent and self._sessions is not None:
                await self._save(self._sessions, owner.holder, connection)
        finally:
            owner = connection.owner
            if owner is not None:
                key = (owner.holder.scope, owner.holder.client_id)
                if self._owners.get(key) is owner:
                    del self._owners[key]
            self._connections.discard(connection)
            connection.finished.set_result(None)

    async def _save(self, sessions: SessionStore, holder: Holder, connection: Connection) -> None:
        queue = connection.unsent()
        reason = ""
        for attempt in range(SAVE_ATTEMPTS):
            try:
                # A connection that never read its session must not overwrite the queue.
                self.counters.dropped += await _redis(sessions.leave(holder, queue if connection.established else None))
                return
            except Refused as error:
                reason = error.reason
                if attempt < SAVE_ATTEMPTS - 1:
                    await asyncio.sleep(0.5)
        self.counters.dropped += len(queue)
        _log.error("%d publications for MQTT client %r are lost: %s", len(queue), holder.client_id, reason)

    async def _all_finished(self, wait_s: float) -> None:
        if self._connections:
            await asyncio.wait([connection.finished for connection in self._connections], timeout=wait_s)

    def _taken_over(self, number: int, scope: str, client_id: str) -> None:
        owner = self._owners.get((scope, client_id))
        if owner is None:
            return
        owner.superseded = max(owner.superseded, number)
        if 0 < owner.number < number:
            self.counters.taken_over += 1
            owner.connection.close(CloseReason.TAKEN_OVER)

    def _held(self) -> list[Holder]:
        return [owner.holder for owner in self._owners.values() if owner.persistent and owner.number]

    def _lost(self, holder: Holder) -> None:
        owner = self._owners.get((holder.scope, holder.client_id))
        if owner is not None and owner.holder.owner == holder.owner:
            owner.connection.close(CloseReason.TAKEN_OVER)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _redis(call: Awaitable[T]) -> T:
    """Wait for a call of the session store; what may pass becomes Refused."""
    try:
        return await call
    except (RedisError, OSError) as error:
        raise Refused(f"Redis: {error}") from error
