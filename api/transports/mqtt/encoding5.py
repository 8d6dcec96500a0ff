"""The packets of MQTT 5 that differ from those before, as bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from api.transports.mqtt.fields import short, text
from api.transports.mqtt.packets import (
    Auth,
    Connack,
    Disconnect,
    Puback,
    Pubcomp,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from api.transports.mqtt.properties import write_properties


def _answer(packet: Any) -> bytes:
    return short(packet.packet_id) + _ending(packet)


def _ending(packet: Any) -> bytes:
    """Reason and properties, in the shortest form that says them."""
    if packet.properties is not None:
        return bytes((packet.reason,)) + write_properties(packet.properties)
    return bytes((packet.reason,)) if packet.reason else b""


def _head(packet: Any) -> bytes:
    return short(packet.packet_id) + write_properties(packet.properties)


def options(packet: Subscribe) -> bytes:
    """The filters of a SUBSCRIBE, each with its options; below level 5 these are its QoS."""
    return b"".join(text(name) + bytes((said,)) for name, said in packet.filters)


WRITERS_5: Final[dict[type, tuple[int, Callable[[Any], bytes]]]] = {
    Connack: (
        0x20,
        lambda packet: bytes((packet.session_present, packet.code)) + write_properties(packet.properties),
    ),
    Puback: (0x40, _answer),
    Pubrec: (0x50, _answer),
    Pubrel: (0x62, _answer),
    Pubcomp: (0x70, _answer),
    Subscribe: (0x82, lambda packet: _head(packet) + options(packet)),
    Suback: (0x90, lambda packet: _head(packet) + packet.codes),
    Unsubscribe: (0xA2, lambda packet: _head(packet) + b"".join(map(text, packet.filters))),
    Unsuback: (0xB0, lambda packet: _head(packet) + packet.codes),
    Disconnect: (0xE0, _ending),
    Auth: (0xF0, _ending),
}
