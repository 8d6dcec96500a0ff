"""MQTT packets to bytes, without any I/O. Level 5 adds its properties to the writers in `_WRITERS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

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


def encode(packet: Packet) -> bytes:
    """The packet's bytes. Raises ValueError where a field is longer than the protocol can say."""
    if isinstance(packet, Publish):
        return encode_publish(packet.topic, packet.payload, packet.qos, packet.packet_id, packet.retain, packet.dup)
    first, writer = _WRITERS[type(packet)]
    return _framed(first, writer(packet))


def encode_publish(
    topic: str, payload: bytes, qos: int = 0, packet_id: int = 0, retain: bool = False, dup: bool = False
) -> bytes:
    """A PUBLISH packet's bytes."""
    body = _text(topic)
    if qos:
        body += packet_id.to_bytes(2, "big")
    return _framed(0x30 | dup << 3 | qos << 1 | retain, body + payload)


def _framed(first: int, body: bytes) -> bytes:
    length = len(body)
    if length < 128:
        return bytes((first, length)) + body
    if length > MAX_REMAINING:
        raise ValueError(f"a packet of {length} bytes cannot be sent")
    head = bytearray((first,))
    while length > 127:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + body


def _blob(data: bytes) -> bytes:
    if len(data) > 65_535:
        raise ValueError(f"a field of {len(data)} bytes cannot be sent")
    return len(data).to_bytes(2, "big") + data


def _text(text: str) -> bytes:
    return _blob(text.encode())


def _connect_body(packet: Connect) -> bytes:
    will = packet.will
    flags = packet.clean << 1 | (packet.username is not None) << 7 | (packet.password is not None) << 6
    body = _text(LEVELS.get(packet.level, "MQTT")) + bytes((packet.level,))
    tail = _text(packet.client_id)
    if will is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
        tail += _text(will.topic) + _blob(will.payload)
    if packet.username is not None:
        tail += _text(packet.username)
    if packet.password is not None:
        tail += _blob(packet.password)
    return body + bytes((flags,)) + packet.keep_alive_s.to_bytes(2, "big") + tail


def _id_body(packet: Any) -> bytes:
    body: bytes = packet.packet_id.to_bytes(2, "big")
    return body


_WRITERS: Final[dict[type, tuple[int, Callable[[Any], bytes]]]] = {
    Connect: (0x10, _connect_body),
    Connack: (0x20, lambda packet: bytes((packet.session_present, packet.code))),
    Puback: (0x40, _id_body),
    Pubrec: (0x50, _id_body),
    Pubrel: (0x62, _id_body),
    Pubcomp: (0x70, _id_body),
    Subscribe: (
        0x82,
        lambda packet: _id_body(packet) + b"".join(_text(name) + bytes((qos,)) for name, qos in packet.filters),
    ),
    Suback: (0x90, lambda packet: _id_body(packet) + packet.codes),
    Unsubscribe: (0xA2, lambda packet: _id_body(packet) + b"".join(map(_text, packet.filters))),
    Unsuback: (0xB0, _id_body),
    Pingreq: (0xC0, lambda packet: b""),
    Pingresp: (0xD0, lambda packet: b""),
    Disconnect: (0xE0, lambda packet: b""),
}
