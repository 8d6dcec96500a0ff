"""An MQTT session of a ThingsBoard device, whose topics are a table."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from redis.exceptions import RedisError

from api.auth import Unknown
from api.deliveries import Deliveries
from api.dialects.thingsboard.children import Children
from api.dialects.thingsboard.device_topics import DEVICE
from api.dialects.thingsboard.downlinks import Downlinks
from api.dialects.thingsboard.downloads import Downloads
from api.dialects.thingsboard.encodings import Encodings, Forms
from api.dialects.thingsboard.gateway import Gateway
from api.dialects.thingsboard.gateway_topics import GATEWAY
from api.dialects.thingsboard.parts import Parts
from api.dialects.thingsboard.payload import Payloads
from api.dialects.thingsboard.rpc import Give, give
from api.dialects.thingsboard.settings import DIALECT, MAX_MQTT_BYTES, MQTT, SESSION_MAX_ASKED
from api.dialects.thingsboard.topics import Down, Verdict
from api.transports.mqtt.dialect import Accepted, Close, CloseReason, Drop, Session
from api.transports.mqtt.packets import SUBSCRIPTION_REFUSED
from api.transports.mqtt.reasons import Reason
from engine.errors import BadInput, Refused
from engine.message import Message, new_id
from engine.replies import Waiting
from engine.stores.firmware import Image, Kind
from engine.stores.registry import Device

_TOO_MANY: Final = Close(f"more than {SESSION_MAX_ASKED} questions without an answer", Reason.QUOTA_EXCEEDED)


@dataclass(slots=True)
class Shared:
    """What all sessions of a process use."""

    parts: Parts
    doubt: Callable[[str], None]
    """Have the credentials of a device's sessions looked at again."""
    sessions: dict[str, dict[DeviceLogin, None]] = field(default_factory=dict)
    """Of each device, those connected here, the oldest first."""
    carried: dict[str, set[Gateway]] = field(default_factory=dict)
    """Of each device, the gateways connected here that speak for it."""
    payloads: Payloads = field(init=False)
    encodings: Encodings = field(init=False)
    deliveries: Deliveries[Give] = field(init=False)
    children: Children = field(init=False)
    downloads: Downloads = field(default_factory=Downloads)

    def __post_init__(self) -> None:
        parts = self.parts
        self.payloads = Payloads(parts.settings)
        self.encodings = Encodings(parts.auth, self.payloads)
        self.children = Children(parts.auth, parts.registry, parts.settings)
        self.deliveries = Deliveries(parts.commands, parts.live, give)

    async def stop(self) -> None:
        """End what sessions have under way."""
        await self.deliveries.stop()
        await self.children.stop()
        await self.downloads.stop()


