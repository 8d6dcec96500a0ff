"""CloudThing's MQTT connector: who may log in, and what a publication to each topic means."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from api.auth import Unknown
from api.dialects.cloudthing.data import format_of_query
from api.dialects.cloudthing.deliveries import give_answer
from api.dialects.cloudthing.payloads import as_bytes
from api.dialects.cloudthing.service import DIALECT, CloudThing, print_of
from api.transports.mqtt.dialect import Accepted, Close, CloseReason, Drop, Peer, Refusal, Session
from api.transports.mqtt.packets import BAD_LOGIN, NOT_AUTHORISED, SUBSCRIPTION_REFUSED, Connect
from api.transports.mqtt.topics import topic_fault
from engine.errors import BadInput
from engine.replies import Waiting
from engine.stores.registry import Device

log = logging.getLogger("rulemill.cloudthing")

MAX_PAYLOAD_BYTES: Final = 256 * 1024
EVENT_TIMEOUT_S: Final = 300.0
"""How long an answer is waited for: nothing blocks meanwhile, and the chain's end without one ends it too."""
MAX_WAITING_EVENTS: Final = 10_000
"""Events of this process that may wait for an answer at a time; further ones are stored, and answered to nobody."""


class CloudThingMqtt:
    """Logs in with username `{tenant}:{deviceId}` and the device's token as password (CT-21)."""

    def __init__(self, service: CloudThing) -> None:
        self._service = service

    async def login(self, connect: Connect, peer: Peer) -> DeviceLogin | Refusal:
        """The device; code 4 for anybody else, 5 for a disabled one (CT-S13)."""
        service = self._service
        tenant, _, device_id = (connect.username or "").partition(":")
        if not await service.tenants.exists(tenant):
            return Refusal(BAD_LOGIN, f"no tenant {tenant!r}", unknown=True)
        try:
            print_ = print_of(device_id, (connect.password or b"").decode())
        except UnicodeDecodeError:
            return Refusal(BAD_LOGIN, "the token is not text")
        device = await service.auth.find(print_)
        if device is None or device.tenant != tenant:
            return Refusal(BAD_LOGIN, f"wrong token, or no device {device_id!r} of tenant {tenant!r}")
        if not device.enabled:
            return Refusal(NOT_AUTHORISED, f"device {device_id!r} is disabled")
        await service.products.find(device.tenant, device.product)
        return DeviceLogin(service, device, print_)


