"""Bodies as values: whatever comes, an answer or a BadInput, and nothing that a store would refuse."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.dialects.thingsboard.payload import Payloads, keys_of, visible
from api.dialects.thingsboard.settings import Settings
from engine.errors import BadInput
from engine.stores import attributes
from engine.stores.attributes import Attribute

PAYLOADS = Payloads(Settings())
UNCAST = Payloads(Settings(type_cast=False))

keys = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=20)
# Floats that are written with a few digits: others are typed by how they are written (TB-S6).
numbers = st.integers(-(2**63), 2**63 - 1) | st.integers(-(2**40), 2**40).map(lambda n: n / 16)
scalars = st.none() | st.booleans() | numbers | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))
objects = st.dictionaries(keys, values, max_size=5)


@given(st.binary(max_size=200))
def test_any_bytes_give_values_or_bad_input(body: bytes) -> None:
    for read in (PAYLOADS.telemetry, PAYLOADS.attributes, PAYLOADS.call, PAYLOADS.answer, PAYLOADS.wanted):
        with contextlib.suppress(BadInput):
            read(body)


@given(st.text(st.sampled_from("{}[]:,\"'tsvalue 0123.-"), max_size=60))
def test_any_near_json_gives_what_attributes_can_hold_or_bad_input(text: str) -> None:
    try:
        found = PAYLOADS.telemetry(text.encode())
    except BadInput:
        return
    for ts_ms, reading in found:
        assert ts_ms is None or type(ts_ms) is int
        assert reading
        for key, value in reading.items():
            attributes.encode(value, 0)
            attributes.field("CLIENT", key)


@given(objects)
def test_attributes_are_the_object_without_nulls(wanted: dict[str, Any]) -> None:
    found = UNCAST.attributes(json.dumps(wanted).encode())
    kept = {key: value for key, value in wanted.items() if value is not None}
    assert json.dumps(found, sort_keys=True) == json.dumps(kept, sort_keys=True)


@given(st.lists(st.tuples(st.none() | st.integers(0, 3), st.dictionaries(keys, st.integers(0, 9), max_size=3))))
def test_elements_of_one_instant_are_merged_in_their_order(elements: list[tuple[int | None, dict[str, int]]]) -> None:
    elements = [(ts, each) for ts, each in elements if not {"ts", "values"} <= set(each)]
    body = [each if ts is None else {"ts": ts, "values": each} for ts, each in elements]
    wanted: dict[int | None, dict[str, int]] = {}
    for ts, each in elements:
        wanted.setdefault(ts, {}).update(each)
    found = PAYLOADS.telemetry(json.dumps(body).encode())
    assert found == [(ts, each) for ts, each in wanted.items() if each]


@pytest.mark.spec("TB-8", "TB-S4")
@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ('{"ts":5,"values":{"a":1}}', [(5, {"a": 1})]),
        ('{"ts":5,"values":{"a":1},"more":1}', [(5, {"a": 1})]),
        ('{"ts":1.5e12,"values":{"a":1}}', [(1_500_000_000_000, {"a": 1})]),
        ('{"ts":5.9,"values":{"a":1}}', [(5, {"a": 1})]),
        ('{"ts":-5,"values":{"a":1}}', [(-5, {"a": 1})]),
        ('{"ts":5}', [(None, {"ts": 5})]),
        ('{"values":{"a":1}}', [(None, {"values": {"a": 1}})]),
        ('{"ts":5,"value":1}', [(None, {"ts": 5, "value": 1})]),
    ],
)
def test_when_a_ts_is_a_time(body: str, wanted: Any) -> None:
    assert PAYLOADS.telemetry(body.encode()) == wanted


@pytest.mark.spec("TB-20", "TB-S12")
def test_keys_and_what_is_visible() -> None:
    assert [keys_of(text) for text in (None, "", "a", "a,,b,", "a, b")] == [None, None, ["a"], ["a", "b"], ["a", " b"]]
    found = {"CLIENT": {"a": Attribute(1, 0)}, "SHARED": {"b": Attribute(2, 0)}, "SERVER": {"c": Attribute(3, 0)}}
    assert visible(found, None, None) == {"client": {"a": 1}, "shared": {"b": 2}}
    assert visible(found, ["a", "b", "c"], None) == {"client": {"a": 1}}
    assert visible(found, None, ["a", "b", "c"]) == {"shared": {"b": 2}}
    assert visible(found, [], []) == {}
