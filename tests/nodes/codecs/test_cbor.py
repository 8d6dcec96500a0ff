import base64
import math

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.errors import BadInput
from nodes.codecs.cbor import decode_cbor
from nodes.codecs.values import check_value

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
keys = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner),
    max_leaves=20,
)


@pytest.mark.spec("CT-14")
def test_the_computed_fixture():
    body = bytes.fromhex("a1617281a2616b6474656d706176fb40424ccccccccccd")
    assert decode_cbor(body) == {"r": [{"k": "temp", "v": 36.6}]}


@settings(deadline=None)
@given(values, st.booleans())
def test_json_values_come_through_unchanged(value, canonical):
    assert repr(decode_cbor(cbor2.dumps(value))) == repr(value)
    assert decode_cbor(cbor2.dumps(value, canonical=canonical, indefinite_containers=True)) == value


# From the examples of RFC 8949, appendix A.
@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("00", 0),
        ("1864", 100),
        ("1b000000e8d4a51000", 1000000000000),
        ("20", -1),
        ("3903e7", -1000),
        ("c2420100", 256),
        ("c34100", -1),
        ("f90000", 0.0),
        ("f98000", -0.0),
        ("f93c00", 1.0),
        ("fb3ff199999999999a", 1.1),
        ("f97bff", 65504.0),
        ("fa47c35000", 100000.0),
        ("f9c400", -4.0),
        ("f4", False),
        ("f5", True),
        ("f6", None),
        ("f7", None),
        ("40", ""),
        ("4401020304", base64.b64encode(b"\x01\x02\x03\x04").decode()),
        ("60", ""),
        ("62c3bc", "ü"),
        ("64f0908591", "𐅑"),
        ("80", []),
        ("8301820203820405", [1, [2, 3], [4, 5]]),
        ("a0", {}),
        ("a26161016162820203", {"a": 1, "b": [2, 3]}),
        ("826161a161626163", ["a", {"b": "c"}]),
        ("5f42010243030405ff", base64.b64encode(b"\x01\x02\x03\x04\x05").decode()),
        ("7f657374726561646d696e67ff", "streaming"),
        ("9fff", []),
        ("9f018202039f0405ffff", [1, [2, 3], [4, 5]]),
        ("bf61610161629f0203ffff", {"a": 1, "b": [2, 3]}),
        ("c074323031332d30332d32315432303a30343a30305a", "2013-03-21T20:04:00Z"),
        ("c11a514b67b0", "2013-03-21T20:04:00Z"),
        ("c1fb41d452d9ec200000", "2013-03-21T20:04:00.500000Z"),
        ("d9d9f783010203", [1, 2, 3]),
    ],
)
def test_examples_of_the_standard(body, value):
    assert repr(decode_cbor(bytes.fromhex(body))) == repr(value)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "end of stream"),
        ("0000", "1 bytes after the end"),
        ("a16161016161", "bytes after the end"),
        ("a2616101616102", "Duplicate map key"),
        ("bf616101616102ff", "Duplicate map key"),
        ("a10102", "map key"),
        ("a1f602", "map key"),
        ("a1f97e0001", "map key"),
        ("a1810102", "map key"),
        ("a1a002", "map key"),
        ("a1410102", "key must be text"),
        ("a16001", "key is empty"),
        ("a1610a01", "control character"),
        ("f97e00", "finite"),
        ("f97c00", "finite"),
        ("fbfff0000000000000", "finite"),
        ("1b8000000000000000", "64 bits"),
        ("3b8000000000000000", "64 bits"),
        ("c249010000000000000000", "64 bits"),
        ("c348ffffffffffffffff", "64 bits"),
        ("c25a00100000", "end of stream"),
        ("61ff", "text string"),
        ("63eda080", "text string"),
        ("f0", "not a JSON value"),
        ("f820", "not a JSON value"),
        ("fc", "not CBOR"),
        ("ff", "not CBOR"),
        ("1c", "not CBOR"),
        ("5f00ff", "not CBOR"),
        ("7f4100ff", "not CBOR"),
        ("bf00ff", "not CBOR"),
        ("9f", "end of stream"),
        ("c001", "tag 0"),
        ("c16161", "tag 1"),
        ("c1f97e00", "tag 1"),
        ("c11bffffffffffffffff", "years"),
        ("c200", "big integer"),
        ("c4822003", "tag 4"),
        ("c4821b7fffffffffffffff01", "tag 4"),
        ("c5821b7fffffffffffffff01", "tag 5"),
        ("d74101", "tag 23"),
        ("d818456449455446", "tag 24"),
        ("d9010082d81900d81900", "tag 25"),
        ("d81c81d81d00", "tag 29"),
        ("d81c80", "tag 28"),
        ("d81d00", "tag 29"),
        ("d81e820103", "tag 30"),
        ("d82076687474703a2f2f7777772e6578616d706c652e636f6d", "tag 32"),
        ("d82363612b61", "tag 35"),
        ("d8246161", "tag 36"),
        ("d82550000102030405060708090a0b0c0d0e0f", "tag 37"),
        ("d83444c0a80001", "tag 52"),
        ("d8365020010db8000000000000000000000001", "tag 54"),
        ("d8641a00004dd1", "tag 100"),
        ("d9010080", "tag 256"),
        ("d9010280", "tag 258"),
        ("d9010444c0a80001", "tag 260"),
        ("d90105a144c0a800001818", "tag 261"),
        ("d903ec6a323031332d30332d3231", "tag 1004"),
        ("d9a7f8820102", "tag 43000"),
        ("dbffffffffffffffff00", "tag 18446744073709551615"),
        ("a1617881c482f61bffffffffffffffff", "tag 4"),
        ("81" * 33 + "00", "depth"),
        ("a16161" * 33 + "00", "depth"),
        ("c0" * 33 + "00", "depth"),
        ("9f" * 33, "depth"),
        ("81" * 100_000, "depth"),
        ("d9d9f7" * 100_000, "depth"),
        ("9f" * 100_000, "depth"),
    ],
)
def test_what_is_refused_says_why(body, why):
    with pytest.raises(BadInput, match=why):
        decode_cbor(bytes.fromhex(body))


