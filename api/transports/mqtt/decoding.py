"""Bytes to MQTT packets, without any I/O.

`decode` reads every complete packet of a buffer in one pass; what is not whole yet is left for the next call. All that
differs between protocol levels stands in the tables of readers (that of level 5 in `decoding5`) and in two lines of the
PUBLISH branch of `decode`: one without properties is the same at every level, but for a byte. A CONNECT of a level not
in `LEVELS` is still recognised, so that it can be answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from api.transports.mqtt.decoding5 import READERS_5, read_connect_5, read_publish_5, too_long
from api.transports.mqtt.fields import Fields
from api.transports.mqtt.packets import (
    LEVELS,
    Connack,
    Connect,
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
    Will,
)
from api.transports.mqtt.reasons import Reason
from api.transports.mqtt.topics import topic_fault


class Decoded(NamedTuple):
    """What a buffer held: whole packets, how many bytes they took, the length the rest needs to be worth another look.

    With `error` set, the packets before it are good and nothing after it can be read.
    """

    packets: list[Packet]
    consumed: int
    needed: int
    error: Malformed | None


def decode(buffer: bytes, max_payload: int, at_most: int = 0, level: int = 4) -> Decoded:
    """Read the packets that are whole; never raises, whatever the bytes.

    `max_payload` bounds the payload of a PUBLISH and, with room for a topic, every other packet: a longer one is an
    error as soon as its length is known. `at_most` stops after so many packets (0: no bound). `level` is that of the
    connection; a CONNECT says its own.
    """
    packets: list[Packet] = []
    append = packets.append
    max_length = max_payload + 65_539
    five = level == 5
    readers = READERS_5 if five else _READERS
    at, end, needed = 0, len(buffer), 2
    error = None
    try:
        while end - at >= 2:
            first = buffer[at]
            length = buffer[at + 1]
            start = at + 2
            if length > 127:
                length, start = _length(buffer, at + 1)
                if not start:
                    needed = end - at + 1
                    break
            if length > max_length:
                raise Malformed(f"a packet of {length} bytes is over the limit", Reason.PACKET_TOO_LARGE)
            stop = start + length
            if stop > end:
                if first < 0x10 or (first >= 0xF0 and not five):
                    raise Malformed(f"packet type {first >> 4}")
                needed = stop - at
                break
            if first & 0xF0 == 0x30:
                # Inline, because every inbound message passes here.
                qos = first >> 1 & 3
                body = start + 2
                if length < 2:
                    raise Malformed("PUBLISH without a topic")
                topic_end = body + (buffer[start] << 8 | buffer[start + 1])
                packet_id = 0
                payload_at = topic_end
                if qos:
                    payload_at += 2
                    if payload_at > stop or qos == 3:
                        raise Malformed("PUBLISH with QoS 3" if qos == 3 else "PUBLISH is shorter than its fields")
                    packet_id = buffer[topic_end] << 8 | buffer[topic_end + 1]
                    if not packet_id:
                        raise Malformed("PUBLISH with packet id 0")
                elif topic_end > stop:
                    raise Malformed("PUBLISH is shorter than its topic")
                elif first & 8:
                    raise Malformed("PUBLISH with DUP at QoS 0")
                if five and (payload_at >= stop or buffer[payload_at]):
                    append(read_publish_5(first, Fields(buffer[start:stop]), max_payload))
                else:
                    if five:
                        payload_at += 1
                    topic = buffer[body:topic_end].decode()
                    if not topic or "\0" in topic or "+" in topic or "#" in topic:
                        raise Malformed(f"PUBLISH to a topic that {topic_fault(topic)}", Reason.PROTOCOL_ERROR)
                    if stop - payload_at > max_payload:
                        raise too_long(stop - payload_at, max_payload)
                    append(Publish(topic, buffer[payload_at:stop], qos, packet_id, first & 1 == 1, first & 8 == 8))
            else:
                append(_read(first, buffer[start:stop], readers))
            at = stop
            if at_most and len(packets) >= at_most:
                break
    except Malformed as fault:
        error = fault
    except UnicodeDecodeError:
        error = Malformed("text that is not UTF-8")
    return Decoded(packets, at, needed, error)


def _length(buffer: bytes, at: int) -> tuple[int, int]:
    """The remaining length that starts at `at`, and where it ends; (0, 0) when it is not whole."""
    length = shift = 0
    for i in range(at, min(at + 4, len(buffer))):
        length |= (buffer[i] & 0x7F) << shift
        if buffer[i] < 0x80:
            return length, i + 1
        shift += 7
    if len(buffer) - at >= 4:
        raise Malformed("a remaining length of more than four bytes")
    return 0, 0


def _read(first: int, body: bytes, readers: Mapping[int, tuple[int, Callable[[Fields], Packet]]]) -> Packet:
    reader = _CONNECT if first >> 4 == 1 else readers.get(first >> 4)
    if reader is None:
        raise Malformed(f"packet type {first >> 4}")
    flags, read = reader
    if first & 15 != flags:
        raise Malformed(f"packet type {first >> 4} with flags {first & 15}")
    fields = Fields(body)
    packet = read(fields)
    if fields.more() and not (isinstance(packet, Connect) and packet.level not in LEVELS):
        raise Malformed(f"{type(packet).__name__.upper()} is longer than its fields")
    return packet


def _read_connect(fields: Fields) -> Connect:
    name, level = fields.text(), fields.byte()
    if name not in LEVELS.values():
        raise Malformed(f"protocol name {name[:20]!r}")
    if LEVELS.get(level) != name:
        return Connect(level=level if level not in LEVELS else 0)
    if level == 5:
        return read_connect_5(fields)
    flags, keep_alive_s, client_id = fields.byte(), fields.short(), fields.text()
    if flags & 1 and level > 3:
        raise Malformed("CONNECT with its reserved flag set")
    will = None
    if flags & 0x04:
        topic, payload = fields.text(), fields.blob()
        if topic_fault(topic):
            raise Malformed(f"a will to a topic that {topic_fault(topic)}")
        will = Will(topic, payload, flags >> 3 & 3, flags & 0x20 != 0)
        if will.qos == 3:
            raise Malformed("a will with QoS 3")
    elif flags & 0x38:
        raise Malformed("CONNECT with will flags but no will")
    if flags & 0xC0 == 0x40 and level > 3:
        raise Malformed("CONNECT with a password but no user name")
    # Of level 3 the length of the packet goes before the flags: announced names may be missing.
    named = flags & 0x80 and (level > 3 or fields.more())
    username = fields.text() if named else None
    password = fields.blob() if flags & 0x40 and (level > 3 or fields.more()) else None
    return Connect(level, flags & 2 != 0, keep_alive_s, client_id, will, username, password)


def _read_connack(fields: Fields) -> Connack:
    flags, code = fields.raw(2)
    if flags > 1:
        raise Malformed("CONNACK with its reserved flags set")
    return Connack(flags == 1, code)


def _read_subscribe(fields: Fields) -> Subscribe:
    packet_id = fields.packet_id()
    filters = []
    while fields.more():
        filters.append((fields.filter(), fields.byte()))
        if filters[-1][1] > 2:
            raise Malformed("SUBSCRIBE with a QoS over 2")
    if not filters:
        raise Malformed("SUBSCRIBE without a filter")
    return Subscribe(packet_id, tuple(filters))


def _read_suback(fields: Fields) -> Suback:
    return Suback(fields.packet_id(), fields.rest())


def _read_unsubscribe(fields: Fields) -> Unsubscribe:
    packet_id = fields.packet_id()
    filters = []
    while fields.more():
        filters.append(fields.filter())
    if not filters:
        raise Malformed("UNSUBSCRIBE without a filter")
    return Unsubscribe(packet_id, tuple(filters))


_CONNECT: Final = (0, _read_connect)

# Packet type -> the flags it must have, its reader. PUBLISH (3) is read by `decode` itself.
_READERS: Final[dict[int, tuple[int, Callable[[Fields], Packet]]]] = {
    2: (0, _read_connack),
    4: (0, lambda fields: Puback(fields.packet_id())),
    5: (0, lambda fields: Pubrec(fields.packet_id())),
    6: (2, lambda fields: Pubrel(fields.packet_id())),
    7: (0, lambda fields: Pubcomp(fields.packet_id())),
    8: (2, _read_subscribe),
    9: (0, _read_suback),
    10: (2, _read_unsubscribe),
    11: (0, lambda fields: Unsuback(fields.packet_id())),
    12: (0, lambda fields: Pingreq()),
    13: (0, lambda fields: Pingresp()),
    14: (0, lambda fields: Disconnect()),
}
