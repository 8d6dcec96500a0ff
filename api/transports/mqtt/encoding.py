"""MQTT packets to bytes, without any I/O; those of level 5 in `encoding5`."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, Final

from api.transports.mqtt.encoding5 import WRITERS_5, options
from api.transports.mqtt.fields import blob, short, text, varint
from api.transports.mqtt.packets import (
    LEVELS,
    MAX_REMAINING,
    Connack,
    Connect,
    Disconnect,
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
from api.transports.mqtt.properties import write_properties

acknowledgement: Final = Struct(">HH").pack
"""`acknowledgement(PUBACK_HEAD, packet_id)`: one that means success, at any level."""
NO_PROPERTIES: Final = b"\0"
"""Of a PUBLISH at level 5 that says nothing besides its fields."""


def encode(packet: Packet, level: int = 4) -> bytes:
    """The packet's bytes at a connection of this level (a CONNECT says its own).

    Raises ValueError where a field is longer than the protocol can say.
    """
    if isinstance(packet, Publish):
        properties = write_properties(packet.properties) if level == 5 else b""
        return encode_publish(
            packet.topic, packet.payload, packet.qos, packet.packet_id, packet.retain, packet.dup, properties
        )
    first, writer = (WRITERS_5.get(type(packet)) if level == 5 else None) or _WRITERS[type(packet)]
    return _framed(first, writer(packet))


def encode_publish(
    topic: str,
    payload: bytes,
    qos: int = 0,
    packet_id: int = 0,
    retain: bool = False,
    dup: bool = False,
    properties: bytes = b"",
) -> bytes:
    """A PUBLISH packet's bytes; `properties` are those of level 5, `NO_PROPERTIES` where there are none."""
    body = text(topic)
    if qos:
        body += short(packet_id)
    return _framed(0x30 | dup << 3 | qos << 1 | retain, body + properties + payload)


def _framed(first: int, body: bytes) -> bytes:
    length = len(body)
    if length < 128:
        return bytes((first, length)) + body
    if length > MAX_REMAINING:
        raise ValueError(f"a packet of {length} bytes cannot be sent")
    return bytes((first,)) + varint(length) + body


def _connect_body(packet: Connect) -> bytes:
    will = packet.will
    flags = packet.clean << 1 | (packet.username is not None) << 7 | (packet.password is not None) << 6
    five = packet.level == 5
    body = text(LEVELS.get(packet.level, "MQTT")) + bytes((packet.level,))
    tail = (write_properties(packet.properties) if five else b"") + text(packet.client_id)
    if will is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
        tail += (write_properties(will.properties) if five else b"") + text(will.topic) + blob(will.payload)
    if packet.username is not None:
        tail += text(packet.username)
    if packet.password is not None:
        tail += blob(packet.password)
    return body + bytes((flags,)) + short(packet.keep_alive_s) + tail


def _id_body(packet: Any) -> bytes:
    return short(packet.packet_id)


_WRITERS: Final[dict[type, tuple[int, Callable[[Any], bytes]]]] = {
    Connect: (0x10, _connect_body),
    Connack: (0x20, lambda packet: bytes((packet.session_present, packet.code))),
    Puback: (0x40, _id_body),
    Pubrec: (0x50, _id_body),
    Pubrel: (0x62, _id_body),
    Pubcomp: (0x70, _id_body),
    Subscribe: (0x82, lambda packet: _id_body(packet) + options(packet)),
    Suback: (0x90, lambda packet: _id_body(packet) + packet.codes),
    Unsubscribe: (0xA2, lambda packet: _id_body(packet) + b"".join(map(text, packet.filters))),
    Unsuback: (0xB0, _id_body),
    Pingreq: (0xC0, lambda packet: b""),
    Pingresp: (0xD0, lambda packet: b""),
    Disconnect: (0xE0, lambda packet: b""),
}
