"""The codec of MQTT 5: reason codes and properties of every packet, and what may not stand in them."""

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api.transports.mqtt import properties as where
from api.transports.mqtt.decoding import Decoded, decode
from api.transports.mqtt.encoding import NO_PROPERTIES, encode, encode_publish
from api.transports.mqtt.fields import varint
from api.transports.mqtt.packets import (
    LEVELS,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Malformed,
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
    Will,
)
from api.transports.mqtt.properties import PROPERTIES, write_properties
from api.transports.mqtt.reasons import ACKNOWLEDGED, AUTHENTICATED, DISCONNECTED, RELEASED, Reason
from tests.api.transports.mqtt.test_packets import LIMIT, blobs, filters, ids, texts, topics

VALUES = {
    where.FLAG: st.booleans(),
    where.SHORT: st.integers(0, 65_535),
    where.COUNT: st.integers(1, 65_535),
    where.LONG: st.integers(0, 2**32 - 1),
    where.SIZE: st.integers(1, 2**32 - 1),
    where.VARINT: st.integers(1, 2**28 - 1),
    where.TEXT: texts,
    where.TOPIC: topics,
    where.BLOB: blobs,
    where.PAIR: st.tuples(texts, texts),
}


def said(packet):
    """Properties that a packet of this type may have."""
    most = 1 if packet == where.SUBSCRIBE else 3
    known = [each for each in PROPERTIES.values() if packet in each.packets]
    return st.none() | st.fixed_dictionaries(
        {},
        optional={
            each.field: st.lists(VALUES[each.kind], min_size=1, max_size=most).map(tuple)
            if each.many
            else VALUES[each.kind]
            for each in known
        },
    ).filter(bool).map(lambda found: Properties(**found))


@st.composite
def connects(draw):
    will = draw(
        st.none() | st.builds(Will, topics, blobs, st.integers(0, 2), st.booleans(), said(where.WILL)),
    )
    properties = draw(said(where.CONNECT))
    if properties is not None and properties.authentication_method is None:
        properties = msgspec.structs.replace(properties, authentication_data=None)
        properties = properties if properties != Properties() else None
    return Connect(
        5, draw(st.booleans()), draw(st.integers(0, 65_535)), draw(texts), will,
        draw(st.none() | texts), draw(st.none() | blobs), properties,
    )  # fmt: skip


@st.composite
def publishes(draw):
    qos = draw(st.integers(0, 2))
    properties = draw(said(where.PUBLISH))
    aliased = properties is not None and properties.topic_alias is not None
    return Publish(
        draw(topics | st.just("") if aliased else topics), draw(blobs), qos, draw(ids) if qos else 0,
        draw(st.booleans()), draw(st.booleans()) if qos else False, properties,
    )  # fmt: skip


def answers(kind, packet, codes):
    return st.builds(kind, ids, st.sampled_from(sorted(codes)), said(packet))


def endings(kind, packet, codes):
    return st.builds(kind, st.sampled_from(sorted(codes)), said(packet))


options = st.builds(
    lambda qos, no_local, as_published, handling: qos | no_local << 2 | as_published << 3 | handling << 4,
    st.integers(0, 2), st.booleans(), st.booleans(), st.integers(0, 2),
)  # fmt: skip
packets = st.one_of(
    connects(),
    publishes(),
    st.builds(Connack, st.booleans(), st.sampled_from(sorted(Reason)), said(where.CONNACK)),
    answers(Puback, where.PUBACK, ACKNOWLEDGED),
    answers(Pubrec, where.PUBREC, ACKNOWLEDGED),
    answers(Pubrel, where.PUBREL, RELEASED),
    answers(Pubcomp, where.PUBCOMP, RELEASED),
    st.builds(
        Subscribe, ids, st.lists(st.tuples(filters, options), min_size=1, max_size=4).map(tuple), said(where.SUBSCRIBE)
    ),
    st.builds(Suback, ids, st.binary(max_size=5), said(where.SUBACK)),
    st.builds(Unsubscribe, ids, st.lists(filters, min_size=1, max_size=4).map(tuple), said(where.UNSUBSCRIBE)),
    st.builds(Unsuback, ids, st.binary(max_size=5), said(where.UNSUBACK)),
    endings(Disconnect, where.DISCONNECT, DISCONNECTED),
    endings(Auth, where.AUTH, AUTHENTICATED),
    *[st.builds(kind) for kind in (Pingreq, Pingresp)],
)


