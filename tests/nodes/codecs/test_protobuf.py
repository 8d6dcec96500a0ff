import contextlib
from typing import Any

import pytest
from google.protobuf import any_pb2, descriptor_pb2, struct_pb2, timestamp_pb2, wrappers_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BadInput
from nodes.codecs.protobuf import MAX_ENTRIES, MAX_SET_BYTES, ProtoCodec
from nodes.codecs.values import check_value
from tests.nodes.codecs.definitions import Field, cloudthing_set, field, file, message_class, serialized


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def inside(tag: int, body: bytes) -> bytes:
    return varint(tag << 3 | 2) + varint(len(body)) + body


def zoo_set() -> bytes:
    """One message with every kind of field; it can hold itself."""
    made = file(
        "zoo.proto",
        package="zoo",
        dependency=sorted(f.DESCRIPTOR.name for f in (struct_pb2, timestamp_pb2, wrappers_pb2)),
    )
    kind = made.enum_type.add(name="Kind")
    kind.value.add(name="UNKNOWN", number=0)
    kind.value.add(name="WARM", number=1)
    zoo = made.message_type.add(name="Zoo")
    entry = zoo.nested_type.add(name="CountsEntry")
    entry.options.map_entry = True
    entry.field.extend([field("key", 1, Field.TYPE_STRING), field("value", 2, Field.TYPE_INT64)])
    entry = zoo.nested_type.add(name="BoolsEntry")
    entry.options.map_entry = True
    entry.field.extend([field("key", 1, Field.TYPE_BOOL), field("value", 2, Field.TYPE_MESSAGE, type_name=".zoo.Zoo")])
    entry = zoo.nested_type.add(name="KindsEntry")
    entry.options.map_entry = True
    entry.field.extend([field("key", 1, Field.TYPE_INT32), field("value", 2, Field.TYPE_ENUM, type_name=".zoo.Kind")])
    for name in ("choice", "_opt"):
        zoo.oneof_decl.add(name=name)
    zoo.field.extend(
        [
            field("b", 1, Field.TYPE_BOOL),
            field("i32", 2, Field.TYPE_INT32),
            field("s64", 3, Field.TYPE_SINT64),
            field("u64", 4, Field.TYPE_UINT64),
            field("f", 5, Field.TYPE_FLOAT),
            field("d", 6, Field.TYPE_DOUBLE),
            field("s", 7, Field.TYPE_STRING),
            field("raw", 8, Field.TYPE_BYTES),
            field("kind", 9, Field.TYPE_ENUM, type_name=".zoo.Kind"),
            field("opt", 10, Field.TYPE_INT32, optional_oneof=1),
            field("text", 11, Field.TYPE_STRING, oneof=0),
            field("number", 12, Field.TYPE_DOUBLE, oneof=0),
            field("self", 13, Field.TYPE_MESSAGE, type_name=".zoo.Zoo"),
            field("ints", 14, Field.TYPE_INT32, repeated=True),
            field("raws", 15, Field.TYPE_BYTES, repeated=True),
            field("kinds", 16, Field.TYPE_ENUM, type_name=".zoo.Kind", repeated=True),
            field("selves", 17, Field.TYPE_MESSAGE, type_name=".zoo.Zoo", repeated=True),
            field("counts", 18, Field.TYPE_MESSAGE, type_name=".zoo.Zoo.CountsEntry", repeated=True),
            field("bools", 19, Field.TYPE_MESSAGE, type_name=".zoo.Zoo.BoolsEntry", repeated=True),
            field("by_number", 20, Field.TYPE_MESSAGE, type_name=".zoo.Zoo.KindsEntry", repeated=True),
            field("any_value", 21, Field.TYPE_MESSAGE, type_name=".google.protobuf.Value"),
            field("struct", 22, Field.TYPE_MESSAGE, type_name=".google.protobuf.Struct"),
            field("at", 23, Field.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp"),
            field("wrapped", 24, Field.TYPE_MESSAGE, type_name=".google.protobuf.Int64Value"),
            field("wrapped_raw", 25, Field.TYPE_MESSAGE, type_name=".google.protobuf.BytesValue"),
        ]
    )
    return serialized(made)


# A custom pool needs the well-known files before a class can be made of the set in a test.
def zoo_class() -> Any:
    known = [f.DESCRIPTOR for f in (struct_pb2, timestamp_pb2, wrappers_pb2)]
    files = [descriptor_pb2.FileDescriptorProto.FromString(each.serialized_pb) for each in known]
    return message_class(serialized(*files) + zoo_set(), "zoo.Zoo")


Zoo = zoo_class()
ZOO = ProtoCodec(zoo_set(), "zoo.Zoo")
EMPTY: dict[str, Any] = {
    "b": False,
    "i32": 0,
    "s64": 0,
    "u64": 0,
    "f": 0.0,
    "d": 0.0,
    "s": "",
    "raw": "",
    "kind": "UNKNOWN",
    "ints": [],
    "raws": [],
    "kinds": [],
    "selves": [],
    "counts": {},
    "bools": {},
    "by_number": {},
}


@pytest.mark.spec("CT-S6")
def test_without_presence_there_is_the_default_and_with_presence_nothing():
    assert ZOO.decode(b"") == EMPTY


@pytest.mark.spec("CT-S6")
def test_with_presence_the_default_is_told_when_it_was_sent():
    zoo = Zoo(opt=0, text="")
    zoo.self.SetInParent()
    zoo.wrapped.SetInParent()
    assert ZOO.decode(zoo.SerializeToString()) == EMPTY | {"opt": 0, "text": "", "self": EMPTY, "wrapped": 0}


@pytest.mark.spec("CT-15")
def test_every_kind_of_field():
    zoo = Zoo(b=True, i32=-5, s64=-(2**63), u64=2**63 - 1, f=0.5, d=36.6, s="ü", raw=b"\xff\x00", kind=1, number=-0.0)
    zoo.ints.extend([1, -1])
    zoo.raws.append(b"a")
    zoo.kinds.extend([1, 0, 7])
    zoo.selves.add(s="inner")
    zoo.counts["a"] = 2**40
    zoo.bools[True].s = "yes"
    zoo.by_number[-3] = 1
    zoo.any_value.list_value.extend([1, "x", None, True, {"deep": [2]}])
    zoo.struct.update({"k": None})
    zoo.at.seconds, zoo.at.nanos = 1462281856, 500_000_000
    zoo.wrapped.value = 42
    zoo.wrapped_raw.value = b"a"
    assert ZOO.decode(zoo.SerializeToString()) == EMPTY | {
        "b": True,
        "i32": -5,
        "s64": -(2**63),
        "u64": 2**63 - 1,
        "f": 0.5,
        "d": 36.6,
        "s": "ü",
        "raw": "/wA=",
        "kind": "WARM",
        "number": -0.0,
        "ints": [1, -1],
        "raws": ["YQ=="],
        "kinds": ["WARM", "UNKNOWN", 7],
        "selves": [EMPTY | {"s": "inner"}],
        "counts": {"a": 2**40},
        "bools": {"true": EMPTY | {"s": "yes"}},
        "by_number": {"-3": "WARM"},
        "any_value": [1.0, "x", None, True, {"deep": [2.0]}],
        "struct": {"k": None},
        "at": "2016-05-03T13:24:16.500000Z",
        "wrapped": 42,
        "wrapped_raw": "YQ==",
    }


@pytest.mark.parametrize(
    ("zoo", "pointer"),
    [
        (Zoo(u64=2**63), "/u64"),
        (Zoo(d=float("nan")), "/d"),
        (Zoo(f=float("inf")), "/f"),
        (Zoo(self=Zoo(number=float("-inf"))), "/self/number"),
        (Zoo(selves=[Zoo(), Zoo(d=float("nan"))]), "/selves/1/d"),
        (Zoo(counts={"": 1}), "/counts/"),
        (Zoo(counts={"a\n": 1}), r"/counts/a\n"),
    ],
)
def test_values_are_held_to_the_common_rules(zoo, pointer):
    with pytest.raises(BadInput) as caught:
        ZOO.decode(zoo.SerializeToString())
    assert caught.value.pointer == pointer


@pytest.mark.parametrize("seconds", [2**62, -(2**62), 253402300800])
def test_a_timestamp_beyond_the_calendar_is_refused(seconds):
    zoo = Zoo()
    zoo.at.seconds = seconds
    with pytest.raises(BadInput, match="years"):
        ZOO.decode(zoo.SerializeToString())


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"\xff", "cut tag"),
        (b"\x00", "field number 0"),
        (b"\x0f", "wire type 7"),
        (b"\x10" + b"\x80" * 11 + b"\x01", "overlong varint"),
        (b"\x3a\x05ab", "text shorter than it says"),
        (b"\x3a\xff\xff\xff\xff\x07ab", "length of 2^31 - 1"),
        (b"\x3a\xff\xff\xff\xff\x0fab", "length of 2^32 - 1"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7fab", "length of 2^63 - 1"),
        (b"\x3a\x01\xff", "text that is not UTF-8"),
        (b"\x3a\x03\xed\xa0\x80", "a surrogate"),
        (b"\x72\x02\x80\x80", "packed integers cut short"),
        (b"\xfb\x07", "group of an unknown field without its end"),
        (b"\xfc\x07", "end of a group that never began"),
        (b"\xfb\x07" * 101 + b"\xfc\x07" * 101, "unknown groups inside each other"),
    ],
)
def test_broken_bytes_are_refused(body, what):
    with pytest.raises(BadInput):
        ZOO.decode(body)


