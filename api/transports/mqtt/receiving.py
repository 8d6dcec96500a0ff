"""What a logged-in client sends, packet by packet: each has its place among the answers, or closes the connection."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from api.transports.mqtt.dialect import Accepted, Close, CloseReason, Drop, Login
from api.transports.mqtt.encoding import acknowledgement, encode
from api.transports.mqtt.farewell import said
from api.transports.mqtt.handshake import Terms
from api.transports.mqtt.incoming import Incoming
from api.transports.mqtt.outgoing import Outgoing
from api.transports.mqtt.packets import (
    PUBACK_HEAD,
    PUBCOMP_HEAD,
    PUBREC_HEAD,
    SUBSCRIPTION_REFUSED,
    Disconnect,
    Malformed,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from api.transports.mqtt.properties import stated
from api.transports.mqtt.reasons import Reason
from api.transports.mqtt.sessions import received_field, subscription_field
from api.transports.mqtt.settings import Counters, Settings

_log = logging.getLogger("rulemill.mqtt")

_PINGRESP: Final = encode(Pingresp())
_SHARED: Final = "$share/"


class Client(Protocol):
    """The connection that the packets came by."""

    client_id: str
    closing: CloseReason | None

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def close(self, reason: CloseReason, detail: str = "", *, abort: bool = False, code: int = 0) -> None:
        """End it."""

    def leaves(self, packet: Disconnect) -> None:
        """The client ends it."""


class Receiver:
    """Deals with the packets of one client. `received` are the ids of QoS 2 that its session still holds."""

    def __init__(
        self,
        client: Client,
        login: Login,
        terms: Terms,
        incoming: Incoming,
        outgoing: Outgoing,
        received: set[int],
        settings: Settings,
        counters: Counters,
    ) -> None:
        self._client = client
        self._login = login
        self._terms = terms
        self._five = terms.level == 5
        self._incoming = incoming
        self._outgoing = outgoing
        self._received = received
        self._settings = settings
        self._counters = counters

    def take(self, packets: Sequence[Packet]) -> None:
        """Deal with packets in their order; what is to be stored is then on its way."""
        held, client = self._incoming.held, self._client
        publish, acks, messages = self._login.publish, held.acks, held.messages
        count = twice = 0
        once = held.unacknowledged
        try:
            for packet in packets:
                if type(packet) is not Publish:
                    self._handle(packet)
                    if client.closing is not None:
                        break
                    continue
                qos = packet.qos
                count += 1
                if qos == 2 and packet.packet_id in self._received:
                    twice += 1
                    acks += acknowledgement(PUBREC_HEAD, packet.packet_id)
                    continue
                verdict = publish(packet.topic, packet.payload, qos, packet.retain)
                answer = b""
                if type(verdict) is Accepted:
                    if verdict.first is not None:
                        held.wait_for(verdict.first, partial(self._refused, packet))
                    messages += verdict.messages
                    if verdict.after is not None:
                        held.afters.append(verdict.after)
                    if verdict.refused is not None:
                        answer = self._refused(packet, verdict.refused)
                elif type(verdict) is Drop:
                    self._counters.dropped += 1
                    _log.info("MQTT client %r: a publication was dropped: %s", client.client_id, verdict.reason)
                    if self._five and qos:
                        acks += self._negative(packet, verdict)
                        twice += qos == 2
                        continue
                else:
                    assert type(verdict) is Close
                    client.close(CloseReason.FORBIDDEN, verdict.reason, code=verdict.code)
                    break
                held.bytes += len(packet.payload)
                if qos == 1:
                    acks += answer or acknowledgement(PUBACK_HEAD, packet.packet_id)
                elif qos:
                    twice += 1
                    self._received.add(packet.packet_id)
                    acks += acknowledgement(PUBREC_HEAD, packet.packet_id)
                    held.changes.append((received_field(packet.packet_id), b"1"))
                else:
                    held.unacknowledged += 1
        except Exception:
            _log.exception("MQTT client %r: a packet could not be dealt with", client.client_id)
            client.close(CloseReason.FAULT)
        held.packets += count
        held.pubacks += count - twice - (held.unacknowledged - once)
        self._counters.received += count
        self._incoming.flush()

    def misuse(self, packets: Sequence[Packet]) -> tuple[int, Malformed] | None:
        """Of a level 5 client: the first packet that uses what CONNACK said there is not, by its place.

        Also too many publications without an answer: those of `packets` count, whatever they are answered with.
        """
        unanswered = self._incoming.pubacks + len(self._received)
        for place, packet in enumerate(packets):
            if type(packet) is not Publish:
                continue
            unanswered += packet.qos == 1 or (packet.qos == 2 and packet.packet_id not in self._received)
            if unanswered > self._settings.max_unconfirmed:
                return place, Malformed("more publications than the receive maximum", Reason.RECEIVE_MAXIMUM_EXCEEDED)
            if packet.retain:
                return place, Malformed("a publication to be retained", Reason.RETAIN_NOT_SUPPORTED)
            if packet.properties is not None:
                if packet.properties.topic_alias is not None:
                    return place, Malformed("a topic alias", Reason.TOPIC_ALIAS_INVALID)
                if packet.properties.subscription_ids:
                    return place, Malformed("a publication with a subscription identifier", Reason.PROTOCOL_ERROR)
        return None

    def _handle(self, packet: Packet) -> None:
        handler = _HANDLERS.get(type(packet))
        if handler is None:
            self._client.close(CloseReason.PROTOCOL, f"an unexpected {type(packet).__name__.upper()}")
        else:
            handler(self, packet)

    def _refused(self, packet: Publish, part: Drop) -> bytes:
        """A part of a publication is not stored: the answer that says so, empty where the client would not take it."""
        self._counters.dropped += 1
        _log.warning("MQTT client %r: part of a publication was refused: %s", self._client.client_id, part.reason)
        return self._negative(packet, part) if self._five and packet.qos == 1 else b""

    def _negative(self, packet: Publish, verdict: Drop) -> bytes:
        """An acknowledgement that says why nothing came of a publication; at QoS 2 it ends there."""
        words = Properties(reason=said(verdict.reason)) if self._terms.reasons_in_words else None
        kind = Puback if packet.qos == 1 else Pubrec
        made = encode(kind(packet.packet_id, verdict.code, words), 5)
        if 0 < self._terms.packet_bytes < len(made):
            made = encode(kind(packet.packet_id, verdict.code), 5)
        return made

    def _on_puback(self, packet: Puback) -> None:
        taken = packet.reason < Reason.UNSPECIFIED
        if not taken:
            _log.info("MQTT client %r wanted none of a publication: code %#x", self._client.client_id, packet.reason)
        self._outgoing.acknowledged(packet.packet_id, taken=taken)

    def _on_pubrel(self, packet: Pubrel) -> None:
        # In its place among the answers: the id is free only when the session no longer holds it.
        held = self._incoming.held
        known = packet.packet_id in self._received
        if known:
            self._received.remove(packet.packet_id)
            held.changes.append((received_field(packet.packet_id), b""))
        if known or not self._five:
            held.acks += acknowledgement(PUBCOMP_HEAD, packet.packet_id)
        else:
            held.acks += encode(Pubcomp(packet.packet_id, Reason.PACKET_ID_NOT_FOUND), 5)
        held.packets += 1

    def _on_subscribe(self, packet: Subscribe) -> None:
        held, subscriptions = self._incoming.held, self._outgoing.subscriptions
        codes = bytearray()
        for topic_filter, options in packet.filters:
            # The other options of level 5 are about retained messages and about those of other clients.
            code = self._granted(topic_filter, options & 3, packet)
            codes.append(code if code < SUBSCRIPTION_REFUSED or self._five else SUBSCRIPTION_REFUSED)
            if code < SUBSCRIPTION_REFUSED:
                subscriptions.add(topic_filter, code)
                held.changes.append((subscription_field(topic_filter), b"%d" % code))
                held.afters.append(partial(self._called, self._login.subscribed, topic_filter, code))
        held.acks += encode(Suback(packet.packet_id, bytes(codes)), self._terms.level)
        held.packets += 1

    def _granted(self, topic_filter: str, asked: int, packet: Subscribe) -> int:
        """The QoS that a filter gets, or why it gets none."""
        if self._five and topic_filter.startswith(_SHARED):
            return Reason.SHARED_NOT_SUPPORTED
        if stated(packet.properties).subscription_ids:
            return Reason.SUBSCRIPTION_IDS_NOT_SUPPORTED
        if len(topic_filter) > self._settings.max_filter:
            return Reason.FILTER_INVALID
        subscriptions = self._outgoing.subscriptions
        if len(subscriptions) >= self._settings.max_subscriptions and topic_filter not in subscriptions:
            return Reason.QUOTA_EXCEEDED
        allowed = self._login.may_subscribe(topic_filter)
        return Reason.NOT_AUTHORISED if allowed == SUBSCRIPTION_REFUSED else min(asked, allowed, 1)

    def _on_unsubscribe(self, packet: Unsubscribe) -> None:
        held = self._incoming.held
        codes = bytearray()
        for topic_filter in packet.filters:
            known = self._outgoing.subscriptions.remove(topic_filter)
            codes.append(Reason.SUCCESS if known else Reason.NO_SUBSCRIPTION_EXISTED)
            if known:
                held.changes.append((subscription_field(topic_filter), b""))
                held.afters.append(partial(self._called, self._login.unsubscribed, topic_filter))
        held.acks += encode(Unsuback(packet.packet_id, bytes(codes)), self._terms.level)
        held.packets += 1

    def _on_pingreq(self, packet: Pingreq) -> None:
        self._client.write(_PINGRESP)

    def _on_disconnect(self, packet: Disconnect) -> None:
        self._client.leaves(packet)

    def _called(self, hook: Callable[..., None], *given: Any) -> None:
        if self._client.closing is None:
            called(self._client.client_id, hook, *given)


def called(client_id: str, hook: Callable[..., None], *given: Any) -> None:
    """Call a hook of a dialect, whose bugs must hurt nobody else."""
    try:
        hook(*given)
    except Exception:
        _log.exception("MQTT client %r: a hook of its dialect failed", client_id)


# What a client may send once it is connected, besides PUBLISH.
_HANDLERS: Final[dict[type, Callable[[Receiver, Any], None]]] = {
    Puback: Receiver._on_puback,
    Pubrel: Receiver._on_pubrel,
    Subscribe: Receiver._on_subscribe,
    Unsubscribe: Receiver._on_unsubscribe,
    Pingreq: Receiver._on_pingreq,
    Disconnect: Receiver._on_disconnect,
}
