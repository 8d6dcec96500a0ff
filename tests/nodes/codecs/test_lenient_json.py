import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BadInput
from nodes.codecs.lenient_json import MAX_LENIENT_BYTES, decode_lenient, decode_members, tb_cast, typed_number
from nodes.codecs.values import check_value, decode_json


@pytest.mark.spec("TB-12", "TB-S7")
@pytest.mark.parametrize("body", [b"{temperature:42,humidity:73}", b'{"temperature":42,"humidity":73}'])
def test_telemetry_that_lost_its_quotes_in_a_shell(body):
    assert repr(decode_lenient(body)) == repr({"temperature": 42, "humidity": 73})


@pytest.mark.spec("TB-12", "TB-16", "TB-S7")
def test_attributes_that_lost_their_quotes_in_a_shell():
    body = b"{attribute1: value1, attribute2:true, attribute3: 43.0}"
    assert repr(decode_lenient(body)) == repr({"attribute1": "value1", "attribute2": True, "attribute3": 43.0})


@pytest.mark.spec("TB-S7")
@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("{'a':'x\"y'}", {"a": 'x"y'}),
        (r"{'a':'it\'s'}", {"a": "it's"}),
        ("{a=1;b=>2,c:3}", {"a": 1, "b": 2, "c": 3}),
        ("[1;2,3]", [1, 2, 3]),
        ("{a:1 // to the end\n,b:2}", {"a": 1, "b": 2}),
        ("# first\n{a:1 # second\r\n}# third", {"a": 1}),
        ("/* a */{/**/a/***/:/* * / */1/*\n*/}", {"a": 1}),
        ("{a:TRUE,b:False,c:NULL,d:nil}", {"a": True, "b": False, "c": None, "d": "nil"}),
        ("{a:'true',b:'1'}", {"a": "true", "b": "1"}),
        ("{a:it's}", {"a": "it's"}),
        ("{a-b_c.d$:x+y}", {"a-b_c.d$": "x+y"}),
        (
            "{a:NaN,b:Infinity,c:1e,d:0x10,e:007,f:-}",
            {"a": "NaN", "b": "Infinity", "c": "1e", "d": "0x10", "e": "007", "f": "-"},
        ),
        ("{a:'\\u00e9\\ud83d\\ude00\\n\\t\\b\\f\\r\\/\\\\\\\"'}", {"a": 'é😀\n\t\b\f\r/\\"'}),
        ("{a:'line\nbreak'}", {"a": "line\nbreak"}),
        ("[]", []),
        ("{}", {}),
        ("[{a:[]},{}]", [{"a": []}, {}]),
        ("word", "word"),
        ("\ufeff{a:1}", {"a": 1}),
        ("{Grüße:schön}", {"Grüße": "schön"}),
        ("{a:1,a:2}", {"a": 2}),
    ],
)
def test_the_accepted_set(body, value):
    assert repr(decode_lenient(body.encode())) == repr(value)


@pytest.mark.spec("TB-S7")
@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", "line 1, column 1"),
        (b"{a:1} x", "line 1, column 7"),
        (b"{a:1}{b:2}", "line 1, column 6"),
        (b"{a:1 b}", "line 1, column 6"),
        (b"{a:1,}", "line 1, column 6"),
        (b"[1,]", "line 1, column 4"),
        (b"[,1]", "line 1, column 2"),
        (b"{,}", "line 1, column 2"),
        (b"{a}", "line 1, column 3"),
        (b"{a:}", "line 1, column 4"),
        (b"{:1}", "line 1, column 2"),
        (b"{a:1", "line 1, column 5"),
        (b"{\n a: 'x\n}", "line 2, column 5"),
        (b"{a:1}/* open", "line 1, column 6"),
        (b"{a:1}/*/", "line 1, column 6"),
        (b"{a:1} /", "line 1, column 7"),
        (b"{a:'\\x'}", "line 1, column 5"),
        (b"{a:'\\u12g4'}", "line 1, column 5"),
        (b"{a:'\\ud800'}", "line 1, column 5"),
        (b"{a:'\\ud800\\ud800'}", "line 1, column 5"),
        (b"{a:'\\udc00'}", "line 1, column 5"),
        (b"{a:http://x}", "line 1, column 8"),
        (b"{a:1]", "line 1, column 5"),
        (b"{a:x\\y}", "line 1, column 5"),
        (b"{a:1e99999}", "line 1, column 4"),
        (b"[" * 33 + b"]" * 33, "line 1, column 33"),
    ],
)
def test_everything_else_is_refused_with_line_and_column(body, place):
    with pytest.raises(BadInput) as caught:
        decode_lenient(body)
    assert caught.value.reason.startswith(place + ":")


