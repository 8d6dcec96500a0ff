"""A store whose answers the test gives, a dialect of plain topics, and a client of raw bytes."""

import asyncio
import contextlib
from dataclasses import dataclass, field

from api.transports.mqtt.decoding import decode
from api.transports.mqtt.dialect import Accepted, Close, CloseReason, Drop, Refusal
from api.transports.mqtt.encoding import encode
from api.transports.mqtt.packets import (
    BAD_LOGIN,
    SUBSCRIPTION_REFUSED,
    Connack,
    Connect,
    Properties,
    Publish,
    Subscribe,
)
from api.transports.mqtt.server import MqttServer
from api.transports.mqtt.settings import Settings
from engine.errors import Refused
from engine.message import Message, new_id, now_ms

WAIT_S = 10


class MemoryStore:
    """Keeps messages in memory as `submit` promises: at once, when told to (`manual`), or not at all (`refusals`)."""

    def __init__(self):
        self.stored: list[Message] = []
        self.manual = False
        self.refusals: list[Refused] = []
        self.calls = 0
        self._waiting: list[Message] = []
        self._flush: asyncio.Future[None] | None = None

    def submit(self, messages):
        self.calls += 1
        future = asyncio.get_running_loop().create_future()
        if self.refusals:
            future.set_exception(self.refusals.pop(0))
            return future
        if not self.manual:
            self.stored += messages
            future.set_result(None)
            return future
        self._waiting += messages
        if self._flush is None:
            self._flush = future
        return self._flush

    @property
    def waiting(self):
        return [message.data for message in self._waiting]

    @property
    def payloads(self):
        return [message.data for message in self.stored]

    def store(self):
        """Make durable what waits."""
        self.stored += self._waiting
        self._end().set_result(None)

    def refuse(self, retry_after_s=0):
        """Refuse what waits."""
        self._end().set_exception(Refused("backlog full", retry_after_s))

    def _end(self):
        flush, self._flush, self._waiting = self._flush, None, []
        assert flush is not None
        return flush


@dataclass
class PlainLogin:
    """May publish and subscribe under `dev/`; topic `dev/drop` is dropped, `dev/echo` is answered without storing.

    `dev/first` takes a wait: the next of `firsts` says how it ends, an error, an event to wait for, or what part of it
    is refused. `dev/part` is refused in part at once.
    """

    scope: str
    store_name: str = "device"
    max_payload: int = 65_536
    may_persist: bool = True
    honours_wills: bool = False
    events: list = field(default_factory=list)
    firsts: list = field(default_factory=list)
    session: object = None

    def connected(self, session):
        self.session = session
        self.events.append("connected")

    def publish(self, topic, payload, qos, retain):
        if topic == "dev/drop":
            return Drop("asked for")
        if topic == "dev/echo":
            self.session.send("dev/echoed", payload, 1)
            return Accepted()
        if topic == "dev/bug":
            raise RuntimeError("a dialect with a bug")
        if not topic.startswith("dev/"):
            return Close("another tree")
        message = Message(
            id=new_id(), ts_ms=now_ms(), tenant="t", type="RAW", originator=self.store_name, data=bytes(payload)
        )
        if topic == "dev/part":
            return Accepted([message], refused=Drop("one of two"))
        if topic == "dev/first":
            return Accepted(first=lambda: self.waited(message))
        copies = 3 if topic == "dev/many" else 1
        return Accepted([message] * copies, lambda: self.events.append(f"stored {payload.decode('latin1')}"))

    async def waited(self, message):
        how = self.firsts.pop(0)
        if isinstance(how, BaseException):
            raise how
        if isinstance(how, Drop):
            return Accepted([message], lambda: self.events.append("stored a part"), refused=how)
        await how.wait()
        return [message]

    def may_subscribe(self, topic_filter):
        return 2 if topic_filter.startswith("dev/") else SUBSCRIPTION_REFUSED

    def subscribed(self, topic_filter, qos):
        self.events.append(f"subscribed {topic_filter} {qos}")
        if topic_filter == "dev/commands":
            self.session.send("dev/commands", b"waiting since long", 1)

    def unsubscribed(self, topic_filter):
        self.events.append(f"unsubscribed {topic_filter}")

    def closed(self, reason):
        self.events.append(reason)


