import base64
import json
from typing import Any

import cbor2
import msgspec
import pytest

from nodes import BadInput, Message, Product, Reply
from nodes.codecs.formats import MAX_PRODUCTS
from nodes.decode import Config, Decode
from tests.nodes.codecs.definitions import Field, cloudthing_set, field, file, message_class, serialized
from tests.nodes.context import DictBuild, DictContext, build, emitted, message, run

RECEIVED = 1_700_000_000_123
T0 = 1_462_281_856_000

Data = message_class(cloudthing_set(), "Data")
CLOUDTHING = {"descriptor_set_b64": base64.b64encode(cloudthing_set()).decode(), "message": "Data"}


def frame_set() -> bytes:
    """A root without records."""
    made = file()
    made.message_type.add(name="Frame").field.append(field("raw", 1, Field.TYPE_INT32))
    return serialized(made)


FRAME = {"descriptor_set_b64": base64.b64encode(frame_set()).decode(), "message": "Frame"}


class ProductContext(DictContext):
    """With products, and a count of how often each was asked for."""

    def __init__(self, *products: Product) -> None:
        super().__init__()
        self.products = {product.id: product for product in products}

    async def product(self, product_id: str) -> Product | None:
        return self.products.get(product_id)


def product(revision: int = 1, id: str = "p1", **facets: Any) -> Product:
    return Product(id=id, tenant="acme", facets=facets, revision=revision)


def raw(data: Any, ct: str = "", **metadata: str) -> Message:
    known = {"productId": "p1", "deviceId": "SoMEc0MpL1Cat3D1D"} | ({"ct": ct} if ct else {}) | metadata
    return message(data, type="RAW_UPLINK", ts_ms=RECEIVED, metadata=known)


def told(out: Any) -> list[tuple[str, int, Any, str | None, str | None]]:
    return [
        (sent.type, sent.ts_ms, sent.data, sent.metadata.get("ts"), sent.metadata.get("geo"))
        for sent in emitted(out).get("Success", [])
    ]


def telemetry(data: Any, ts_ms: int = RECEIVED, geo: str | None = None) -> Any:
    return ("POST_TELEMETRY_REQUEST", ts_ms, data, str(ts_ms), geo)


DOCUMENT = {"r": [{"k": "temp", "v": 36.6}, {"k": "bat", "v": 3.5}]}
PROTO_BODY = Data(**DOCUMENT).SerializeToString()


@pytest.mark.asyncio
@pytest.mark.spec("CT-7", "CT-16", "CT-70", "CT-71")
@pytest.mark.parametrize(
    ("ct", "data"),
    [
        ("json", json.dumps(DOCUMENT).encode()),
        ("json", DOCUMENT),
        ("cbor", cbor2.dumps(DOCUMENT)),
        ("cbor", {"raw_b64": base64.b64encode(cbor2.dumps(DOCUMENT)).decode(), "hex": cbor2.dumps(DOCUMENT).hex()}),
        ("proto", PROTO_BODY),
        ("custom", b"\x24\x3c\x23"),
        ("", b"\x24\x3c\x23"),
        ("sigfox", {"raw_b64": "JDwj", "hex": "243c23"}),
    ],
)
async def test_the_codec_goes_by_the_type_the_device_named(ct, data):
    source = "return {temp = msg.bytes[1] + msg.bytes[2] / 100, bat = msg.bytes[3] / 10}"
    ctx = ProductContext(product(protobuf=CLOUDTHING, transform={"lang": "lua", "source": source}))
    out = await run(build(Decode), raw(data, ct), ctx=ctx)
    assert told(out) == [telemetry({"temp": 36.6, "bat": 3.5})]
    (sent,) = emitted(out)["Success"]
    assert sent.metadata["deviceId"] == "SoMEc0MpL1Cat3D1D"
    assert (sent.id, sent.originator) == ("m1", "dev1")


