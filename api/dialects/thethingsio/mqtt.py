"""Things over MQTT (`TTI-X8`): no login, since the token in the topic is the secret.

A client may speak for any thing whose token it knows, and activate things with codes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final

import msgspec
from redis.exceptions import RedisError

from api.auth import Unknown, token_print
from api.dialects.thethingsio.bodies import decoded, error_body
from api.dialects.thethingsio.dates import iso
from api.dialects.thethingsio.parts import Parts
from api.dialects.thethingsio.subscriptions import Subscriptions
from api.dialects.thethingsio.thing_calls import activate
from api.dialects.thethingsio.thing_values import thing_messages
from api.dialects.thethingsio.watching import ThingToken
from api.dialects.thethingsio.writing import How
from api.live_values import Told
from api.transports.http_exchange import HttpError
from api.transports.mqtt.dialect import Accepted, Close, CloseReason, Drop, Peer, Session
from api.transports.mqtt.packets import SUBSCRIPTION_REFUSED, Connect
from engine.errors import BadInput, Refused
from engine.message import Message
from engine.stores.registry import THING_TOKEN, Device

log = logging.getLogger("rulemill.thethingsio")

TRANSPORT: Final = "mqtt"
THINGS: Final = "v2/things/"
ACTIVATIONS: Final = "v2/activations/"
MAX_BYTES: Final = 64 * 1024
MOST_FOLLOWED: Final = 100
"""Topics of things that one connection may subscribe to."""


class ThingMqtt:
    """The dialect of clients without a user name and without a certificate (`G-9` row 6)."""

    def __init__(self, parts: Parts, subscriptions: Subscriptions) -> None:
        self._parts, self._subscriptions = parts, subscriptions

    async def login(self, connect: Connect, peer: Peer) -> ThingLogin:
        """Let anybody in: they can do nothing without a token or a code."""
        return ThingLogin(self._parts, self._subscriptions)


class ThingLogin:
    """A session. All share one scope, and none persists (`G-29`)."""

    scope = "thethingsio"
    max_payload = MAX_BYTES
    may_persist = False
    honours_wills = True

    def __init__(self, parts: Parts, subscriptions: Subscriptions) -> None:
        self._parts, self._subscriptions = parts, subscriptions
        self._session: Session | None = None
        self._wanted: set[str] = set()
        """Topics of things that were granted: those of one packet are, before any of them is followed."""
        self._followed: dict[str, ThingToken] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def connected(self, session: Session) -> None:
        """The client has its CONNACK."""
        self._session = session

    def closed(self, reason: CloseReason) -> None:
        """The connection ended."""
        self._session = None
        followed, self._followed = self._followed, {}
        for each in followed.values():
            self._spawn(each.end())

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> Accepted | Drop | Close:
        """`{"values": […]}` of a thing."""
        token = topic.removeprefix(THINGS)
        if token == topic or "/" in token:
            return Drop(f"a thing may not publish to {topic[:100]!r}")
        try:
            body = decoded(payload)
        except BadInput as error:
            return Drop(str(error))
        known = self._parts.auth.known(token_print(THING_TOKEN, token))
        if isinstance(known, Unknown):
            return Accepted(first=lambda: self._look_up(token, body))
        return self._messages(known, body)

    async def _look_up(self, token: str, body: Any) -> Accepted:
        try:
            device = await self._parts.auth.find(token_print(THING_TOKEN, token))
        except RedisError as error:
            raise Refused("storage does not answer") from error
        made = self._messages(device, body)
        return Accepted(refused=made) if isinstance(made, Drop) else made

    def _messages(self, device: Device | None, body: Any) -> Accepted | Drop:
        if device is None or not device.enabled:
            return Drop("Invalid thing token")
        try:
            messages: list[Message] = thing_messages(self._parts.intake, device, body, How(), TRANSPORT)
        except (BadInput, HttpError) as error:
            return Drop(str(error))
        return Accepted(messages)

    # What is heard

    def may_subscribe(self, topic_filter: str) -> int:
        """A thing's topic or a code's, spelled out: a wildcard would stand for somebody's secret."""
        token = topic_filter.removeprefix(THINGS)
        if token != topic_filter:
            fits = token != "" and "/" not in token
        else:
            code, _, rest = topic_filter.removeprefix(ACTIVATIONS).partition("/")
            fits = topic_filter.startswith(ACTIVATIONS) and code != "" and rest != ""
        if not fits or "+" in topic_filter or "#" in topic_filter:
            return SUBSCRIPTION_REFUSED
        if token != topic_filter:
            if topic_filter not in self._wanted and len(self._wanted) >= MOST_FOLLOWED:
                return SUBSCRIPTION_REFUSED
            self._wanted.add(topic_filter)
        return 1

    def subscribed(self, topic_filter: str, qos: int) -> None:
        """Follow the thing, or activate one."""
        if topic_filter.startswith(ACTIVATIONS):
            self._spawn(self._activate(topic_filter))
        elif topic_filter not in self._followed:
            self._spawn(self._follow(topic_filter))

    def unsubscribed(self, topic_filter: str) -> None:
        """Follow it no more."""
        self._wanted.discard(topic_filter)
        followed = self._followed.pop(topic_filter, None)
        if followed is not None:
            self._spawn(followed.end())

    async def _follow(self, topic: str) -> None:
        print_ = token_print(THING_TOKEN, topic.removeprefix(THINGS))
        device = await self._parts.auth.find(print_)
        if device is None or not device.enabled or self._session is None:
            return
        if topic not in self._wanted or topic in self._followed:
            return

        def heard(told: Told) -> None:
            date = iso(told.ts_ms)
            self._send(topic, [{"key": key, "value": value, "datetime": date} for key, value in told.values.items()])

        def ended(error: dict[str, Any]) -> None:
            self.unsubscribed(topic)

        self._followed[topic] = watch = ThingToken(self._parts, device, print_, heard, ended)
        await watch.begin(self._subscriptions)
        if self._followed.get(topic) is not watch:
            await watch.end()

    async def _activate(self, topic: str) -> None:
        code = topic.removeprefix(ACTIVATIONS).partition("/")[0]
        try:
            device, token = await activate(self._parts, code, TRANSPORT)
        except BadInput as error:
            self._send(topic, error_body(400, error.reason))
            return
        told = {"status": "created", "message": "thing activated", "thingToken": token, "thingId": device.id}
        self._send(topic, told)

    def _send(self, topic: str, body: Any) -> None:
        if self._session is not None:
            self._session.send(topic, msgspec.json.encode(body), 1)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The client must not wait for what will not come: it connects again, and asks again.
            log.warning("a thing's connection is closed: %s", error)
            if self._session is not None:
                self._session.close(CloseReason.KICKED, "its question cannot be answered now")
