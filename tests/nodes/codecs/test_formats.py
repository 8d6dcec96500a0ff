"""One content in all formats gives the same records."""

import json
from typing import Any

import cbor2
import pytest
from google.protobuf import descriptor_pb2, struct_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.codecs.cbor import decode_cbor
from nodes.codecs.protobuf import ProtoCodec
from nodes.codecs.records import Record, records, transform_result
from nodes.codecs.values import decode_json
from tests.nodes.codecs.definitions import cloudthing_set, message_class, serialized, typed_set

NOW = 1_700_000_000_123
T0 = 1_462_281_856_000

SHORT = {
    "index": "i", "records": "r", "key": "k", "value": "v", "time": "t", "geo": "g", "lat": "lt", "lon": "ln",
}  # fmt: skip

PROTO = ProtoCodec(cloudthing_set(), "Data")
Data = message_class(cloudthing_set(), "Data")
TYPED = ProtoCodec(typed_set(), "Data")
TypedData = message_class(
    serialized(descriptor_pb2.FileDescriptorProto.FromString(struct_pb2.DESCRIPTOR.serialized_pb)) + typed_set(), "Data"
)


def short(document: Any) -> Any:
    if isinstance(document, list):
        return [short(member) for member in document]
    if isinstance(document, dict):
        return {SHORT[name]: short(member) for name, member in document.items()}
    return document


def as_protobuf(document: dict[str, Any]) -> bytes:
    """For the definition of CT-S6: names as keys, doubles as values and times."""
    index = document.get("index", [])
    entries = [
        short(entry | {"key": index[entry["key"]] if isinstance(entry["key"], int) else entry["key"]})
        for entry in document["records"]
    ]
    return bytes(Data(i=index, r=entries).SerializeToString())


def as_typed_protobuf(document: dict[str, Any]) -> bytes:
    """For the definition with positions, text times and any value; it has no geo."""
    message = TypedData(index=document.get("index", []))
    for entry in document["records"]:
        made = message.records.add()
        setattr(made, "k" if isinstance(entry["key"], int) else "key", entry["key"])
        if isinstance(entry["value"], float):
            made.value = entry["value"]
        else:
            struct = struct_pb2.Struct()
            struct.update({"v": entry["value"]})
            made.v.ParseFromString(struct.fields["v"].SerializeToString())
        if "time" in entry:
            setattr(made, "time" if isinstance(entry["time"], str) else "t", entry["time"])
    return bytes(message.SerializeToString())


FIXTURES = [
    pytest.param(
        {"records": [{"key": "temp", "value": 36.6}, {"key": "bat", "value": 3.5}]},
        [Record("temp", 36.6, NOW), Record("bat", 3.5, NOW)],
        id="CT-8",
    ),
    pytest.param(
        {
            "records": [
                {"key": "temp", "value": 36.6, "time": "2016-05-03T13:24:16Z"},
                {"key": "bat", "value": 3.5, "time": 6},
            ]
        },
        [Record("temp", 36.6, T0), Record("bat", 3.5, T0 + 6000)],
        id="CT-10",
    ),
    pytest.param(
        {
            "records": [
                {"key": "temp", "value": 36.6, "geo": {"lat": 52.24325, "lon": 26.32256}},
                {"key": "bat", "value": 3.5},
            ]
        },
        [Record("temp", 36.6, NOW, {"lat": 52.24325, "lon": 26.32256}), Record("bat", 3.5, NOW)],
        id="CT-11",
    ),
    pytest.param(
        {"index": ["temp", "bat"], "records": [{"key": 0, "value": 36.6}, {"key": 1, "value": 3.5}]},
        [Record("temp", 36.6, NOW), Record("bat", 3.5, NOW)],
        id="CT-12",
    ),
    pytest.param(
        {
            "index": ["temp", "bat"],
            "records": [
                {"key": 0, "value": 36.6, "geo": {"lat": 52.24325, "lon": 26.32256}},
                {"key": 1, "value": 3.5},
            ],
        },
        [Record("temp", 36.6, NOW, {"lat": 52.24325, "lon": 26.32256}), Record("bat", 3.5, NOW)],
        id="CT-13",
    ),
]