class PlainDialect:
    """Logs in whoever has the password "secret" as the scope of its user name."""

    def __init__(self, **options):
        self.options = options
        self.logins: list[PlainLogin] = []
        self.peers = []
        self.gate: asyncio.Event | None = None

    async def login(self, connect, peer):
        self.peers.append(peer)
        if self.gate is not None:
            await self.gate.wait()
        if connect.password != b"secret":
            return Refusal(BAD_LOGIN, "wrong password", unknown=connect.username == "nobody")
        self.logins.append(PlainLogin(connect.username, **self.options))
        return self.logins[-1]


class RawClient:
    """A client that says exactly what it is told to."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self.level = 4
        self._rest = b""
        self._packets = []

    @classmethod
    async def open(cls, port, **options):
        return cls(*await asyncio.open_connection("127.0.0.1", port, **options))

    def say(self, *packets):
        for packet in packets:
            if isinstance(packet, Connect):
                self.level = packet.level
            self.writer.write(packet if isinstance(packet, bytes) else encode(packet, self.level))

    async def hear(self):
        """The next packet; None when the server closed."""
        async with asyncio.timeout(WAIT_S):
            while not self._packets:
                try:
                    got = await self.reader.read(65_536)
                except ConnectionError:
                    got = b""
                if not got:
                    return None
                decoded = decode(self._rest + got, 10_000_000, level=self.level)
                assert decoded.error is None
                self._rest = (self._rest + got)[decoded.consumed :]
                self._packets += decoded.packets
        return self._packets.pop(0)

    async def hear_many(self, count):
        return [await self.hear() for _ in range(count)]

    async def login(self, username="d1", client_id="c1", clean=True, keep_alive_s=0, level=4, will=None, **said):
        """Log in; the CONNACK. `said` are properties of level 5."""
        properties = Properties(**said) if said else None
        self.say(Connect(level, clean, keep_alive_s, client_id, will, username, b"secret", properties))
        answer = await self.hear()
        assert isinstance(answer, Connack)
        return answer

    async def subscribe(self, topic_filter, qos=1, packet_id=99):
        self.say(Subscribe(packet_id, ((topic_filter, qos),)))
        return await self.hear()

    async def close(self):
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class Site:
    """A server with its store and its dialect, and the clients a test opened."""

    def __init__(self, sessions=None, *, settings=None, dialect=None, store=None):
        self.store = store or MemoryStore()
        self.dialect = dialect or PlainDialect()
        self.server = MqttServer(
            lambda connect, peer: [self.dialect], self.store.submit, sessions, settings or Settings()
        )
        self.port = 0
        self._clients = []

    async def __aenter__(self):
        [(_, self.port)] = await self.server.start(host="127.0.0.1", port=0)
        return self

    async def __aexit__(self, *_):
        for client in self._clients:
            await client.close()
        await self.server.stop(0)

    async def client(self):
        self._clients.append(await RawClient.open(self.port))
        return self._clients[-1]

    async def logged_in(self, **options):
        client = await self.client()
        assert (await client.login(**options)).code == 0
        return client


async def until(condition):
    """Wait until the condition holds; fails after a long while."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.005)


def publication(payload, packet_id=0, qos=1, topic="dev/data", dup=False):
    return Publish(topic, payload, qos, packet_id, False, dup)


__all__ = [
    "CloseReason",
    "MemoryStore",
    "PlainDialect",
    "PlainLogin",
    "RawClient",
    "Site",
    "publication",
    "until",
]