class DeviceLogin:
    """A device that is connected."""

    max_payload = MAX_PAYLOAD_BYTES
    may_persist = True
    honours_wills = False

    __slots__ = ("_detach", "_device", "_print", "_root", "_service", "_session", "scope")

    def __init__(self, service: CloudThing, device: Device, print_: str) -> None:
        self.scope = device.id
        self._service = service
        self._device = device
        self._print = print_
        self._root = f"v1/{device.external_id}/"
        self._session: Session | None = None
        self._detach: Callable[[], None] | None = None

    def connected(self, session: Session) -> None:
        """Keep the way back."""
        self._session = session
        self._service.logins.add(self)
        self._service.intake.came(self._device, DIALECT, "mqtt")

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> Accepted | Drop | Close:
        """Data, an event or an answer to a command (CT-22, CT-25, CT-S4); any other topic is not the device's."""
        known = self._service.auth.known(self._print)
        if isinstance(known, Unknown):
            self._service.recall(self._print)
        elif known is not None and self._holds(known):
            self._device = known
        else:
            return Close("the credentials hold no longer")
        device, root = self._device, self._root
        self._service.intake.heard(device)
        if not topic.startswith(root):
            return Close(f"topic {topic[:100]!r} is not of device {device.external_id}")
        name, _, query = topic[len(root) :].partition("?")
        if name == "data":
            return self._data(device, query, payload)
        channel, _, id = topic[len(root) :].partition("/")
        if id and "/" not in id:
            if channel == "events":
                return self._event(device, id, payload)
            if channel == "responses":
                return self._response(device, id, payload)
        return Close(f"a device cannot publish to {topic[:100]!r}")

    def may_subscribe(self, topic_filter: str) -> int:
        """QoS 1 for the device's commands and responses: one by its id, or all."""
        if not topic_filter.startswith(self._root):
            return SUBSCRIPTION_REFUSED
        channel, _, id = topic_filter[len(self._root) :].partition("/")
        return 1 if channel in ("commands", "responses") and id and "/" not in id else SUBSCRIPTION_REFUSED

    def subscribed(self, topic_filter: str, qos: int) -> None:
        """Deliver what is queued (CT-S9), and from now on what comes."""
        deliveries = self._service.deliveries
        if self._detach is None:
            self._detach = deliveries.attach(self._device, self)
        if topic_filter.startswith(f"{self._root}commands/"):
            deliveries.wake(self._device.id)

    def unsubscribed(self, topic_filter: str) -> None:
        """The session itself knows what it no longer wants."""

    def closed(self, reason: CloseReason) -> None:
        """Deliver no more."""
        self._service.intake.went(self._device, DIALECT, "mqtt", reason)
        self._session = None
        self._service.logins.remove(self)
        if self._detach is not None:
            self._detach()
            self._detach = None

    async def verify(self) -> None:
        """Close the connection unless the credentials still hold."""
        device = await self._service.auth.find(self._print)
        if self._session is not None and not self._holds(device):
            self._session.close(CloseReason.KICKED, "the credentials hold no longer")

    # What the deliveries call.

    def command(self, command_id: str, payload: bytes) -> bool:
        """Send a command, if the client subscribed to it."""
        return self._send("commands", command_id, payload)

    def answer(self, event_id: str, payload: bytes) -> bool:
        """Send the answer to an event, if the client subscribed to it."""
        return self._send("responses", event_id, payload)

    # Inside.

    def _send(self, channel: str, id: str, payload: bytes) -> bool:
        topic = f"{self._root}{channel}/{id}"
        return self._session is not None and not topic_fault(topic) and self._session.send(topic, payload, 1)

    def _holds(self, device: Device | None) -> bool:
        return device is not None and device.id == self.scope and device.enabled

    def _data(self, device: Device, query: str, payload: bytes) -> Accepted | Drop:
        try:
            messages = self._service.data(device, format_of_query(query), payload, "mqtt")
        except BadInput as error:
            return Drop(f"data of device {device.external_id}: {error}")
        return Accepted(messages, None if device.activated_ms else self._accepted)

    def _event(self, device: Device, event_id: str, payload: bytes) -> Accepted:
        service = self._service
        if len(service.replies.waiting) >= MAX_WAITING_EVENTS:
            log.warning("event %r of device %s: too many events wait for an answer", event_id, device.external_id)
            return Accepted([service.event(device, event_id, payload, "mqtt", "", "")], self._accepted)
        # Listen from now on: the answer may be there before the publication is acknowledged.
        waiting = service.replies.wait().__enter__()
        message = service.event(device, event_id, payload, "mqtt", "", waiting.to)
        service.spawn(_pass_on(service, device.id, event_id, waiting))
        return Accepted([message], self._accepted)

    def _response(self, device: Device, command_id: str, payload: bytes) -> Accepted:
        service = self._service

        def after() -> None:
            self._accepted()
            service.spawn(service.answer_soon(device, command_id, payload))

        return Accepted([service.command_response(device, command_id, payload, "mqtt")], after)

    def _accepted(self) -> None:
        self._service.accepted(self._device)


async def _pass_on(service: CloudThing, device_id: str, event_id: str, waiting: Waiting) -> None:
    """Wait for the answer to an event and give it to the device's sessions."""
    try:
        answer = await waiting.next(EVENT_TIMEOUT_S)
    finally:
        waiting.__exit__()
    if answer is None or answer.kind != "reply":
        return
    if answer.error:
        log.info("event %r of device %s was answered with an error: %s", event_id, device_id, answer.error)
    elif not give_answer(service.deliveries, device_id, event_id, as_bytes(answer.data).body):
        log.info("nobody is subscribed to the answer to event %r of device %s", event_id, device_id)
