"""An MQTT session of a ThingsBoard device: what it may publish and subscribe to, and what it is sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from redis.exceptions import RedisError

from api.auth import Unknown
from api.dialects.thingsboard.parts import Parts
from api.dialects.thingsboard.payload import Payloads, attributes_message, telemetry_messages, visible
from api.dialects.thingsboard.rpc import CommandFeed, call_message, own_answer, rendered
from api.dialects.thingsboard.settings import MAX_MQTT_BYTES, SESSION_MAX_ASKED
from api.dialects.thingsboard.topics import COMMANDS, NUMBERED, PLAIN, UPDATES, Down, Up, subscription
from api.live import Recheck
from api.transports.mqtt.dialect import Accepted, Close, CloseReason, Drop, Session
from api.transports.mqtt.packets import SUBSCRIPTION_REFUSED
from engine.errors import BadInput, Refused
from engine.message import new_id, now_ms
from engine.replies import Waiting
from engine.stores.commands import Pending
from engine.stores.registry import Device

log = logging.getLogger("rulemill.thingsboard")

TRANSPORT: Final = "mqtt"
ATTEMPTS: Final = 5
"""How often what a device asked for is tried while Redis is away, a second apart."""

_PASSED: Final = Accepted()
_TIMEOUT: Final = b'{"error":"timeout"}'


@dataclass(slots=True)
class Shared:
    """What all sessions of a process use."""

    parts: Parts
    doubt: Callable[[str], None]
    """Have the credentials of a device's sessions looked at again."""
    sessions: dict[str, set[DeviceLogin]] = field(default_factory=dict)
    """Of each device, those connected here."""
    payloads: Payloads = field(init=False)

    def __post_init__(self) -> None:
        self.payloads = Payloads(self.parts.settings)