def test_an_unknown_field_and_a_wrong_wire_type_are_skipped():
    assert ZOO.decode(inside(1000, b"x") + b"\x39" + b"\x00" * 8) == EMPTY


@pytest.mark.parametrize("depth", [32, 33, 99, 100, 101, 1000, 10_000])
def test_messages_inside_each_other_are_bounded(depth):
    body = b""
    for _ in range(depth):
        body = inside(13, body)
    with pytest.raises(BadInput):
        ZOO.decode(body)


@pytest.mark.parametrize("depth", [0, 1, 30])
def test_messages_inside_each_other_are_read(depth):
    body = b"\x08\x01"
    for _ in range(depth):
        body = inside(13, body)
    found = ZOO.decode(body)
    for _ in range(depth):
        found = found["self"]
    assert found["b"] is True


@pytest.mark.parametrize("depth", [40, 99])
def test_values_inside_each_other_are_bounded(depth):
    body = b""
    for _ in range(depth):
        body = inside(6, inside(1, body))
    with pytest.raises(BadInput):
        ZOO.decode(inside(21, body))


def test_a_field_that_repeats_without_end_is_refused():
    assert len(ZOO.decode(b"\x8a\x01\x00" * 1000)["selves"]) == 1000
    with pytest.raises(BadInput, match="repeats"):
        ZOO.decode(b"\x8a\x01\x00" * (MAX_ENTRIES + 1))


