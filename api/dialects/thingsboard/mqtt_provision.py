"""Provisioning over MQTT: who logs in as `provision` may ask for a credential, and do nothing else (`G-9` row 4)."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

import msgspec
from redis.exceptions import RedisError

from api.dialects.thingsboard.parts import Parts
from api.dialects.thingsboard.provision_request import Asked, read_request
from api.dialects.thingsboard.provisioning import provision
from api.dialects.thingsboard.settings import MAX_MQTT_BYTES, MQTT
from api.transports.mqtt.dialect import Accepted, Close, CloseReason, Peer, Refusal, Session
from api.transports.mqtt.packets import NOT_AUTHORISED, SUBSCRIPTION_REFUSED, Connect
from api.transports.mqtt.reasons import Reason
from engine.errors import BadInput, Refused
from engine.message import new_id

WORD: Final = "provision"
REQUEST: Final = "/provision/request"
RESPONSE: Final = "/provision/response"
LIFE_S: Final = 60.0
"""How long a session lasts, counted anew from each request: nobody has proved anything."""


def asks(connect: Connect) -> bool:
    """Whether a CONNECT is that of a device which wants to be provisioned."""
    return WORD in (connect.username, connect.client_id)


class ProvisioningMqtt:
    """The dialect of devices that have no credential yet."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def login(self, connect: Connect, peer: Peer) -> ProvisionLogin | Refusal:
        """Let in whoever says `provision`."""
        if not asks(connect):
            return Refusal(NOT_AUTHORISED, "not a provisioning login", unknown=True)
        return ProvisionLogin(self._parts)


class ProvisionLogin:
    """A session that may ask. Each has a scope of its own: many devices have the same client id at once."""

    max_payload = MAX_MQTT_BYTES
    may_persist = False
    honours_wills = False

    def __init__(self, parts: Parts) -> None:
        self.scope = f"{WORD}:{new_id()}"
        self._parts = parts
        self._session: Session | None = None
        self._end: asyncio.TimerHandle | None = None

    def connected(self, session: Session) -> None:
        """The device has its CONNACK."""
        self._session = session
        self._live_on()

    def closed(self, reason: CloseReason) -> None:
        """The connection ended; what was asked for is done all the same."""
        self._session = None
        if self._end is not None:
            self._end.cancel()

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> Accepted | Close:
        """A request; the answer is sent before the request is acknowledged."""
        if topic != REQUEST:
            return Close(f"a provisioning session may not publish to {topic[:100]!r}")
        try:
            asked = read_request(payload)
        except BadInput as error:
            return Close(f"{topic}: {error}", Reason.PAYLOAD_FORMAT_INVALID)
        self._live_on()
        return Accepted(first=partial(self._provision, asked))

    def may_subscribe(self, topic_filter: str) -> int:
        """The answer's topic only."""
        return 1 if topic_filter == RESPONSE else SUBSCRIPTION_REFUSED

    def subscribed(self, topic_filter: str, qos: int) -> None:
        """There is nothing to begin with."""

    def unsubscribed(self, topic_filter: str) -> None:
        """There is nothing to end."""

    async def _provision(self, asked: Asked) -> tuple[()]:
        try:
            answer = await provision(self._parts, asked, MQTT)
        except RedisError as error:
            raise Refused("storage does not answer") from error
        if self._session is not None:
            self._session.send(RESPONSE, msgspec.json.encode(answer), 1, asked=True)
        return ()

    def _live_on(self) -> None:
        if self._end is not None:
            self._end.cancel()
        self._end = asyncio.get_running_loop().call_later(LIFE_S, self._time_out)

    def _time_out(self) -> None:
        if self._session is not None:
            self._session.close(CloseReason.KICKED, f"a provisioning session lasts {LIFE_S:g} s")