@pytest.mark.parametrize(("body", "pointer"), [(b"{a:{'':1}}", "/a/"), (b"{a:{'x\ty':1}}", r"/a/x\ty")])
def test_keys_are_held_to_the_common_rules(body, pointer):
    with pytest.raises(BadInput) as caught:
        decode_lenient(body)
    assert caught.value.pointer == pointer


def test_what_is_not_utf8_is_refused():
    with pytest.raises(BadInput, match="byte 3"):
        decode_lenient(b"{a:\xff}")


NUMBERS = [
    ("42", 42),
    ("-42", -42),
    ("42.0", 42.0),
    ("43.5", 43.5),
    ("1e3", 1000),
    ("1E+3", 1000),
    ("1.5e1", 15),
    ("1.50e1", 15),
    ("1.55e1", 15.5),
    ("1e-3", 0.001),
    ("10e-1", 1),
    ("0", 0),
    ("-0", 0),
    ("0.0", 0.0),
    ("0e5", 0),
    ("9223372036854775807", 2**63 - 1),
    ("9223372036854775808", "9223372036854775808"),
    ("-9223372036854775808", -(2**63)),
    ("-9223372036854775809", "-9223372036854775809"),
    ("1e18", 10**18),
    ("1e19", "1" + "0" * 19),
    ("1.2e20", "120000000000000000000"),
    ("0.1234567890123456", 0.1234567890123456),
    ("0.12345678901234567", "0.12345678901234567"),
    ("0.10000000000000000", "0.10000000000000000"),
    ("1e-17", "0.00000000000000001"),
    ("123456789012345678901.5", 123456789012345678901.5),
]


@pytest.mark.spec("TB-S6")
@pytest.mark.parametrize(("text", "value"), NUMBERS)
@pytest.mark.parametrize("body", ['{"a":[%s]}', "{a:[%s]}"])
def test_numbers_are_typed_alike_with_and_without_quotes_around_the_name(text, value, body):
    assert repr(decode_lenient((body % text).encode())) == repr({"a": [value]})


@pytest.mark.spec("TB-S6")
@pytest.mark.parametrize("text", ["9223372036854775808", "1e19", "0.12345678901234567"])
@pytest.mark.parametrize("body", ['{"a":%s}', "{a:%s}"])
def test_numbers_that_would_become_text_are_refused_without_casting(text, body):
    with pytest.raises(BadInput):
        decode_lenient((body % text).encode(), long_as_text=False)


@pytest.mark.parametrize("text", ["1e1001", "1e999999999999999999999", "1e-999999999", "9" * 1001, "9" * 400 + ".5"])
@pytest.mark.parametrize("body", ['{"a":%s}', "{a:%s}"])
def test_numbers_nothing_can_hold_are_refused(text, body):
    with pytest.raises(BadInput):
        decode_lenient((body % text).encode())


@pytest.mark.spec("TB-S6")
@pytest.mark.parametrize(
    ("value", "cast"),
    [
        ("42", 42),
        ("3.5", 3.5),
        ("3.0", 3.0),
        ("-7", -7),
        ("007", 7),
        (".5", 0.5),
        ("99999999999999999999", "99999999999999999999"),
        ("9" * 400 + ".5", "9" * 400 + ".5"),
        ("9" * 5000, "9" * 5000),
        *(
            (text, text)
            for text in ("", "-", ".", "5.", "+5", "1e3", "0x10", " 1", "1\n", "1.2.3", "NaN", "true", "٣", "²")
        ),
        *((value, value) for value in (True, None, 1, 1.5)),
    ],
)
def test_numeric_text_is_cast(value, cast):
    assert repr(tb_cast(value)) == repr(cast)


def test_lists_and_objects_are_not_cast():
    value = {"a": ["1"]}
    assert tb_cast(value) is value


@settings(deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.text(st.characters(exclude_categories=("Cs",))),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("abcXYZ é_", min_size=1), inner),
        max_leaves=20,
    )
)
def test_strict_json_without_fractions_is_read_as_the_strict_reader_does(value):
    body = json.dumps(value).encode()
    assert repr(decode_lenient(body)) == repr(decode_json(body))
    # A comment makes the lenient reader read it.
    assert repr(decode_lenient(b"#\n" + body)) == repr(value)