def test_every_truncation_is_a_message_or_bad_input():
    zoo = Zoo(d=36.6, s="text", raw=b"raw", number=1.0, ints=[1, 300], counts={"a": 1})
    zoo.selves.add(s="inner").self.s = "innermost"
    zoo.struct.update({"k": [1, {"a": "b"}]})
    body = zoo.SerializeToString()
    refused = 0
    for end in range(len(body)):
        try:
            check_value(ZOO.decode(body[:end]))
        except BadInput:
            refused += 1
    assert refused > len(body) / 2


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=100))
def test_any_bytes_are_a_message_or_bad_input(body):
    try:
        check_value(ZOO.decode(body))
    except BadInput:
        return


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(1, 26), st.binary(max_size=12)), max_size=6))
def test_known_fields_with_any_content_are_a_message_or_bad_input(fields):
    try:
        check_value(ZOO.decode(b"".join(inside(tag, body) for tag, body in fields)))
    except BadInput:
        return


def test_two_codecs_may_use_one_name_for_different_messages():
    first, second = file("a.proto"), file("a.proto")
    first.message_type.add(name="M").field.append(field("x", 1, Field.TYPE_INT32))
    second.message_type.add(name="M").field.append(field("y", 1, Field.TYPE_BOOL))
    assert ProtoCodec(serialized(first), "M").decode(b"\x08\x01") == {"x": 1}
    assert ProtoCodec(serialized(second), "M").decode(b"\x08\x01") == {"y": True}


def test_fields_may_be_called_like_the_methods_of_the_runtime():
    made = file()
    names = ["Clear", "from", "DESCRIPTOR", "SerializeToString", "WhichOneof", "class"]
    made.message_type.add(name="M").field.extend(field(n, i + 1, Field.TYPE_INT32) for i, n in enumerate(names))
    assert ProtoCodec(serialized(made), "M").decode(b"\x08\x01\x20\x02") == dict.fromkeys(names, 0) | {
        "Clear": 1,
        "SerializeToString": 2,
    }


