import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BadInput
from nodes.codecs.values import MAX_DEPTH, check_key, check_value, decode_json, pointer_step

keys = st.text(
    st.characters(exclude_categories=("Cs", "Cc")),  # no surrogates, no control characters
    min_size=1,
    max_size=255,
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)))
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=20)


def same(left: Any, right: Any) -> bool:
    """Equal, with 1, 1.0 and True told apart."""
    return repr(left) == repr(right)


@settings(deadline=None)
@given(values)
def test_what_the_model_allows_is_read_as_it_was_written(value):
    assert same(decode_json(json.dumps(value).encode()), value)


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:\\ 0123456789eE.-+truefalsn', max_size=60).map(str.encode))
def test_any_bytes_are_a_value_or_bad_input(body):
    try:
        value = decode_json(body)
    except BadInput:
        return
    check_value(value)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"a":{"b":[1,1e999]}}', "/a/b/1"),
        (b'{"a":{"b":[1,-1e999]}}', "/a/b/1"),
        (b'{"a":9223372036854775808}', "/a"),
        (b'{"a":-9223372036854775809}', "/a"),
        (b'{"a":18446744073709551616}', "/a"),
        (b'[{"x":0},{"a":123456789012345678901234567890}]', "/1/a"),
        (b'{"a":{"":1}}', "/a/"),
        (b'{"x/y":{"m~n":{"tab\\t":1}}}', r"/x~1y/m~0n/tab\t"),
        (b'{"' + b"k" * 256 + b'":1}', "/" + "k" * 255 + "…"),
        (b'{"del\\u007f":1}', r"/del\x7f"),
        (b'{"c1\\u0085":1}', r"/c1\x85"),
        (b'{"nul\\u0000":1}', r"/nul\x00"),
    ],
)
def test_the_error_points_at_the_place(body, pointer):
    with pytest.raises(BadInput) as caught:
        decode_json(body)
    assert caught.value.pointer == pointer
    assert caught.value.reason


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"NaN",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":.5}',
        b'{"a":1.}',
        b"{a:1}",
        b"{'a':1}",
        b'{"a":1,}',
        b"[1,]",
        b'{"a":1} x',
        b'{"a":1}{}',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        b'{"a":"\xff"}',
        b'{"\xff":1}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xc0\x80"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00"}',
        b'{"a":"\\ud800\\u0041"}',
        b'{"a":"x\x00"}',
        b'{"a":"x\n"}',
        b"9" * 5000,
        b'{"a":' + b"9" * 100_000 + b"}",
    ],
)
def test_what_is_not_json_is_refused_with_a_reason(body):
    with pytest.raises(BadInput) as caught:
        decode_json(body)
    assert caught.value.reason
    assert "msgspec" not in caught.value.reason


@pytest.mark.parametrize("depth", [33, 100, 1000, 10_000, 100_000])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("closed", [True, False])
def test_deep_documents_are_refused(depth, opening, closed):
    closing = (b"]" if opening == b"[" else b"}") * depth if closed else b""
    with pytest.raises(BadInput):
        decode_json(opening * depth + b"1" + closing)


@pytest.mark.parametrize("depth", [1, 10, MAX_DEPTH])
def test_documents_up_to_the_limit_are_read(depth):
    assert decode_json(b"[" * depth + b"1" + b"]" * depth)


def test_the_limit_can_be_lower():
    assert decode_json(b"[[1]]", max_depth=2) == [[1]]
    with pytest.raises(BadInput) as caught:
        decode_json(b"[[[1]]]", max_depth=2)
    assert caught.value.pointer == "/0/0"


def test_every_truncation_of_a_document_is_refused():
    body = '{"r":[{"k":"t\\u00e9mp","v":-36.6e1,"g":{"lt":1,"ln":true}},[null,"ü"]]}'.encode()
    assert decode_json(body)
    for end in range(len(body)):
        with pytest.raises(BadInput):
            decode_json(body[:end])


def test_of_two_members_of_one_name_the_last_stands():
    assert decode_json(b'{"a":1,"a":2}') == {"a": 2}


def test_the_edges_of_numbers_are_read():
    body = b"[9223372036854775807,-9223372036854775808,1.7976931348623157e308,5e-324,-0.0,42.0,42]"
    assert same(decode_json(body), [2**63 - 1, -(2**63), 1.7976931348623157e308, 5e-324, -0.0, 42.0, 42])


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        (float("nan"), "/in"),
        (float("inf"), "/in"),
        ([0.0, float("-inf")], "/in/1"),
        ([2**63], "/in/0"),
        ({"a": b"x"}, "/in/a"),
        ({"a": (1,)}, "/in/a"),
        ({"a": {1, 2}}, "/in/a"),
        ({"a": "\ud800"}, "/in/a"),
        (["\udfff"], "/in/0"),
        ({"\ud800": 1}, r"/in/\ud800"),
        ({1: 1}, "/in/1"),
        ({b"k": 1}, "/in/bytes"),
        ({None: 1}, "/in/NoneType"),
        (object(), "/in"),
    ],
)
def test_values_made_elsewhere_are_held_to_the_same_rules(value, pointer):
    with pytest.raises(BadInput) as caught:
        check_value(value, "/in")
    assert caught.value.pointer == pointer


def test_a_value_that_holds_itself_is_refused():
    value: list[Any] = []
    value.append(value)
    with pytest.raises(BadInput):
        check_value(value)


def test_a_key_may_be_what_people_write():
    for key in ("a", "Außentemperatur", "温度", "a b", "x" * 255, "no\u00a0break", "a/b~c", "$geo"):
        check_key(key)


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "a\x00", "a\x9f", "\ud800", 1, None, b"a", True])
def test_a_key_may_not_be_anything_else(key):
    with pytest.raises(BadInput) as caught:
        check_key(key, "/here")
    assert caught.value.pointer == "/here"


def test_pointer_steps_are_escaped():
    assert pointer_step("a/b~c") == "/a~1b~0c"
    assert pointer_step(3) == "/3"