@settings(deadline=None)
@given(st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True))
def test_the_fast_and_the_exact_reader_type_numbers_alike(text):
    assert repr(decode_lenient(text.encode())) == repr(decode_lenient(f"# exact\n{text}".encode()))


@settings(deadline=None, max_examples=300)
@given(st.text("{}[]'\":,;=>#/*\\ \nua0d8-.e1", max_size=40).map(str.encode) | st.binary(max_size=60))
def test_any_bytes_are_a_value_or_bad_input(body):
    try:
        value = decode_lenient(body)
    except BadInput:
        return
    check_value(value)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b"{a:" * 300_000,
        b"/*" + b"*" * 1_000_000,
        b"/**/" * 250_000,
        b"#\n" * 500_000,
        b"'" + b"\\'" * 500_000,
        b"'" + b"\\u0041" * 150_000,
        b" " * 1_000_000,
        b"[" + b"1;" * 300_000,
        b"1" * 1_000_000,
        b"1." + b"1" * 1_000_000,
        b"[" + b"/*" * 400_000,
    ],
    ids=lambda body: f"{body[:6]!r}",
)
def test_a_megabyte_made_to_hurt_is_refused(body):
    # Would not end in a test's lifetime if any step read the rest of the text again.
    with pytest.raises(BadInput):
        decode_lenient(body)


def test_a_long_text_must_be_strict():
    blanks = b" " * MAX_LENIENT_BYTES
    assert decode_lenient(b'{"a":1}' + blanks) == {"a": 1}
    with pytest.raises(BadInput, match="too long"):
        decode_lenient(b"{a:1}" + blanks)
    assert decode_lenient(b"{a:1}" + blanks[5:]) == {"a": 1}


def test_every_truncation_is_refused():
    body = "{a:'é\\n', b=>[1;2.5e3] /* c */, \"d\":{e:{}} }".encode()
    assert decode_lenient(body) == {"a": "é\n", "b": [1, 2500], "d": {"e": {}}}
    for end in range(len(body)):
        with pytest.raises(BadInput):
            decode_lenient(body[:end])


def test_a_typed_number_says_why_it_is_refused():
    with pytest.raises(BadInput, match="64 bits"):
        typed_number("9223372036854775808", long_as_text=False)


@pytest.mark.spec("TB-X2", "TB-S7")
@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1e3,"b":{"x":12345678901234567890},"":{"y":[]},"deep":%s,"key":{"":1},"last":1,"last":2}',
        b"{a:1e3,b:{x:12345678901234567890},'':{y:[]},'deep':%s,key:{'':1},last:1,last:2}",
    ],
)
def test_members_are_read_each_by_itself(body):
    found = decode_members(body % (b"[" * 20 + b"]" * 20))
    assert isinstance(found.pop("key"), BadInput)
    found.pop("deep")
    assert repr(found) == repr({"a": 1000, "b": {"x": "12345678901234567890"}, "": {"y": []}, "last": 2})


def test_a_member_that_cannot_be_read_spoils_no_other():
    found = decode_members(b'{"good":1,"deep":%s,"text":"\xff"}' % (b"[" * 500 + b"]" * 500))
    assert found["good"] == 1
    assert "nested too deeply" in str(found["deep"])
    assert isinstance(found["text"], BadInput)


@pytest.mark.parametrize("body", [b"", b"[]", b"5", b"null", b"{", b'{"a":1}x', b"\xff", b"{a:[}", b"[" * 5000])
def test_only_objects_have_members(body):
    with pytest.raises(BadInput):
        decode_members(body)


def test_members_of_a_long_text_must_be_strict():
    body = b'{"a":"%s"}' % (b"x" * MAX_LENIENT_BYTES)
    assert len(decode_members(body)["a"]) == MAX_LENIENT_BYTES
    with pytest.raises(BadInput, match="too long"):
        decode_members(body.replace(b'"a"', b"a"))


@given(st.text("{}[]'\":,;=>#/*\\ \nua0d8-.e1", max_size=40).map(str.encode) | st.binary(max_size=60))
def test_any_bytes_are_members_or_bad_input(body):
    try:
        members = decode_members(body)
    except BadInput:
        return
    for value in members.values():
        if not isinstance(value, BadInput):
            check_value(value)