@pytest.mark.parametrize("name", ["HasField", "FromString"])
@pytest.mark.parametrize("place", ["field", "message", "enum", "value"])
def test_names_that_would_hide_what_reads_them_are_refused(name, place):
    made = file()
    message = made.message_type.add(name="M")
    if place == "field":
        message.field.append(field(name, 1, Field.TYPE_INT32))
    elif place == "message":
        message.nested_type.add(name=name)
    else:
        enum = message.enum_type.add(name=name if place == "enum" else "E")
        enum.value.add(name=name if place == "value" else "ZERO", number=0)
    with pytest.raises(BadInput, match=name):
        ProtoCodec(serialized(made), "M")


@pytest.mark.spec("CT-S6")
def test_roots_with_and_without_records():
    assert ProtoCodec(cloudthing_set(), "Data").has_records
    assert not ProtoCodec(cloudthing_set(), "Record").has_records
    assert not ZOO.has_records


def broken_sets() -> dict[str, tuple[bytes, str]]:
    missing_import = file(dependency=["other.proto"])
    circle = [file("a.proto", dependency=["b.proto"]), file("b.proto", dependency=["a.proto"])]
    unknown_type = file()
    unknown_type.message_type.add(name="M").field.append(field("x", 1, Field.TYPE_MESSAGE, type_name=".Nope"))
    twice = file()
    twice.message_type.add(name="M").field.extend([field("x", 1, Field.TYPE_BOOL), field("y", 1, Field.TYPE_BOOL)])
    bad_name = file()
    bad_name.message_type.add(name="M; import os")
    group = file(syntax="proto2")
    message = group.message_type.add(name="M")
    message.nested_type.add(name="G")
    message.field.append(field("g", 1, Field.TYPE_GROUP, type_name=".M.G"))
    any_file = descriptor_pb2.FileDescriptorProto.FromString(any_pb2.DESCRIPTOR.serialized_pb)
    any_user = file(dependency=[any_file.name])
    inner = any_user.message_type.add(name="Inner")
    inner.field.append(field("a", 1, Field.TYPE_MESSAGE, type_name=".google.protobuf.Any"))
    any_user.message_type.add(name="M").field.append(
        field("inner", 1, Field.TYPE_MESSAGE, type_name=".Inner", repeated=True)
    )
    chain = file()
    for number in range(5000):
        chain.message_type.add(name=f"M{number or ''}").field.append(
            field("x", 1, Field.TYPE_MESSAGE, type_name=f".M{number + 1 if number < 4999 else ''}")
        )
    own_timestamp = file()
    own_timestamp.package = "google.protobuf"
    own_timestamp.message_type.add(name="Timestamp").field.append(field("x", 1, Field.TYPE_BOOL))
    fine = file()
    fine.message_type.add(name="N")
    return {
        "not a set": (b"\xff\xff", "FileDescriptorSet"),
        "nothing": (b"", "empty"),
        "proto source": (b'syntax = "proto3"; message M { }', "FileDescriptorSet"),
        "too long": (b"\x0a\x00" * MAX_SET_BYTES, "bytes"),
        "too many files": (serialized(*(file(f"{n}.proto") for n in range(1001))), "files"),
        "one name twice": (serialized(fine, fine), "two files"),
        "import is missing": (serialized(missing_import), "other.proto.*--include_imports"),
        "imports in a circle": (serialized(*circle), "circle"),
        "unknown type": (serialized(unknown_type), "Nope"),
        "number twice": (serialized(twice), "test.proto"),
        "bad name": (serialized(bad_name), "name"),
        "file without a name": (serialized(file("")), "M"),
        "unknown syntax": (serialized(file(syntax="proto9")), "syntax"),
        "group": (serialized(group), "M.g: groups"),
        "Any": (serialized(any_file, any_user), "Any"),
        "endless chain": (serialized(chain), "deeply"),
        "own well-known type": (serialized(own_timestamp), "duplicate"),
        "message is missing": (serialized(fine), "no message 'M'"),
    }


@pytest.mark.spec("CT-S6")
@pytest.mark.parametrize("case", broken_sets())
def test_sets_that_do_not_hold_are_refused(case):
    descriptor_set, why = broken_sets()[case]
    with pytest.raises(BadInput, match=why):
        ProtoCodec(descriptor_set, "M")


@pytest.mark.parametrize(
    "message", ["google.protobuf.Struct", "google.protobuf.Value", "", "zoo", ".zoo.Zoo", "\ud800"]
)
def test_what_cannot_be_a_root_is_refused(message):
    with pytest.raises(BadInput):
        ProtoCodec(zoo_set(), message)


