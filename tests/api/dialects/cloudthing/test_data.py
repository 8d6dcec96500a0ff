import json

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.dialects.cloudthing.data import CBOR, CUSTOM, JSON, PROTO, drafts, format_of_content_type, format_of_query
from api.dialects.cloudthing.products import NOTHING, Formats
from engine.errors import BadInput
from nodes import Message
from nodes.decode import Decode
from tests.api.dialects.cloudthing.fixtures import (
    BAD_CBOR,
    BAD_JSON,
    BAD_PROTO,
    DOCUMENTED,
    FRAME,
    ONE,
    ONE_CBOR,
    PROTOBUF,
    T0,
    TRANSFORM,
    as_proto,
)
from tests.api.dialects.cloudthing.fixtures import CUSTOM as CUSTOM_BODY
from tests.nodes.context import build, emitted, run
from tests.nodes.test_decode import ProductContext, product

RECEIVED = 1_700_000_000_123
DEVICE = "SoMEc0MpL1Cat3D1D"
ALL = Formats({"protobuf": PROTOBUF, "transform": TRANSFORM}, "p1")


def read(ct, body, formats=ALL):
    return drafts(ct, body, RECEIVED, formats, device_id=DEVICE, product_id="p1")


async def points(made):
    """The points that the messages come to when the chain has decoded what there is to decode."""
    found = []
    ctx = ProductContext(product(protobuf=PROTOBUF, transform=TRANSFORM))
    for draft in made:
        message = Message(
            id="m", ts_ms=draft.ts_ms, tenant="acme", type=draft.type, originator="d",
            data=draft.data, metadata=draft.metadata,
        )  # fmt: skip
        told = [message]
        if draft.type == "RAW_UPLINK":
            out = await run(build(Decode), message, ctx=ctx)
            assert not out.failed
            told = emitted(out)["Success"]
        for each in told:
            places = json.loads(each.metadata.get("geo", "{}"))
            found += [(key, value, int(each.metadata["ts"]), places.get(key)) for key, value in each.data.items()]
            assert each.ts_ms == int(each.metadata["ts"])
    return found


@pytest.mark.asyncio
@pytest.mark.parametrize("ct", [JSON, CBOR, PROTO])
@pytest.mark.parametrize(("name", "document", "expected"), DOCUMENTED, ids=[each[0] for each in DOCUMENTED])
@pytest.mark.spec("CT-7", "CT-8", "CT-10", "CT-11", "CT-12", "CT-13", "CT-14", "CT-15", "CT-71")
async def test_documented_examples_come_to_the_same_points_in_every_format(name, document, expected, ct):
    bodies = {JSON: lambda: json.dumps(document).encode(), CBOR: lambda: cbor2.dumps(document)}
    body = bodies.get(ct, lambda: as_proto(document))()
    assert await points(read(ct, body)) == [
        (key, value, RECEIVED if ms is None else T0 + ms, place) for key, value, ms, place in expected
    ]


@pytest.mark.asyncio
@pytest.mark.spec("CT-14", "CT-16")
async def test_the_documented_bytes_and_a_custom_format():
    assert await points(read(CBOR, ONE_CBOR)) == [("temp", 36.6, RECEIVED, None)]
    assert sorted(await points(read(CUSTOM, CUSTOM_BODY))) == [
        ("bat", 3.5, RECEIVED, None), ("temp", 36.6, RECEIVED, None),
    ]  # fmt: skip


@pytest.mark.spec("CT-70", "CT-S10")
def test_json_becomes_one_message_per_time_in_the_order_of_the_records():
    document = {
        "r": [
            {"k": "a", "v": 1, "t": T0},
            {"k": "b", "v": True, "t": -6, "g": {"lt": 1, "ln": 2}},
            {"k": "c", "v": {"deep": [1]}, "t": 6},
            {"k": "a", "v": "last", "t": 0},
        ]
    }
    assert read(JSON, json.dumps(document).encode()) == [
        ("POST_TELEMETRY_REQUEST", {"a": "last", "c": {"deep": [1]}}, T0, {"ts": str(T0), "ct": "json"}),
        (
            "POST_TELEMETRY_REQUEST",
            {"b": True},
            T0 - 6000,
            {"ts": str(T0 - 6000), "ct": "json", "geo": '{"b":{"lat":1.0,"lon":2.0}}'},
        ),
    ]


@pytest.mark.spec("CT-71")
@pytest.mark.parametrize(
    ("ct", "body"), [(CBOR, ONE_CBOR), (PROTO, as_proto(json.loads(ONE))), (CUSTOM, CUSTOM_BODY), (CUSTOM, b"")]
)
def test_what_the_chain_decodes_goes_there_as_it_came(ct, body):
    metadata = {"ct": ct, "deviceId": DEVICE, "productId": "p1"}
    assert read(ct, body) == [("RAW_UPLINK", body, RECEIVED, metadata)]