@pytest.mark.spec("CT-7", "CT-8", "CT-10", "CT-11", "CT-12", "CT-13", "CT-14", "CT-15", "CT-16", "CT-S3", "CT-S6")
@pytest.mark.parametrize(("document", "expected"), FIXTURES)
def test_every_fixture_in_every_format(document, expected):
    assert records(decode_json(json.dumps(document).encode()), NOW) == expected
    assert records(decode_json(json.dumps(short(document)).encode()), NOW) == expected
    assert records(decode_cbor(cbor2.dumps(document)), NOW) == expected
    assert records(decode_cbor(cbor2.dumps(short(document))), NOW) == expected
    assert transform_result(document, NOW) == expected
    if any("geo" in entry for entry in document["records"]):
        assert records(PROTO.decode(as_protobuf(document)), NOW) == expected
    else:
        assert records(TYPED.decode(as_typed_protobuf(document)), NOW) == expected


names = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
times = (
    st.floats(-99_999_999, 99_999_999).map(lambda number: round(number, 3))
    | st.integers(10**8, 9 * 10**9).map(float)
    | st.integers(10**11, 9 * 10**12).map(float)
)


@st.composite
def documents(draw: st.DrawFn, values: st.SearchStrategy[Any], text_times: bool) -> dict[str, Any]:
    index = draw(st.lists(names, max_size=3))
    entries = []
    for _ in range(draw(st.integers(1, 5))):
        keys = names | st.integers(0, len(index) - 1) if index else names
        entry = {"key": draw(keys), "value": draw(values)}
        if draw(st.booleans()):
            text = st.datetimes().map(lambda moment: f"{moment.replace(year=2000 + moment.year % 200).isoformat()}Z")
            entry["time"] = draw(times | text if text_times else times)
        if not text_times and draw(st.booleans()):
            entry["geo"] = {"lat": draw(st.floats(-90, 90)), "lon": draw(st.floats(-180, 180))}
        entries.append(entry)
    return {"records": entries} | ({"index": index} if index else {})


def from_all_texts(document: dict[str, Any]) -> list[Any]:
    return [
        decode_json(json.dumps(document).encode()),
        decode_json(json.dumps(short(document)).encode()),
        decode_cbor(cbor2.dumps(document)),
        decode_cbor(cbor2.dumps(short(document), canonical=False, indefinite_containers=True)),
    ]


def comparable(decoded: Any) -> str:
    """With 1, 1.0 and True told apart; the errors are part of the outcome."""
    return repr(records(decoded, NOW))


@pytest.mark.spec("CT-7", "CT-14", "CT-15", "CT-S6")
@settings(deadline=None)
@given(documents(st.floats(allow_nan=False, allow_infinity=False), text_times=False))
def test_equal_content_with_places_gives_equal_records(document):
    expected, *others = [comparable(decoded) for decoded in from_all_texts(document)]
    assert [*others, comparable(PROTO.decode(as_protobuf(document)))] == [expected] * 4


scalars = st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.text(st.characters(codec="utf-8"))
nested = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)


@pytest.mark.spec("CT-7", "CT-9", "CT-S1")
@settings(deadline=None)
@given(documents(nested, text_times=True))
def test_equal_content_of_any_type_gives_equal_records(document):
    expected, *others = [records(decoded, NOW) for decoded in from_all_texts_of_values(document)]
    assert others == [expected] * 3
    # A Struct does not keep the order of its members, which equality does not ask for.
    assert records(TYPED.decode(as_typed_protobuf(document)), NOW) == expected


def from_all_texts_of_values(document: dict[str, Any]) -> list[Any]:
    shortened = {
        SHORT[name]: [{SHORT[key]: value for key, value in entry.items()} for entry in member]
        if name == "records"
        else member
        for name, member in document.items()
    }
    return [
        decode_json(json.dumps(document).encode()),
        decode_json(json.dumps(shortened).encode()),
        decode_cbor(cbor2.dumps(document)),
        decode_cbor(cbor2.dumps(shortened)),
    ]