def test_files_may_come_in_any_order():
    base, user = file("base.proto"), file("user.proto", dependency=["base.proto"])
    base.message_type.add(name="B").field.append(field("x", 1, Field.TYPE_BOOL))
    user.message_type.add(name="M").field.append(field("b", 1, Field.TYPE_MESSAGE, type_name=".B"))
    assert ProtoCodec(serialized(user, base), "M").decode(b"\x0a\x02\x08\x01") == {"b": {"x": True}}


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_damaged_set_builds_or_is_bad_input(data):
    body = bytearray(zoo_set())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        codec = ProtoCodec(bytes(body), "zoo.Zoo")
        check_value(codec.decode(b"\x08\x01"))
    except BadInput:
        return


@pytest.mark.parametrize(
    ("fields", "repeated"),
    [
        ([("key", 1)], True),
        ([("key", 1), ("value", 3)], True),
        ([("key", 1), ("worth", 2)], True),
        ([("key", 1), ("value", 2), ("more", 3)], True),
        ([("key", 1), ("value", 2)], False),
    ],
)
def test_an_entry_of_a_map_has_a_key_and_a_value(fields, repeated):
    made = file("m.proto")
    message = made.message_type.add(name="M")
    entry = message.nested_type.add(name="CountsEntry")
    entry.options.map_entry = True
    entry.field.extend(field(name, number, Field.TYPE_INT32) for name, number in fields)
    kind = Field.TYPE_MESSAGE
    message.field.append(field("counts", 1, kind, type_name=".M.CountsEntry", repeated=repeated))
    # Some the runtime refuses itself.
    with pytest.raises(BadInput, match=r"M\.CountsEntry says that it is of a map, and is not|m\.proto: "):
        ProtoCodec(serialized(made), "M")


def levels() -> bytes:
    """A message whose fields have other names in JSON, and one with a text."""
    made = file("levels.proto", package="levels")
    inner = made.message_type.add(name="Inner")
    inner.field.extend([field("inner_level", 1, Field.TYPE_INT32)])
    levels = made.message_type.add(name="Levels")
    levels.oneof_decl.add(name="_water_level")
    levels.field.extend(
        [
            field("battery_level", 1, Field.TYPE_INT64),
            field("water_level", 2, Field.TYPE_DOUBLE, optional_oneof=0),
            field("inner_part", 3, Field.TYPE_MESSAGE, type_name=".levels.Inner"),
            field("plain", 4, Field.TYPE_BOOL),
            field("some_text", 5, Field.TYPE_STRING),
        ]
    )
    return serialized(made)


@pytest.mark.spec("TB-X1")
def test_fields_may_go_by_their_names_in_json():
    codec = ProtoCodec(levels(), "levels.Levels", json_names=True)
    body = varint(1 << 3) + varint(7) + inside(3, varint(1 << 3) + varint(5))
    wanted = {"batteryLevel": 7, "plain": False, "someText": "", "innerPart": {"innerLevel": 5}}
    assert codec.decode(body) == wanted
    assert ProtoCodec(levels(), "levels.Levels").decode(body)["battery_level"] == 7


@pytest.mark.spec("TB-X1")
def test_a_message_is_written_from_its_json_form():
    codec = ProtoCodec(levels(), "levels.Levels", json_names=True)
    said = {"batteryLevel": 7, "waterLevel": 1.5, "innerPart": {"innerLevel": 5}, "someText": "x", "unknown": [1]}
    assert codec.decode(codec.encode(said)) == {
        "batteryLevel": 7, "plain": False, "someText": "x", "waterLevel": 1.5, "innerPart": {"innerLevel": 5},
    }  # fmt: skip
    written = codec.encode({"some_text": {"a": [1, 2.0]}})
    assert codec.decode(written)["someText"] == '{"a":[1,2.0]}'


@pytest.mark.parametrize(
    "value",
    [
        {"battery_level": "x"},
        {"battery_level": 2**70},
        {"plain": 5},
        {"inner_part": 1},
        {"inner_part": {"inner_level": []}},
        {"water_level": {}},
    ],
)
def test_what_a_field_cannot_hold_is_refused(value):
    with pytest.raises(BadInput, match="not a value of this type"):
        ProtoCodec(levels(), "levels.Levels").encode(value)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
))  # fmt: skip
def test_any_value_is_written_or_refused(value):
    codec = ProtoCodec(levels(), "levels.Levels")
    for name in ("battery_level", "water_level", "inner_part", "plain", "some_text"):
        with contextlib.suppress(BadInput):
            codec.decode(codec.encode({name: value}))