@pytest.mark.asyncio
@pytest.mark.spec("CT-70", "CT-11")
async def test_one_message_per_time_with_places():
    document = {
        "records": [
            {"key": "temp", "value": 36.6, "time": "2016-05-03T13:24:16Z", "geo": {"lat": 52.5, "lon": 26.25}},
            {"key": "bat", "value": 3.5, "time": -6},
            {"key": "hum", "value": 40, "time": 6},
        ]
    }
    out = await run(build(Decode, codec="json"), raw(document, geo="of something else"))
    assert told(out) == [
        telemetry({"temp": 36.6, "hum": 40}, T0, '{"temp":{"lat":52.5,"lon":26.25}}'),
        telemetry({"bat": 3.5}, T0 - 6000),
    ]


@pytest.mark.asyncio
@pytest.mark.spec("CT-16", "CT-S19")
@pytest.mark.parametrize(
    ("lang", "source"),
    [
        ("js", 'return [{key: "temp", value: msg.bytes[1]}];'),
        ("lua", 'return {{key = "temp", value = msg.bytes[2]}}'),
        ("lua", ["local t = msg.bytes[2]", "return {temp = t}"]),
        ("js", "return {msg: {temp: parseInt(msg.hex.slice(2), 16)}, metadata: metadata, msgType: msgType};"),
    ],
)
@pytest.mark.parametrize("where", ["product", "node"])
async def test_the_fixture_of_transform_functions(lang, source, where):
    function = {"lang": lang, "source": source}
    ctx = ProductContext(product(transform=function) if where == "product" else product())
    node = build(Decode, codec="custom", **(function if where == "node" else {}))
    assert told(await run(node, raw(bytes.fromhex("0125")), ctx=ctx)) == [telemetry({"temp": 37})]


@pytest.mark.asyncio
@pytest.mark.spec("CT-S19")
async def test_the_function_sees_the_metadata_and_three_forms_of_the_bytes():
    source = "return {hex = msg.hex, b64 = msg.raw_b64, n = #msg.bytes, dev = metadata.deviceId, type = msgType}"
    out = await run(build(Decode, source=source), raw(b"\x01\x25", "custom"))
    assert told(out) == [
        telemetry({"hex": "0125", "b64": "ASU=", "n": 2, "dev": "SoMEc0MpL1Cat3D1D", "type": "RAW_UPLINK"})
    ]


@pytest.mark.asyncio
@pytest.mark.spec("CT-S19")
@pytest.mark.parametrize("source", ["return nil", "return {}", "return {records = {}}", "local x = 1"])
async def test_nothing_from_the_function_ends_the_message(source):
    out = await run(build(Decode, source=source), raw(b"\x01"))
    assert list(out.discarded) == [0]


@pytest.mark.asyncio
@pytest.mark.spec("CT-S19")
@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("return 37", "returns records"),
        ("return {{key = 'temp'}}", "/0/value"),
        ("error('no such frame')", "no such frame"),
        ("return {temp = 0/0}", "nan"),
    ],
)
async def test_what_the_function_does_wrong_fails_the_message(source, why):
    out = await run(build(Decode, source=source), raw(b"\x01"))
    assert why in out.failed[0]
    assert not out.emitted


@pytest.mark.asyncio
async def test_the_function_may_ask_to_be_tried_again():
    out = await run(build(Decode, source="retry(3, 'not yet')"), raw(b"\x01"))
    assert (out.retried[0].reason, out.retried[0].after_s) == ("not yet", 3)


@pytest.mark.asyncio
@pytest.mark.spec("CT-S6")
async def test_protobuf_without_records_goes_to_the_function_as_an_object():
    function = {"lang": "lua", "source": "return {temp = msg.raw / 10}"}
    ctx = ProductContext(product(protobuf=FRAME, transform=function))
    out = await run(build(Decode), raw(b"\x08\x05", "proto"), raw(b"", "proto"), ctx=ctx)
    assert told(out) == [telemetry({"temp": 0.5}), telemetry({"temp": 0})]