def encoded(packet):
    return encode(packet, 5)


def decoded(raw, limit=LIMIT):
    return decode(raw, limit, level=5)


def test_every_property_has_its_field():
    assert [each.field for each in PROPERTIES.values()] == [field.name for field in msgspec.structs.fields(Properties)]


@given(st.lists(packets, max_size=8))
@example([Publish("", b"", 0, 0, properties=Properties(topic_alias=1))])
def test_what_is_encoded_is_decoded(sent):
    raw = b"".join(map(encoded, sent))
    assert decoded(raw) == Decoded(sent, len(raw), 2, None)


@given(packets, st.data())
def test_no_proper_beginning_of_a_packet_is_a_packet(packet, data):
    raw = encoded(packet)
    cut = data.draw(st.integers(0, len(raw) - 1))
    got = decoded(raw[:cut])
    assert (got.packets, got.consumed, got.error) == ([], 0, None)
    assert cut < got.needed <= len(raw) or cut < 2


@settings(max_examples=500)
@given(st.binary(max_size=80))
def test_any_bytes_give_packets_or_the_codecs_own_error(raw):
    got = decoded(raw, 40)
    assert got.error is None or isinstance(got.error, Malformed)
    assert 0 <= got.consumed <= len(raw)


@settings(max_examples=1000)
@given(packets, st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255)), min_size=1, max_size=3))
def test_flipped_bits_give_packets_or_the_codecs_own_error(packet, flips):
    raw = bytearray(encoded(packet))
    for at, bits in flips:
        raw[at % len(raw)] ^= bits
    got = decoded(bytes(raw))
    assert got.error is None or isinstance(got.error, Malformed)
    for each in got.packets:
        assert decoded(encoded(each)).packets == [each] or (isinstance(each, Connect) and each.level not in LEVELS)


def framed(first, *parts):
    body = b"".join(parts)
    return bytes((first,)) + varint(len(body)) + body


def connect(properties, *, flags=2, tail=b"\0\x01c"):
    return framed(0x10, b"\0\x04MQTT\5", bytes((flags,)), b"\0\0", varint(len(properties)), properties, tail)


def publish(properties, topic=b"t", first=0x30):
    return framed(first, len(topic).to_bytes(2, "big"), topic, varint(len(properties)), properties, b"payload")


