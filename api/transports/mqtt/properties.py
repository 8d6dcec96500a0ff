"""Properties of MQTT 5 packets: which there are, where each may stand, how they are read and written (its 2.2.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from api.transports.mqtt.fields import Fields, blob, long, short, text, varint
from api.transports.mqtt.packets import Malformed, Properties
from api.transports.mqtt.reasons import Reason
from api.transports.mqtt.topics import topic_fault

WILL: Final = 0
"""Stands for a will's own properties among the packet types."""
CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = range(1, 12)
DISCONNECT, AUTH = 14, 15


class Kind(NamedTuple):
    """How a value is read and written."""

    read: Callable[[Fields], Any]
    write: Callable[[Any], bytes]


class Property(NamedTuple):
    """A field of `Properties`, and the packets it may stand in. `many`: more than once, in order."""

    field: str
    kind: Kind
    packets: frozenset[int]
    many: bool = False


def _flag(fields: Fields) -> bool:
    got = fields.byte()
    if got > 1:
        raise Malformed(f"a property is {got} and may be 0 or 1", Reason.PROTOCOL_ERROR)
    return got == 1


def _above_0(read: Callable[[Fields], int]) -> Callable[[Fields], int]:
    def checked(fields: Fields) -> int:
        got = read(fields)
        if not got:
            raise Malformed("a property is 0 and may not be", Reason.PROTOCOL_ERROR)
        return got

    return checked


def _topic(fields: Fields) -> str:
    got = fields.text()
    if topic_fault(got):
        raise Malformed(f"a response topic that {topic_fault(got)}", Reason.PROTOCOL_ERROR)
    return got


FLAG: Final = Kind(_flag, lambda value: bytes((value,)))
SHORT: Final = Kind(Fields.short, short)
COUNT: Final = Kind(_above_0(Fields.short), short)
LONG: Final = Kind(Fields.long, long)
SIZE: Final = Kind(_above_0(Fields.long), long)
VARINT: Final = Kind(_above_0(Fields.varint), varint)
TEXT: Final = Kind(Fields.text, text)
TOPIC: Final = Kind(_topic, text)
BLOB: Final = Kind(Fields.blob, blob)
PAIR: Final = Kind(lambda fields: (fields.text(), fields.text()), lambda pair: text(pair[0]) + text(pair[1]))

_MESSAGE: Final = frozenset({PUBLISH, WILL})
_ANSWERS: Final = frozenset({CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH})
_EVERY: Final = _ANSWERS | _MESSAGE | {CONNECT, SUBSCRIBE, UNSUBSCRIBE}

PROPERTIES: Final[dict[int, Property]] = {
    0x01: Property("payload_is_text", FLAG, _MESSAGE),
    0x02: Property("message_expiry_s", LONG, _MESSAGE),
    0x03: Property("content_type", TEXT, _MESSAGE),
    0x08: Property("response_topic", TOPIC, _MESSAGE),
    0x09: Property("correlation_data", BLOB, _MESSAGE),
    0x0B: Property("subscription_ids", VARINT, frozenset({PUBLISH, SUBSCRIBE}), many=True),
    0x11: Property("session_expiry_s", LONG, frozenset({CONNECT, CONNACK, DISCONNECT})),
    0x12: Property("assigned_client_id", TEXT, frozenset({CONNACK})),
    0x13: Property("server_keep_alive_s", SHORT, frozenset({CONNACK})),
    0x15: Property("authentication_method", TEXT, frozenset({CONNECT, CONNACK, AUTH})),
    0x16: Property("authentication_data", BLOB, frozenset({CONNECT, CONNACK, AUTH})),
    0x17: Property("wants_problem_information", FLAG, frozenset({CONNECT})),
    0x18: Property("will_delay_s", LONG, frozenset({WILL})),
    0x19: Property("wants_response_information", FLAG, frozenset({CONNECT})),
    0x1A: Property("response_information", TEXT, frozenset({CONNACK})),
    0x1C: Property("server_reference", TEXT, frozenset({CONNACK, DISCONNECT})),
    0x1F: Property("reason", TEXT, _ANSWERS),
    0x21: Property("receive_maximum", COUNT, frozenset({CONNECT, CONNACK})),
    0x22: Property("topic_alias_maximum", SHORT, frozenset({CONNECT, CONNACK})),
    0x23: Property("topic_alias", SHORT, frozenset({PUBLISH})),
    0x24: Property("maximum_qos", FLAG, frozenset({CONNACK})),
    0x25: Property("retain_available", FLAG, frozenset({CONNACK})),
    0x26: Property("user", PAIR, _EVERY, many=True),
    0x27: Property("maximum_packet_bytes", SIZE, frozenset({CONNECT, CONNACK})),
    0x28: Property("wildcards_available", FLAG, frozenset({CONNACK})),
    0x29: Property("subscription_ids_available", FLAG, frozenset({CONNACK})),
    0x2A: Property("shared_available", FLAG, frozenset({CONNACK})),
}


def read_properties(fields: Fields, packet: int) -> Properties | None:
    """The properties of a packet of this type, None where there are none.

    Malformed with `Reason.MALFORMED` for one that is unknown or belongs to other packets, and with
    `Reason.PROTOCOL_ERROR` for one that stands there twice or has a value it may not have.
    """
    length = fields.varint()
    if not length:
        return None
    inside = Fields(fields.raw(length))
    found: dict[str, Any] = {}
    while inside.more():
        id = inside.varint()
        known = PROPERTIES.get(id)
        if known is None or packet not in known.packets:
            raise Malformed(f"property {id:#04x} in a packet of type {packet}")
        value = known.kind.read(inside)
        if known.many:
            found[known.field] = (*found.get(known.field, ()), value)
        elif known.field in found:
            raise Malformed(f"property {id:#04x} ({known.field}) is there twice", Reason.PROTOCOL_ERROR)
        else:
            found[known.field] = value
    return Properties(**found)


def write_properties(properties: Properties | None) -> bytes:
    """Their bytes, length first."""
    if properties is None:
        return b"\0"
    body = b""
    for id, known in PROPERTIES.items():
        value = getattr(properties, known.field)
        if known.many:
            body += b"".join(bytes((id,)) + known.kind.write(each) for each in value)
        elif value is not None:
            body += bytes((id,)) + known.kind.write(value)
    return varint(len(body)) + body


def stated(properties: Properties | None) -> Properties:
    """The properties, or those of a packet that has none."""
    return properties if properties is not None else _NONE


_NONE: Final = Properties()