@pytest.mark.asyncio
@pytest.mark.spec("CT-S6", "CT-S12")
@pytest.mark.parametrize(
    ("products", "data", "ct", "why"),
    [
        ([product()], b"", "proto", "no protobuf definition"),
        ([product()], b"", "custom", "no transform function"),
        ([product(protobuf=FRAME)], b"", "proto", "no transform function"),
        ([], b"", "proto", "no product 'p1'"),
        ([product(protobuf={"message": "M"})], b"", "proto", "descriptor_set_b64"),
        ([product(protobuf={"message": "M", "descriptor_set_b64": "?"})], b"", "proto", "base64"),
        ([product(protobuf=CLOUDTHING | {"message": "Nope"})], b"", "proto", "Nope"),
        ([product(transform={"lang": "lua", "source": "return ("})], b"", "custom", "line 1"),
        ([product(transform={"lang": "cobol", "source": ""})], b"", "custom", "cobol"),
        ([product(transform={"lang": "lua"})], b"", "custom", "source"),
        ([product(transform="return 1")], b"", "custom", "object"),
        ([product(protobuf=CLOUDTHING)], b"\xff", "proto", "not a message"),
        ([product(protobuf=CLOUDTHING)], DOCUMENT, "proto", "not bytes"),
        ([product(protobuf=CLOUDTHING)], b"", "proto", "/r: records are empty"),
        ([], b"\xff", "cbor", "not CBOR"),
        ([], {"raw_b64": "?"}, "cbor", "/raw_b64: not base64"),
        ([], "text", "cbor", "not bytes"),
        ([], b"{", "json", "not JSON"),
        ([], b'{"r":[]}', "json", "/r: records are empty"),
        ([], b'{"r":[{"k":"a","v":1},{"v":1}]}', "json", "/r/1/key"),
        ([], None, "json", "expected an object"),
    ],
)
async def test_failures_say_what_and_where(products, data, ct, why):
    ctx = ProductContext(*products)
    node = build(Decode)
    for _ in range(2):  # the second time from what was kept
        out = await run(node, raw(data, ct), ctx=ctx)
        assert why in out.failed[0]


@pytest.mark.asyncio
async def test_without_a_product_id_the_reason_says_so():
    out = await run(build(Decode), message(b"", type="RAW_UPLINK", metadata={"ct": "proto"}))
    assert "productId" in out.failed[0]


@pytest.mark.asyncio
async def test_one_bad_message_does_not_touch_its_neighbours_and_order_is_kept():
    function = {"lang": "lua", "source": "if msg.bytes[1] == 0 then error('zero') end return {n = msg.bytes[1]}"}
    ctx = ProductContext(product(transform=function))
    two = {"r": [{"k": "n", "v": 4}, {"k": "n", "v": 5, "t": 1}]}
    batch = [
        raw(b"\x01"),
        raw({"r": [{"k": "n", "v": 2}]}, "json"),
        raw(b"\x00"),
        raw(two, "json"),
        raw(b"", "cbor"),
        raw(b"\x06"),
    ]
    out = await run(build(Decode), *batch, ctx=ctx)
    assert [(i, sent.data["n"]) for i, sent in out.emitted["Success"]] == [(0, 1), (1, 2), (3, 4), (3, 5), (5, 6)]
    assert sorted(out.failed) == [2, 4]


@pytest.mark.asyncio
async def test_plain_gives_the_content_as_data():
    node = build(Decode, codec="cbor", shape="plain")
    (sent,) = emitted(await run(node, raw(cbor2.dumps([1, {"a": None}]))))["Success"]
    assert (sent.type, sent.data, sent.ts_ms) == ("RAW_UPLINK", [1, {"a": None}], RECEIVED)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("config", "data", "expected"),
    [
        ({"codec": "json"}, b'{"a":1}', {"a": 1}),
        ({"codec": "protobuf", "protobuf": FRAME}, b"\x08\x05", {"raw": 5}),
        ({"codec": "custom", "source": "return {msg = {n = #msg.bytes}, msgType = 'X'}"}, b"ab", {"n": 2}),
        ({"codec": "custom", "source": "return #msg.bytes"}, b"ab", 2),
    ],
)
async def test_plain_with_a_type(config, data, expected):
    node = build(Decode, shape="plain", to_type="STATE", **config)
    (sent,) = emitted(await run(node, raw(data)))["Success"]
    assert (sent.type, sent.data) == ("STATE", expected)


@pytest.mark.asyncio
async def test_plain_nothing_ends_the_message():
    out = await run(build(Decode, shape="plain", codec="custom", source="return nil"), raw(b"ab"))
    assert list(out.discarded) == [0]
    assert out.effects == []