MALFORMED = [
    (connect(b"\x7f\0"), "a property that does not exist"),
    (connect(b"\x24\1"), "a property of another packet"),
    (connect(b"\x11\0\0"), "a property that is cut off"),
    (connect(b"\x26\0\1a"), "a name without its value"),
    (connect(b"\x26\0\1\xff\0\0"), "a name that is not UTF-8"),
    (connect(b"\x26\0\1\0\0\0"), "a name with NUL"),
    (connect(b"", flags=3), "its reserved flag"),
    (connect(b"", flags=0x0A), "will flags without a will"),
    (connect(b"", flags=6, tail=b"\0\1c\0\0\1#\0\0"), "a will to a wildcard"),
    (connect(b"", flags=0x1E, tail=b"\0\1c\0\0\1t\0\0"), "a will with QoS 3"),
    (connect(b"", flags=6, tail=b"\0\1c\2\x11\0\0\1t\0\0"), "a will with another packet's property"),
    (connect(b"", tail=b"\0\1cx"), "bytes after the last field"),
    (framed(0x10, b"\0\x04MQTT\5\2\0\0\x80\x80\x80\x80\1"), "a property length of five bytes"),
    (framed(0x10, b"\0\x04MQTT\5\2\0\0\x09\0\1c"), "properties longer than the packet"),
    (publish(b"\x11\0\0\0\1"), "PUBLISH with a CONNECT's property"),
    (framed(0x30, b"\0\1t"), "PUBLISH without a property length"),
    (framed(0x30, b"\0\1t\5"), "PUBLISH shorter than its properties"),
    (framed(0x30, b"\0\1t\xff\xff\xff\xff\1"), "PUBLISH with a property length of five bytes"),
    (framed(0x40, b"\0\1\5"), "PUBACK with a reason that does not exist"),
    (framed(0x62, b"\0\1\x80"), "PUBREL with another packet's reason"),
    (framed(0xE0, b"\x11"), "DISCONNECT with another packet's reason"),
    (framed(0xE0, b"\0\2\x21\0"), "DISCONNECT with another packet's property"),
    (framed(0xE0, b"\0\0\0"), "bytes after DISCONNECT"),
    (framed(0xF0, b"\1"), "AUTH with another packet's reason"),
    (b"\xf1\0", "AUTH with flags"),
    (framed(0x82, b"\0\1\0\0\1a\3"), "SUBSCRIBE with QoS 3"),
    (framed(0x82, b"\0\1\0\0\1a\x40"), "SUBSCRIBE with a reserved option"),
    (framed(0x82, b"\0\1\0\0\1a\x30"), "SUBSCRIBE with retain handling 3"),
    (framed(0x82, b"\0\1\0\0\1a"), "SUBSCRIBE without options"),
]
WRONG = [
    (connect(b"\x21\0\1\x21\0\1"), "a property twice"),
    (connect(b"\x21\0\0"), "a receive maximum of 0"),
    (connect(b"\x27\0\0\0\0"), "a maximum packet size of 0"),
    (connect(b"\x17\2"), "a flag of 2"),
    (connect(b"\x16\0\1x"), "authentication data without a method"),
    (publish(b"", topic=b""), "PUBLISH to nothing"),
    (publish(b"\1\0", topic=b""), "PUBLISH to nothing, with properties but no alias"),
    (publish(b"\1\0", topic=b"a/+"), "PUBLISH to a wildcard, with properties"),
    (publish(b"\1\2"), "a payload format of 2"),
    (publish(b"\x0b\0"), "a subscription identifier of 0"),
    (publish(b"\x08\0\1+"), "a response topic with a wildcard"),
    (framed(0x82, b"\0\1\4\x0b\1\x0b\2\0\1a\1"), "SUBSCRIBE with two identifiers"),
    (framed(0x82, b"\0\1\0"), "SUBSCRIBE to nothing"),
    (framed(0x82, b"\0\1\0\0\x0a$share/g/a\5"), "a shared subscription with No Local"),
    (framed(0xA2, b"\0\1\0"), "UNSUBSCRIBE from nothing"),
    (framed(0x82, b"\0\0\0\0\1a\1"), "packet id 0"),
]


def cases(table):
    return [pytest.param(raw, id=name) for raw, name in table]


@pytest.mark.parametrize("raw", cases(MALFORMED))
def test_malformed(raw):
    got = decoded(raw)
    assert got.packets == []
    assert got.error is not None
    assert got.error.code == Reason.MALFORMED
    assert got.error.level == (5 if raw[0] == 0x10 else 0)


@pytest.mark.parametrize("raw", cases(WRONG))
def test_what_the_protocol_rules_out(raw):
    got = decoded(raw)
    assert got.packets == []
    assert got.error is not None
    assert got.error.code == Reason.PROTOCOL_ERROR


@pytest.mark.spec("G-12")
def test_a_payload_at_the_limit_passes_and_one_over_it_does_not():
    for said in (NO_PROPERTIES, write_properties(Properties(user=(("a", "b"),)))):
        assert decoded(encode_publish("t" * 300, b"x" * 100, properties=said), 100).error is None
        over = decoded(encode_publish("t", b"x" * 101, properties=said), 100).error
        assert over is not None
        assert over.code == Reason.PACKET_TOO_LARGE


def test_a_connect_says_its_own_level():
    packet = Connect(5, properties=Properties(session_expiry_s=60))
    assert decode(encode(packet), LIMIT).packets == [packet]


def test_packets_without_news_are_as_short_as_those_of_older_levels():
    for packet in (Puback(7), Pubrec(7), Pubrel(7), Pubcomp(7), Disconnect(), Pingreq()):
        assert encode(packet, 5) == encode(packet, 4)
    assert encode(Puback(7, Reason.QUOTA_EXCEEDED), 5) == b"\x40\3\0\7\x97"
    assert encode_publish("t", b"x", 1, 7, properties=NO_PROPERTIES) == encode(Publish("t", b"x", 1, 7), 5)