def test_a_device_without_a_product_says_so_nowhere():
    (draft,) = drafts(CBOR, ONE_CBOR, RECEIVED, NOTHING, device_id=DEVICE, product_id="")
    assert draft.metadata == {"ct": "cbor", "deviceId": DEVICE}


@pytest.mark.spec("CT-S10")
@pytest.mark.parametrize(
    ("ct", "body", "why"),
    [
        *[(JSON, *each) for each in BAD_JSON],
        *[(CBOR, *each) for each in BAD_CBOR],
        *[(PROTO, *each) for each in BAD_PROTO],
    ],
)
def test_what_is_wrong_is_told_with_its_place(ct, body, why):
    with pytest.raises(BadInput) as caught:
        read(ct, body)
    assert why in str(caught.value)
    assert caught.value.reason


@pytest.mark.parametrize("length", range(len(ONE_CBOR)))
def test_cbor_cut_off_at_any_byte_is_refused(length):
    with pytest.raises(BadInput):
        read(CBOR, ONE_CBOR[:length])


@given(st.sampled_from([JSON, CBOR, PROTO]), st.binary(max_size=200))
@example(CBOR, b"\xc1\xfb\x7f\xf8\0\0\0\0\0\0")
def test_any_bytes_are_taken_or_refused_and_nothing_else(ct, body):
    try:
        made = read(ct, body)
    except BadInput:
        return
    assert made


@pytest.mark.spec("CT-S6", "CT-S12")
@pytest.mark.parametrize(
    ("ct", "body", "facets", "why"),
    [
        (CUSTOM, b"x", {}, "custom data needs a transform function"),
        (CUSTOM, b"x", {"protobuf": PROTOBUF}, "custom data needs a transform function"),
        (PROTO, as_proto(json.loads(ONE)), {"transform": TRANSFORM}, "need a message definition"),
        (PROTO, b"\x08\x05", {"protobuf": FRAME}, "no transform function for it"),
        (PROTO, b"", {"protobuf": PROTOBUF | {"message": "Nope"}}, "no message 'Nope'"),
        (PROTO, b"", {"protobuf": "broken"}, "protobuf definition"),
    ],
)
def test_what_the_product_lacks_is_refused_at_the_door(ct, body, facets, why):
    formats = Formats(facets, "p1")
    for _ in range(2):  # the second time from what was kept
        with pytest.raises(BadInput) as caught:
            read(ct, body, formats)
        assert why in str(caught.value)


@pytest.mark.spec("CT-S6")
def test_a_message_without_records_is_left_to_the_transform_function():
    (draft,) = read(PROTO, b"\x08\x05", Formats({"protobuf": FRAME, "transform": TRANSFORM}, "p1"))
    assert (draft.type, draft.data) == ("RAW_UPLINK", b"\x08\x05")


def test_while_the_product_is_not_at_hand_the_chain_is_left_to_check():
    for ct in (PROTO, CUSTOM):
        assert read(ct, b"\xff", None)[0].data == b"\xff"
    for ct in (JSON, CBOR):
        with pytest.raises(BadInput):
            read(ct, b"\xff", None)


@pytest.mark.spec("CT-32")
@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("application/json", JSON),
        ("Application/JSON; charset=utf-8", JSON),
        (" application/cbor ;x", CBOR),
        ("application/octet-stream", PROTO),
        ("text/plain", CUSTOM),
        ("application/json+x", CUSTOM),
        ("application/x-www-form-urlencoded", CUSTOM),
        ("", CUSTOM),
        (None, CUSTOM),
    ],
)
def test_the_format_goes_by_the_content_type(header, expected):
    assert format_of_content_type(header) == expected


@pytest.mark.spec("CT-22", "CT-23", "CT-S13")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("ct=json", JSON),
        ("ct=cbor", CBOR),
        ("ct=proto", PROTO),
        ("ct=custom", CUSTOM),
        ("ct=json&x=1", JSON),
        ("x=1&ct=cbor", CBOR),
        ("x&ct=cbor&", CBOR),
        ("ct=xml", CUSTOM),
        ("ct=xml&ct=json", CUSTOM),
        ("ct=JSON", CUSTOM),
        ("ct=", CUSTOM),
        ("CT=json", CUSTOM),
        ("", CUSTOM),
        ("&&&=&%", CUSTOM),
        ("ct=json?ct=cbor", CUSTOM),
    ],
)
def test_the_format_goes_by_the_parameter_of_the_topic(query, expected):
    assert format_of_query(query) == expected