class DeviceLogin:
    """A device's MQTT session."""

    max_payload = MAX_MQTT_BYTES
    may_persist = True
    honours_wills = False

    __slots__ = (
        "_asked", "_calls", "_device", "_feed", "_feeding", "_parts", "_print", "_session", "_shared", "_subscribed",
        "_unlisten", "_updates_since_ms", "_updating", "scope",
    )  # fmt: skip

    def __init__(self, shared: Shared, device: Device, print_: str) -> None:
        self.scope = device.id
        self._shared, self._parts = shared, shared.parts
        self._device, self._print = device, print_
        self._session: Session | None = None
        self._asked: set[asyncio.Task[None]] = set()
        self._subscribed: dict[str, Down] = {}
        self._feed = CommandFeed(shared.parts.commands, device, self._send_command)
        self._feeding = Recheck("commands of an MQTT device", self._feed.catch_up)
        self._calls: set[asyncio.Task[None]] = set()
        self._unlisten: Callable[[], None] | None = None
        self._updates_since_ms = 0
        self._updating = Recheck("attributes of an MQTT device", self.catch_up)

    def connected(self, session: Session) -> None:
        """The device has its CONNACK."""
        self._session = session
        self._shared.sessions.setdefault(self._device.id, set()).add(self)
        known = self._parts.auth.known(self._print)
        if known is None or isinstance(known, Unknown):
            # Something changed while it logged in.
            self._shared.doubt(self._device.id)

    def closed(self, reason: CloseReason) -> None:
        """The connection ended: nobody is left to be told anything. Answers to commands are still stored."""
        logins = self._shared.sessions.get(self._device.id, set())
        logins.discard(self)
        if not logins:
            self._shared.sessions.pop(self._device.id, None)
        self._session = None
        self._subscribed.clear()
        self._listen()
        self._feeding.cancel()
        self._updating.cancel()
        for task in self._calls:
            task.cancel()

    # What it publishes

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> Accepted | Drop | Close:
        """What a publication means. What cannot be read closes the connection, as with the vendor's server."""
        try:
            what = PLAIN.get(topic)
            if what is Up.TELEMETRY:
                readings = self._shared.payloads.telemetry(payload)
                if not readings:
                    return _PASSED
                return Accepted(telemetry_messages(self._parts.intake, self._device, readings, TRANSPORT))
            if what is Up.ATTRIBUTES:
                values = self._shared.payloads.attributes(payload)
                if not values:
                    return _PASSED
                return Accepted([attributes_message(self._parts.intake, self._device, values, TRANSPORT)])
            return self._numbered(topic, payload)
        except BadInput as error:
            return Close(f"{topic}: {error}")

    def _numbered(self, topic: str, payload: bytes) -> Accepted | Close:
        head, _, last = topic.rpartition("/")
        kind = NUMBERED.get(head)
        if kind is None:
            return Close(f"a device may not publish to {topic!r}")
        if not (last.isascii() and last.isdecimal() and len(last) <= 18):
            raise BadInput(f"the topic does not end with a number: {last[:40]!r}")
        id = int(last)
        if len(self._asked) >= SESSION_MAX_ASKED:
            return Close(f"more than {SESSION_MAX_ASKED} questions without an answer")
        if kind.what is Up.CALL:
            return self._call(id, self._shared.payloads.call(payload), f"{kind.answer}{id}")
        if kind.what is Up.ANSWER:
            self._spawn(self._answer(id, self._shared.payloads.answer(payload)))
        else:
            client, shared = self._shared.payloads.wanted(payload)
            self._spawn(self._tell_attributes(client, shared, f"{kind.answer}{id}"))
        return _PASSED

    def _call(self, id: int, call: dict[str, Any], answer_topic: str) -> Accepted:
        own = own_answer(call)
        if own is not None:
            self._send(answer_topic, msgspec.json.encode(own))
            return _PASSED
        waiting = self._parts.replies.wait()
        message = call_message(
            self._parts.intake, self._device, call, TRANSPORT,
            request=id, session=self._session_id(), reply_to=waiting.to,
        )  # fmt: skip
        waiting.__enter__()
        task = self._spawn(self._tell_answer(waiting, answer_topic))
        # Not inside the task: one that is cancelled before it began runs nothing.
        task.add_done_callback(waiting.__exit__)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return Accepted([message])

    def _session_id(self) -> str:
        return self._session.client_id if self._session is not None else new_id()

    async def _tell_answer(self, waiting: Waiting, topic: str) -> None:
        answer = await waiting.next(self._parts.settings.rpc_s)
        self._send(topic, _TIMEOUT if answer is None else rendered(answer))

    async def _tell_attributes(self, client: list[str] | None, shared: list[str] | None, topic: str) -> None:
        device = self._device
        found = await _patiently(lambda: self._parts.attributes.read(device.tenant, device.id))
        self._send(topic, msgspec.json.encode(visible(found, client, shared)))

    async def _answer(self, id: int, body: Any) -> None:
        device = self._device
        await _patiently(lambda: self._parts.commands.answer(device.tenant, device.id, id, body))

    # What it subscribes to

    def may_subscribe(self, topic_filter: str) -> int:
        """QoS 1 at most for the device's own topics."""
        return SUBSCRIPTION_REFUSED if subscription(topic_filter) is None else 1

    def subscribed(self, topic_filter: str, qos: int) -> None:
        """Commands that stand in the queue come at once."""
        what = subscription(topic_filter)
        assert what is not None  # it was granted
        fresh = what not in self._subscribed.values()
        self._subscribed[topic_filter] = what
        self._listen()
        if what is Down.COMMANDS:
            self._feeding.ask()
        elif what is Down.UPDATES and fresh:
            away_ms = self._session.away_since_ms if self._session is not None else 0
            self._updates_since_ms = away_ms or now_ms()
            if away_ms:
                # G-11: what changed while the client of a persistent session was away.
                self._updating.ask()

    def unsubscribed(self, topic_filter: str) -> None:
        """What nobody takes is not listened for."""
        self._subscribed.pop(topic_filter, None)
        self._listen()

    def _wants(self, what: Down) -> bool:
        return what in self._subscribed.values()

    def _listen(self) -> None:
        wanted = self._wants(Down.COMMANDS) or self._wants(Down.UPDATES)
        if wanted and self._unlisten is None:
            self._unlisten = self._parts.live.listen(self._device.id, self._heard)
        elif not wanted and self._unlisten is not None:
            self._unlisten()
            self._unlisten = None

    def _heard(self, kind: str, body: Any) -> None:
        if kind == "command":
            if self._wants(Down.COMMANDS):
                self._feeding.ask()
        elif self._wants(Down.UPDATES):
            self._send_update({"deleted": body} if kind == "attributes_deleted" else body)

    # What it is sent

    def _send(self, topic: str, payload: bytes) -> bool:
        return self._session is not None and self._session.send(topic, payload, 1)

    def _send_command(self, entry: Pending) -> bool:
        payload = msgspec.json.encode({"method": entry.command.name, "params": entry.command.payload})
        return any(self._send(f"{topic}{entry.id}", payload) for topic in COMMANDS)

    def _send_update(self, update: dict[str, Any]) -> None:
        payload = msgspec.json.encode(update)
        for topic in UPDATES:
            self._send(topic, payload)

    async def catch_up(self) -> None:
        """Give what may have been missed while the bus was away."""
        if self._wants(Down.COMMANDS):
            self._feeding.ask()
        if self._wants(Down.UPDATES):
            shared = (await self._parts.attributes.read(self._device.tenant, self._device.id))["SHARED"]
            since = {key: each.value for key, each in shared.items() if each.ts_ms >= self._updates_since_ms}
            if since:
                self._send_update(since)

    async def verify(self) -> None:
        """Log out if the login would not be accepted any more."""
        device = await self._parts.auth.find(self._print)
        if device is not None and device.id == self._device.id and device.enabled:
            self._device = device
        elif self._session is not None:
            self._session.close(CloseReason.KICKED, "the credential was revoked")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._asked.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._asked.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        # The device must not wait for what will not come: it asks again when it is back.
        log.warning("MQTT device %s is logged out: %s", self._device.id, task.exception())
        if self._session is not None:
            self._session.close(CloseReason.KICKED, "its question cannot be answered now")


async def _patiently(call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """What the call gives, tried again while Redis is away."""
    for _ in range(ATTEMPTS - 1):
        try:
            return await call()
        except (RedisError, Refused) as error:
            log.warning("an MQTT device waits for Redis: %s", error)
        await asyncio.sleep(1.0)
    return await call()
