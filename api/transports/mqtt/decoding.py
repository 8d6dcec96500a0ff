"""Bytes to MQTT packets, without any I/O.

`decode` reads every complete packet of a buffer in one pass; what is not whole yet is left for the next call. All that
differs between protocol levels stands in the tables of readers (that of level 5 in `decoding5`), in `decoding_connect`,
and in two lines of the PUBLISH branch of `decode`: one without properties is the same at every level, but for a byte. A
CONNECT of a level not in `LEVELS` is still recognised, so that it can be answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from api.transports.mqtt.decoding5 import READERS_5, read_publish_5, session_and_code, too_long
from api.transports.mqtt.decoding_connect import read_connect
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


def _read_option(fields: Fields) -> tuple[str, int]:
    topic_filter, qos = fields.filter(), fields.byte()
    if qos > 2:
        raise Malformed("SUBSCRIBE with a QoS over 2")
    return topic_filter, qos


_CONNECT: Final = (0, read_connect)

# Packet type -> the flags it must have, its reader. PUBLISH (3) is read by `decode` itself.
_READERS: Final[dict[int, tuple[int, Callable[[Fields], Packet]]]] = {
    2: (0, lambda fields: Connack(*session_and_code(fields))),
    4: (0, lambda fields: Puback(fields.packet_id())),
    5: (0, lambda fields: Pubrec(fields.packet_id())),
    6: (2, lambda fields: Pubrel(fields.packet_id())),
    7: (0, lambda fields: Pubcomp(fields.packet_id())),
    8: (2, lambda fields: Subscribe(fields.packet_id(), fields.every(_read_option))),
    9: (0, lambda fields: Suback(fields.packet_id(), fields.rest())),
    10: (2, lambda fields: Unsubscribe(fields.packet_id(), fields.every(Fields.filter))),
    11: (0, lambda fields: Unsuback(fields.packet_id())),
    12: (0, lambda fields: Pingreq()),
    13: (0, lambda fields: Pingresp()),
    14: (0, lambda fields: Disconnect()),
}