class DeviceLogin:
    """A device's MQTT session. Handlers of its topics use what is public below `publish`."""

    max_payload = MAX_MQTT_BYTES
    may_persist = True
    honours_wills = False

    __slots__ = (
        "_calls", "_downlinks", "_print", "_session", "_subscribed", "device", "download", "forms", "gateway", "id",
        "images", "parts", "payloads", "scope", "shared", "topics",
    )  # fmt: skip

    def __init__(self, shared: Shared, device: Device, print_: str, forms: Forms | None = None) -> None:
        self.scope = device.id
        self.id = new_id()
        """Names the session in metadata (`TB-S23`): client ids are one device's own."""
        self.forms = forms or shared.encodings.plain
        self.device = device
        self.topics = GATEWAY if device.is_gateway else DEVICE
        self.parts, self.payloads = shared.parts, shared.payloads
        self.shared, self._print = shared, print_
        self._session: Session | None = None
        self._subscribed: dict[str, Down] = {}
        self._downlinks = Downlinks(self)
        self.gateway = Gateway(self) if device.is_gateway else None
        self._calls: set[asyncio.Task[None]] = set()
        self.images: dict[tuple[Kind, int], Image] = {}
        """Of each download that goes on, by kind and number of the request."""
        self.download: asyncio.Task[None] | None = None
        """Ends when the last large answer has left."""

    def connected(self, session: Session) -> None:
        """The device has its CONNACK."""
        self._session = session
        logins = self.shared.sessions.setdefault(self.device.id, {})
        logins[self] = None
        if len(logins) > self.parts.settings.max_sessions:
            # Those that are gone without a word are the oldest, too.
            next(iter(logins)).kick("the device has too many sessions")
        self.parts.intake.came(self.device, DIALECT, MQTT)
        known = self.parts.auth.known(self._print)
        if known is None or isinstance(known, Unknown):
            # Something changed while it logged in.
            self.shared.doubt(self.device.id)

    def closed(self, reason: CloseReason) -> None:
        """The connection ended: nobody is left to be told anything. Answers to commands are still stored."""
        logins = self.shared.sessions.get(self.device.id, {})
        logins.pop(self, None)
        if not logins:
            self.shared.sessions.pop(self.device.id, None)
        self.parts.intake.went(self.device, DIALECT, MQTT, reason)
        self._session = None
        self._subscribed.clear()
        self._downlinks.stop()
        if self.gateway is not None:
            self.gateway.stop()
        for task in self._calls:
            task.cancel()

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> Verdict:
        """What a publication means. What cannot be read closes the connection, as with the vendor's server."""
        handle, numbers = self.topics.handler(topic)
        if handle is None:
            return Close(f"a device may not publish to {topic[:100]!r}")
        self.parts.intake.heard(self.device)
        if self.parts.limits.take(self.device.id):
            return Close("the device publishes too often", Reason.QUOTA_EXCEEDED)
        forms = self.shared.encodings.known(self.device)
        if forms is None:
            return Accepted(first=partial(self._publish_soon, topic, payload))
        self.forms = forms
        try:
            return handle(self, payload, numbers)
        except BadInput as error:
            return Close(f"{topic}: {error}", Reason.PAYLOAD_FORMAT_INVALID)

    async def _publish_soon(self, topic: str, payload: bytes) -> Sequence[Message] | Accepted:
        """The same where the device's product has to be read first."""
        try:
            self.forms = await self.shared.encodings.find(self.device)
        except RedisError as error:
            raise Refused("Redis does not answer") from error
        handle, numbers = self.topics.handler(topic)
        assert handle is not None  # it was found before
        try:
            verdict = handle(self, payload, numbers)
        except BadInput as error:
            raise BadInput(f"{topic}: {error}") from None
        if isinstance(verdict, Close):
            raise BadInput(verdict.reason)
        if isinstance(verdict, Drop):
            return Accepted(refused=verdict)
        return verdict if verdict.first is None else await verdict.first()

    # What handlers use

    @property
    def alive(self) -> bool:
        """Whether the connection is there."""
        return self._session is not None

    @property
    def unsent_bytes(self) -> int:
        """What it was sent and has not left yet."""
        return self._session.unsent_bytes if self._session is not None else 0

    @property
    def away_since_ms(self) -> int:
        """Since when the client of a resumed session was away; else 0."""
        return self._session.away_since_ms if self._session is not None else 0

    def send(self, topic: str, payload: bytes, acked: Callable[[], None] | None = None) -> bool:
        """Publish to the device at QoS 1 if it subscribed to the topic; whether it did."""
        return self._session is not None and self._session.send(topic, payload, 1, acked)

    def answer(self, topic: str, payload: bytes, acked: Callable[[], None] | None = None) -> bool:
        """The same for what the device has just asked for, which it gets without a subscription too."""
        return self._session is not None and self._session.send(topic, payload, 1, acked, asked=True)

    def work(self, work: Callable[[], Awaitable[None]]) -> Accepted:
        """Do what a publication asks for, then acknowledge it; done again later while Redis is away."""

        async def first() -> Sequence[Message]:
            try:
                await work()
            except RedisError as error:
                raise Refused("Redis does not answer") from error
            return ()

        return Accepted(first=first)

    def wait_for(self, waiting: Waiting, work: Coroutine[Any, Any, None]) -> Close | None:
        """Do `work` with an answer that may come late, and give it up when the connection ends. None: it began."""
        if len(self._calls) >= SESSION_MAX_ASKED:
            work.close()
            return _TOO_MANY
        waiting.__enter__()
        task = asyncio.create_task(work)
        # Not inside the task: one that is cancelled before it began runs nothing.
        task.add_done_callback(waiting.__exit__)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return None

    # What it subscribes to

    def may_subscribe(self, topic_filter: str) -> int:
        """QoS 1 at most for the device's own topics."""
        return SUBSCRIPTION_REFUSED if self.topics.subscription(topic_filter) is None else 1

    def subscribed(self, topic_filter: str, qos: int) -> None:
        """Begin to give what was subscribed to."""
        what = self.topics.subscription(topic_filter)
        assert what is not None  # it was granted
        self._subscribed[topic_filter] = what
        self._want(what)

    def unsubscribed(self, topic_filter: str) -> None:
        """What nobody takes is not listened for."""
        self._subscribed.pop(topic_filter, None)
        self._want(None)

    def _want(self, fresh: Down | None) -> None:
        wanted = frozenset(self._subscribed.values())
        self._downlinks.want(wanted, fresh, self.away_since_ms)
        if self.gateway is not None:
            self.gateway.want(wanted, fresh)

    # What changes

    async def catch_up(self) -> None:
        """Give what may have been missed while the bus was away."""
        await self._downlinks.catch_up()
        if self.gateway is not None:
            await self.gateway.catch_up()

    async def verify(self) -> None:
        """Log out if the login would not be accepted any more."""
        device = await self.parts.auth.find(self._print)
        if device is None or device.id != self.device.id or not device.enabled:
            self.kick("the credential was revoked")
        elif device.is_gateway != self.device.is_gateway:
            self.kick("the device became a gateway, or is none any more")
        else:
            self.device = device

    def kick(self, why: str) -> None:
        """End the session."""
        if self._session is not None:
            self._session.close(CloseReason.KICKED, why)