@pytest.mark.asyncio
@pytest.mark.spec("TTI-X12")
@pytest.mark.parametrize(
    ("type", "shape", "told"),
    [
        ("PARSE_REQUEST", "plain", [(0, Reply(None))]),
        ("PARSE_REQUEST", "records", []),
        ("DEVICE_EVENT", "plain", []),
    ],
)
async def test_nothing_is_told_to_who_asked_what_was_parsed(type, shape, told):
    asked = msgspec.structs.replace(raw(b"ab"), type=type, reply_to="p/1")
    out = await run(build(Decode, shape=shape, codec="custom", source="return nil"), asked)
    assert (list(out.discarded), out.effects) == ([0], told)


@pytest.mark.asyncio
async def test_a_json_value_goes_to_the_function_as_it_is():
    out = await run(build(Decode, source="return {t = msg.payload.t}"), raw({"payload": {"t": 7}, "raw_b64": "x"}))
    assert told(out) == [telemetry({"t": 7})]


@pytest.mark.asyncio
async def test_a_new_revision_of_the_product_is_used_from_then_on():
    ctx = ProductContext(product(1, transform={"lang": "lua", "source": "return {v = 1}"}))
    node = build(Decode)
    assert told(await run(node, raw(b"x"), ctx=ctx)) == [telemetry({"v": 1})]
    changed = {"lang": "lua", "source": "return {v = 2}"}
    ctx.products["p1"] = product(1, transform=changed)
    assert told(await run(node, raw(b"x"), ctx=ctx)) == [telemetry({"v": 1})]
    ctx.products["p1"] = product(2, transform=changed)
    assert told(await run(node, raw(b"x"), ctx=ctx)) == [telemetry({"v": 2})]


@pytest.mark.asyncio
async def test_products_have_formats_of_their_own_and_the_number_kept_is_bounded():
    products = [product(1, id=f"p{n}", protobuf=CLOUDTHING if n % 2 else FRAME) for n in range(MAX_PRODUCTS + 10)]
    ctx = ProductContext(*products)
    node = build(Decode, shape="plain")
    batch = [raw(b"", "proto", productId=each.id) for each in products]
    out = await run(node, *batch, ctx=ctx)
    assert [sent.data for sent in emitted(out)["Success"]] == [
        {"i": [], "r": []} if n % 2 else {"raw": 0} for n in range(len(products))
    ]
    assert len(node._products._kept) == MAX_PRODUCTS


@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ({"to_type": "X"}, "/to_type"),
        ({"protobuf": {"descriptor_set_b64": "?", "message": "M"}}, "/protobuf"),
        ({"protobuf": CLOUDTHING | {"message": "Nope"}}, "/protobuf"),
        ({"source": "return ("}, "/source"),
        ({"lang": "js", "source": ["let x = 1;", "return (;"]}, "/source"),
        ({"file": "missing.lua"}, "/file"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_found_before_it_runs(config, pointer):
    with pytest.raises(BadInput) as caught:
        build(Decode, **config)
    assert caught.value.pointer == pointer


@pytest.mark.asyncio
async def test_the_function_may_stand_in_a_file_beside_the_chain():
    surroundings = DictBuild(files={"convert.lua": "return {n = #msg.bytes}"})
    config = Config(file="convert.lua")
    assert Decode.check(config, surroundings) == []
    assert told(await run(Decode(config, surroundings), raw(b"abc"))) == [telemetry({"n": 3})]
    both = Config(file="convert.lua", source="return {}")
    assert [finding.pointer for finding in Decode.check(both, surroundings)] == ["/file"]


@pytest.mark.parametrize("example", Decode.spec.examples, ids=lambda example: example.title)
def test_the_examples_build(example):
    build(Decode, **example.config)


@pytest.mark.asyncio
async def test_the_example_of_two_bytes_reads_them():
    (custom,) = (example for example in Decode.spec.examples if example.config.get("codec") == "custom")
    assert told(await run(build(Decode, **custom.config), raw(b"\x01\x76"))) == [telemetry({"temp": 37.4})]
