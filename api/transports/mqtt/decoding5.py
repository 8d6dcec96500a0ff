"""The packets of MQTT 5 that differ from those before: what follows their fields are reason codes and properties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from api.transports.mqtt import properties as where
from api.transports.mqtt.fields import Fields
from api.transports.mqtt.packets import (
    Auth,
    Connack,
    Disconnect,
    Malformed,
    Packet,
    Pingreq,
    Pingresp,
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
from api.transports.mqtt.properties import read_properties, stated
from api.transports.mqtt.reasons import ACKNOWLEDGED, AUTHENTICATED, DISCONNECTED, RELEASED, Reason
from api.transports.mqtt.topics import topic_fault


def read_publish_5(first: int, fields: Fields, max_payload: int) -> Publish:
    """A PUBLISH with properties; the QoS was looked at. An alias may stand for the topic."""
    qos = first >> 1 & 3
    topic, packet_id = fields.text(), fields.packet_id() if qos else 0
    properties, payload = read_properties(fields, where.PUBLISH), fields.rest()
    if topic_fault(topic) and (topic or stated(properties).topic_alias is None):
        raise Malformed(f"PUBLISH to a topic that {topic_fault(topic)}", Reason.PROTOCOL_ERROR)
    if len(payload) > max_payload:
        raise too_long(len(payload), max_payload)
    return Publish(topic, payload, qos, packet_id, first & 1 == 1, first & 8 == 8, properties)


def too_long(size: int, limit: int) -> Malformed:
    """What is wrong with a payload over the limit."""
    return Malformed(f"a payload of {size} bytes is over the limit of {limit}", Reason.PACKET_TOO_LARGE)


def session_and_code(fields: Fields) -> tuple[bool, int]:
    """What a CONNACK says at every level."""
    flags, code = fields.raw(2)
    if flags > 1:
        raise Malformed("CONNACK with its reserved flags set")
    return flags == 1, code


def _read_connack(fields: Fields) -> Connack:
    return Connack(*session_and_code(fields), read_properties(fields, where.CONNACK))


def _answer(packet: Callable[..., Packet], kind: int, codes: frozenset[Reason]) -> Callable[[Fields], Packet]:
    """A reader of an acknowledgement: an id, and unless they mean nothing a reason and properties."""

    def read(fields: Fields) -> Packet:
        packet_id = fields.packet_id()
        if not fields.more():
            return packet(packet_id)
        reason = _reason(fields, kind, codes)
        return packet(packet_id, reason, read_properties(fields, kind) if fields.more() else None)

    return read


def _ending(packet: Callable[..., Packet], kind: int, codes: frozenset[Reason]) -> Callable[[Fields], Packet]:
    """A reader of a packet that is a reason and properties, or nothing at all."""

    def read(fields: Fields) -> Packet:
        if not fields.more():
            return packet()
        reason = _reason(fields, kind, codes)
        return packet(reason, read_properties(fields, kind) if fields.more() else None)

    return read


def _reason(fields: Fields, kind: int, codes: frozenset[Reason]) -> int:
    code = fields.byte()
    if code not in codes:
        raise Malformed(f"reason code {code:#04x} in a packet of type {kind}")
    return code


def _read_subscribe(fields: Fields) -> Subscribe:
    packet_id, properties = fields.packet_id(), read_properties(fields, where.SUBSCRIBE)
    if len(stated(properties).subscription_ids) > 1:
        raise Malformed("SUBSCRIBE with more than one subscription identifier", Reason.PROTOCOL_ERROR)
    return Subscribe(packet_id, fields.every(_read_option), properties)


def _read_option(fields: Fields) -> tuple[str, int]:
    topic_filter, options = fields.filter(), fields.byte()
    if options & 0xC0 or options & 3 == 3 or options & 0x30 == 0x30:
        raise Malformed(f"SUBSCRIBE with options {options:#04x}")
    if options & 4 and topic_filter.startswith("$share/"):
        raise Malformed("a shared subscription with No Local", Reason.PROTOCOL_ERROR)
    return topic_filter, options


def _read_suback(fields: Fields) -> Suback:
    packet_id, properties = fields.packet_id(), read_properties(fields, where.SUBACK)
    return Suback(packet_id, fields.rest(), properties)


def _read_unsubscribe(fields: Fields) -> Unsubscribe:
    packet_id, properties = fields.packet_id(), read_properties(fields, where.UNSUBSCRIBE)
    return Unsubscribe(packet_id, fields.every(Fields.filter), properties)


def _read_unsuback(fields: Fields) -> Unsuback:
    packet_id, properties = fields.packet_id(), read_properties(fields, where.UNSUBACK)
    return Unsuback(packet_id, fields.rest(), properties)


def _bare(packet: Callable[[], Packet]) -> Callable[[Fields], Any]:
    return lambda fields: packet()


READERS_5: Final[dict[int, tuple[int, Callable[[Fields], Packet]]]] = {
    2: (0, _read_connack),
    4: (0, _answer(Puback, where.PUBACK, ACKNOWLEDGED)),
    5: (0, _answer(Pubrec, where.PUBREC, ACKNOWLEDGED)),
    6: (2, _answer(Pubrel, where.PUBREL, RELEASED)),
    7: (0, _answer(Pubcomp, where.PUBCOMP, RELEASED)),
    8: (2, _read_subscribe),
    9: (0, _read_suback),
    10: (2, _read_unsubscribe),
    11: (0, _read_unsuback),
    12: (0, _bare(Pingreq)),
    13: (0, _bare(Pingresp)),
    14: (0, _ending(Disconnect, where.DISCONNECT, DISCONNECTED)),
    15: (0, _ending(Auth, where.AUTH, AUTHENTICATED)),
}
"""Packet type -> the flags it must have, its reader. CONNECT says its own level, PUBLISH is read by `decode`."""
