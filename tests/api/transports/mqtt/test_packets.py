"""The codec at every level: what goes out comes back, pieces are put together, and no bytes break it."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api.transports.mqtt.decoding import Decoded, decode
from api.transports.mqtt.encoding import encode, encode_publish
from api.transports.mqtt.packets import (
    LEVELS,
    Connack,
    Connect,
    Disconnect,
    Malformed,
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

LIMIT = 65_536

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
levels = st.text(st.characters(codec="utf-8", exclude_characters="\0+#"), max_size=20)
topics = levels.filter(bool)
filters = st.one_of(
    topics,
    st.just("#"),
    topics.map(lambda topic: topic.rstrip("/") + "/#"),
    st.lists(st.one_of(st.just("+"), levels.map(lambda level: level.replace("/", ""))), min_size=1)
    .map("/".join)
    .filter(bool),
)
ids = st.integers(1, 65_535)
blobs = st.binary(max_size=300)


@st.composite
def connects(draw):
    username = draw(st.none() | texts)
    password = draw(st.none() | blobs) if username is not None else None
    will = draw(st.none() | st.builds(Will, topics, blobs, st.integers(0, 2), st.booleans()))
    level = draw(st.sampled_from([3, 4]))
    return Connect(level, draw(st.booleans()), draw(st.integers(0, 65_535)), draw(texts), will, username, password)


publishes = st.one_of(
    st.builds(Publish, topics, blobs, st.just(0), st.just(0), st.booleans(), st.just(False)),
    st.builds(Publish, topics, blobs, st.integers(1, 2), ids, st.booleans(), st.booleans()),
)
packets = st.one_of(
    connects(),
    publishes,
    st.builds(Connack, st.booleans(), st.integers(0, 5)),
    *[st.builds(kind, ids) for kind in (Puback, Pubrec, Pubrel, Pubcomp, Unsuback)],
    st.builds(Subscribe, ids, st.lists(st.tuples(filters, st.integers(0, 2)), min_size=1, max_size=4).map(tuple)),
    st.builds(Suback, ids, st.binary(max_size=5)),
    st.builds(Unsubscribe, ids, st.lists(filters, min_size=1, max_size=4).map(tuple)),
    *[st.builds(kind) for kind in (Pingreq, Pingresp, Disconnect)],
)


@given(st.lists(packets, max_size=8))
def test_what_is_encoded_is_decoded(sent):
    raw = b"".join(map(encode, sent))
    assert decode(raw, LIMIT) == Decoded(sent, len(raw), 2, None)


@given(st.lists(packets, min_size=1, max_size=4), st.data())
def test_pieces_of_any_size_give_the_same_packets(sent, data):
    raw = b"".join(map(encode, sent))
    got, rest = [], b""
    while raw:
        size = data.draw(st.integers(1, len(raw)))
        rest, raw = rest + raw[:size], raw[size:]
        decoded = decode(rest, LIMIT)
        assert decoded.error is None
        rest = rest[decoded.consumed :]
        assert decoded.needed > len(rest)
        got += decoded.packets
    assert got == sent
    assert rest == b""


@given(packets, st.data())
def test_no_proper_beginning_of_a_packet_is_a_packet(packet, data):
    raw = encode(packet)
    cut = data.draw(st.integers(0, len(raw) - 1))
    decoded = decode(raw[:cut], LIMIT)
    assert decoded.packets == []
    assert decoded.consumed == 0
    assert decoded.error is None
    assert cut < decoded.needed <= len(raw) or cut < 2


@settings(max_examples=500)
@given(st.binary(max_size=80))
@example(b"\x30\xff\xff\xff\xff\x7f")
@example(b"\x30\x00")
@example(b"\x32\x02\x00\x00")
def test_any_bytes_give_packets_or_the_codecs_own_error(raw):
    decoded = decode(raw, 40)
    assert decoded.error is None or isinstance(decoded.error, Malformed)
    assert 0 <= decoded.consumed <= len(raw)


@settings(max_examples=500)
@given(packets, st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255)), min_size=1, max_size=3))
def test_flipped_bits_give_packets_or_the_codecs_own_error(packet, flips):
    raw = bytearray(encode(packet))
    for at, bits in flips:
        raw[at % len(raw)] ^= bits
    decoded = decode(bytes(raw), LIMIT)
    assert decoded.error is None or isinstance(decoded.error, Malformed)
    for got in decoded.packets:
        assert decode(encode(got), LIMIT).packets == [got] or (isinstance(got, Connect) and got.level not in LEVELS)


def test_good_packets_before_a_bad_one_are_kept():
    good = encode_publish("a", b"1", 1, 7)
    decoded = decode(good + b"\xf0\x00", LIMIT)
    assert decoded.packets == [Publish("a", b"1", 1, 7)]
    assert decoded.consumed == len(good)
    assert decoded.error is not None


def test_at_most_leaves_the_rest_alone():
    raw = encode(Pingreq()) * 3
    decoded = decode(raw, LIMIT, at_most=1)
    assert decoded.packets == [Pingreq()]
    assert decoded.consumed == 2


def connect_bytes(name=b"\0\x04MQTT", level=4, flags=2, tail=b"\0\0\0\x01a"):
    body = name + bytes((level, flags)) + tail
    return bytes((0x10, len(body))) + body


@pytest.mark.spec("G-10")
@pytest.mark.parametrize("level", [0, 2, 6, 0x83, 0x84])
def test_a_connect_of_another_level_is_told_apart_from_garbage(level):
    assert decode(connect_bytes(level=level), LIMIT).packets[0].level not in LEVELS


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(connect_bytes(name=b"\0\x04HTTP"), id="protocol name"),
        pytest.param(connect_bytes(flags=3), id="reserved connect flag"),
        pytest.param(connect_bytes(flags=0x0A), id="will QoS without a will"),
        pytest.param(connect_bytes(flags=0x22), id="will retain without a will"),
        pytest.param(connect_bytes(flags=0x1E, tail=b"\0\0\0\x01a\0\x01t\0\0"), id="will QoS 3"),
        pytest.param(connect_bytes(flags=0x06, tail=b"\0\0\0\x01a\0\x01#\0\0"), id="will to a wildcard"),
        pytest.param(connect_bytes(flags=0x42, tail=b"\0\0\0\x01a\0\x01p"), id="password without user name"),
        pytest.param(connect_bytes(tail=b"\0\0\0\x03a\0b"), id="NUL in the client id"),
        pytest.param(connect_bytes(tail=b"\0\0\0\x02\xc3\x28"), id="client id not UTF-8"),
        pytest.param(connect_bytes(tail=b"\0\0\0\x03\xed\xa0\x80"), id="surrogate in the client id"),
        pytest.param(connect_bytes(tail=b"\0\0\0\x01ab"), id="bytes after the last field"),
        pytest.param(connect_bytes(tail=b"\0\0\0\x09a"), id="field longer than the packet"),
        pytest.param(b"\x11" + connect_bytes()[1:], id="CONNECT with flags"),
        pytest.param(b"\x30\x00", id="PUBLISH without a topic"),
        pytest.param(b"\x30\x02\0\0", id="PUBLISH to an empty topic"),
        pytest.param(b"\x30\x03\0\x05a", id="PUBLISH shorter than its topic"),
        pytest.param(b"\x32\x03\0\x01a", id="PUBLISH QoS 1 without an id"),
        pytest.param(b"\x32\x05\0\x01a\0\0", id="PUBLISH with id 0"),
        pytest.param(b"\x36\x05\0\x01a\0\x01", id="PUBLISH with QoS 3"),
        pytest.param(b"\x38\x03\0\x01a", id="PUBLISH QoS 0 with DUP"),
        pytest.param(b"\x30\x05\0\x03a/+", id="PUBLISH to +"),
        pytest.param(b"\x30\x05\0\x03a/#", id="PUBLISH to #"),
        pytest.param(b"\x30\x05\0\x03a\0b", id="PUBLISH to NUL"),
        pytest.param(b"\x30\x03\0\x01\xff", id="PUBLISH to a topic not UTF-8"),
        pytest.param(b"\x82\x02\0\x01", id="SUBSCRIBE to nothing"),
        pytest.param(b"\x82\x06\0\x01\0\x01a\x03", id="SUBSCRIBE with QoS 3"),
        pytest.param(b"\x82\x05\0\x01\0\0\x01", id="SUBSCRIBE to an empty filter"),
        pytest.param(b"\x82\x08\0\x01\0\x03a#b\x01", id="SUBSCRIBE with # in a level"),
        pytest.param(b"\x82\x06\0\0\0\x01a\x00", id="SUBSCRIBE with id 0"),
        pytest.param(b"\x80\x06\0\x01\0\x01a\x00", id="SUBSCRIBE without its flags"),
        pytest.param(b"\xa2\x02\0\x01", id="UNSUBSCRIBE from nothing"),
        pytest.param(b"\x40\x02\0\0", id="PUBACK with id 0"),
        pytest.param(b"\x40\x01\x01", id="PUBACK too short"),
        pytest.param(b"\x60\x02\0\x01", id="PUBREL without its flags"),
        pytest.param(b"\xc0\x01\0", id="PINGREQ with a body"),
        pytest.param(b"\x00\x00", id="type 0"),
        pytest.param(b"\xf0\x7f", id="type 15, before its body came"),
        pytest.param(b"\x30\x80\x80\x80\x80", id="remaining length of five bytes"),
        pytest.param(b"\x30\xff\xff\xff\x7f", id="remaining length over the limit"),
    ],
)
def test_malformed(raw):
    decoded = decode(raw, LIMIT)
    assert decoded.packets == []
    assert decoded.error is not None


@pytest.mark.spec("G-12")
def test_a_payload_at_the_limit_passes_and_one_over_it_does_not():
    assert decode(encode_publish("t" * 300, b"x" * 100), 100).error is None
    assert decode(encode_publish("t", b"x" * 101), 100).error is not None


def test_level_3_takes_announced_names_that_are_missing():
    raw = connect_bytes(name=b"\0\x06MQIsdp", level=3, flags=0xC2)
    assert decode(raw, LIMIT).packets == [Connect(level=3, client_id="a")]


def test_encoding_refuses_what_the_protocol_cannot_say():
    with pytest.raises(ValueError, match="65536"):
        encode_publish("t" * 65_536, b"")
