"""The documented examples, the points they stand for, and data that must never be taken."""

import base64
import json
from typing import Any

import cbor2

from tests.nodes.codecs.definitions import Field, cloudthing_set, field, file, message_class, serialized

T0 = 1_462_281_856_000
"""2016-05-03T13:24:16Z"""

PLACE = {"lat": 52.24325, "lon": 26.32256}

# (name, document, points as (key, value, ms since T0 or None for the receive time, place))
DOCUMENTED: list[tuple[str, dict[str, Any], list[tuple[str, Any, int | None, Any]]]] = [
    (
        "CT-8",
        {"records": [{"key": "temp", "value": 36.6}, {"key": "bat", "value": 3.5}]},
        [("temp", 36.6, None, None), ("bat", 3.5, None, None)],
    ),
    (
        "CT-10",
        {
            "records": [
                {"key": "temp", "value": 36.6, "time": "2016-05-03T13:24:16Z"},
                {"key": "bat", "value": 3.5, "time": 6},
            ]
        },
        [("temp", 36.6, 0, None), ("bat", 3.5, 6000, None)],
    ),
    (
        "CT-11",
        {"records": [{"key": "temp", "value": 36.6, "geo": PLACE}, {"key": "bat", "value": 3.5}]},
        [("temp", 36.6, None, PLACE), ("bat", 3.5, None, None)],
    ),
    (
        "CT-12",
        {"index": ["temp", "bat"], "records": [{"key": 0, "value": 36.6}, {"key": 1, "value": 3.5}]},
        [("temp", 36.6, None, None), ("bat", 3.5, None, None)],
    ),
    (
        "CT-13",
        {"i": ["temp", "bat"], "r": [{"k": 0, "v": 36.6, "g": {"lt": 52.24325, "ln": 26.32256}}, {"k": 1, "v": 3.5}]},
        [("temp", 36.6, None, PLACE), ("bat", 3.5, None, None)],
    ),
]

ONE = b'{"r":[{"k":"temp","v":36.6}]}'
ONE_CBOR = bytes.fromhex("a1617281a2616b6474656d706176fb40424ccccccccccd")

Data = message_class(cloudthing_set(), "Data")
PROTOBUF = {"descriptor_set_b64": base64.b64encode(cloudthing_set()).decode(), "message": "Data"}
TRANSFORM = {"lang": "lua", "source": "return {temp = msg.bytes[1] + msg.bytes[2] / 100, bat = msg.bytes[3] / 10}"}
CUSTOM = b"\x24\x3c\x23"
"""What TRANSFORM reads as temp=36.6, bat=3.5."""


def frame_set() -> bytes:
    """A root message without records."""
    made = file()
    made.message_type.add(name="Frame").field.append(field("raw", 1, Field.TYPE_INT32))
    return serialized(made)


FRAME = {"descriptor_set_b64": base64.b64encode(frame_set()).decode(), "message": "Frame"}


def as_proto(document: dict[str, Any]) -> bytes:
    """The document in the definition of CT-S6, which knows names as keys, and seconds as times."""
    index = document.get("index", document.get("i", []))
    message = Data(i=index)
    for entry in document.get("records", document.get("r")):
        key = entry.get("key", entry.get("k"))
        record = message.r.add(k=index[key] if isinstance(key, int) else key, v=entry.get("value", entry.get("v")))
        time = entry.get("time", entry.get("t"))
        if time is not None:
            record.t = T0 / 1000 if isinstance(time, str) else time
        place = entry.get("geo", entry.get("g"))
        if place:
            record.g.lt, record.g.ln = place.values()
    return bytes(message.SerializeToString())