@pytest.mark.parametrize("head", ["5", "7", "9", "b"])
@pytest.mark.parametrize("length", [2**16, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("rest", ["", "00", "616100"])
def test_lengths_that_lie_are_refused(head, length, rest):
    with pytest.raises(BadInput):
        decode_cbor(bytes.fromhex(f"{head}b{length:016x}{rest}"))


def test_the_error_points_at_the_place():
    with pytest.raises(BadInput) as caught:
        decode_cbor(cbor2.dumps({"r": [{"v": 1}, {"v": math.nan}]}))
    assert caught.value.pointer == "/r/1/v"


def test_nothing_is_remembered_from_one_message_for_the_next():
    with pytest.raises(BadInput):
        decode_cbor(bytes.fromhex("d81c81f6"))
    with pytest.raises(BadInput):
        decode_cbor(bytes.fromhex("d81d00"))


def test_depth_up_to_the_limit_is_read():
    assert decode_cbor(bytes.fromhex("81" * 32 + "00"))


def test_every_truncation_is_refused():
    body = cbor2.dumps(
        {"i": ["temp"], "r": [{"k": 0, "v": 36.6, "t": "2016-05-03T13:24:16Z", "x": [None, 2**40, b"ab"]}]}
    )
    for end in range(len(body)):
        with pytest.raises(BadInput):
            decode_cbor(body[:end])


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=80))
@example(b"\x9b\x00\x00\x00\x00\x10\x00\x00\x00")
def test_any_bytes_are_a_value_or_bad_input(body):
    try:
        value = decode_cbor(body)
    except BadInput:
        return
    check_value(value)


@settings(deadline=None, max_examples=300)
@given(values, st.data())
def test_flipped_bytes_are_a_value_or_bad_input(value, data):
    body = bytearray(cbor2.dumps(value))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        check_value(decode_cbor(bytes(body)))
    except BadInput:
        return