# (body, what the error must say)
BAD_JSON: list[tuple[bytes, str]] = [
    (b"", "not JSON"),
    (b"{", "not JSON"),
    (b"{}", "no records"),
    (b"[]", "expected an object"),
    (b"null", "expected an object"),
    (b"\xff\xfe", "not JSON"),
    (b'{"r":[]}', "/r: records are empty"),
    (b'{"records":{}}', "/records: records must be an array"),
    (b'{"r":[1]}', "/r/0: a record must be an object"),
    (b'{"r":[{"k":"a","v":1},{"v":1}]}', "/r/1/key: record without a key"),
    (b'{"r":[{"k":"a"}]}', "/r/0/value: record without a value"),
    (b'{"r":[{"k":"a","v":null}]}', "/r/0/v: value is null"),
    (b'{"r":[{"k":"","v":1}]}', "/r/0/k: key is empty"),
    (b'{"r":[{"k":0,"v":1}]}', "/r/0/k: key is a number, and there is no index"),
    (b'{"i":["a"],"r":[{"k":1,"v":1}]}', "/r/0/k: the index has no position 1"),
    (b'{"i":["a"],"r":[{"k":-1,"v":1}]}', "/r/0/k: the index has no position -1"),
    (b'{"index":"a","r":[{"k":0,"v":1}]}', "/index: index must be an array"),
    (b'{"i":[1],"r":[{"k":0,"v":1}]}', "/i/0"),
    (b'{"r":[{"k":"a","v":1,"t":"yesterday"}]}', "/r/0/t: time is not RFC 3339"),
    (b'{"r":[{"k":"a","v":1,"time":"2016-13-03T13:24:16Z"}]}', "/r/0/time: time is no date"),
    (b'{"r":[{"k":"a","v":1,"t":true}]}', "/r/0/t: time must be"),
    (b'{"r":[{"k":"a","v":1,"t":-1e9}]}', "/r/0/t: time is neither"),
    (b'{"r":[{"k":"a","v":1,"t":1e300}]}', "/r/0/t: time is out of range"),
    (b'{"r":[{"k":"a","v":1,"g":{"lt":91,"ln":0}}]}', "/r/0/g/lt: lat is not between"),
    (b'{"r":[{"k":"a","v":1,"geo":{"lat":1}}]}', "/r/0/geo/lon: geo needs"),
    (b'{"r":[{"k":"a","v":1,"g":[1,2]}]}', "/r/0/g: geo must be an object"),
    (b'{"r":[{"k":"a","v":9223372036854775808}]}', "/r/0/v: integer does not fit 64 bits"),
    (b'{"r":[{"k":"a","v":1e400}]}', "/r/0/v: not a finite number"),
    (b'{"r":[{"k":"a","v":' + b"[" * 40 + b"]" * 40 + b"}]}", "nested too deeply"),
    (b"[" * 100_000, ""),
    (b'{"r":' * 50_000, ""),
]

BAD_CBOR: list[tuple[bytes, str]] = [
    (ONE_CBOR + b"\x00", "bytes after the end"),
    (b"\xa1\x61r\x80", "/r: records are empty"),
    (b"\xa0", "no records"),
    (b"\x1b" + b"\xff" * 8, ""),
    (b"\x5b\x7f" + b"\xff" * 7, "not CBOR"),  # a string of 2^63 bytes
    (b"\x9b\x7f" + b"\xff" * 7, "not CBOR"),  # an array of as many entries
    (b"\xbb\x00\x00\x00\x00\xff\xff\xff\xff", "not CBOR"),
    (b"\x7a\xff\xff\xff\xffab", "not CBOR"),
    (b"\xa1\x61r\x9a\x00\x0f\xff\xff", "not CBOR"),
    (b"\x9f" * 10_000, "not CBOR"),
    (b"\x81" * 10_000, "not CBOR"),
    (b"\xd8\x1c\x81\xd8\x1d\x00", "not CBOR"),  # a list that holds itself
    (b"\xa1\x61r\x81\xa2\x61k\x61a\x61v\xf7", "/r/0/v: value is null"),
    (b"\xa1\x61r\x81\xa2\x61k\x61a\x61v\xfb\x7f\xf0" + b"\0" * 6, "/r/0/v: not a finite number"),
    (b"\xff", "not CBOR"),
    *[(cbor2.dumps(json.loads(body)), why) for body, why in BAD_JSON if why.startswith("/r/0/t: time is ")],
]

BAD_PROTO: list[tuple[bytes, str]] = [
    (b"", "/r: records are empty"),
    (b"\x12", "not a message of this type"),
    (b"\x12\x7f\x0a", "not a message of this type"),  # a record longer than the rest
    (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "not a message of this type"),
    (b"\x12\x04\x0a\x02\xff\xfe", ""),  # text that is not UTF-8
    (Data(r=[{"v": 1}]).SerializeToString(), "/r/0/k: key is empty"),
    (Data(r=[{"k": "a", "v": float("nan")}]).SerializeToString(), "/r/0/v: not a finite number"),
    (Data(r=[{"k": "a", "v": 1, "t": -1e9}]).SerializeToString(), "/r/0/t: time is neither"),
    (Data(r=[{"k": "a", "v": 1, "g": {"lt": 100}}]).SerializeToString(), "/r/0/g/lt: lat is not between"),
    (ONE, ""),
]
