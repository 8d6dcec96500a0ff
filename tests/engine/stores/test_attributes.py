from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BadInput
from engine.stores import attributes

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
values = json_values.filter(lambda value: value is not None)


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return type(value), value


@pytest.mark.spec("TB-4", "TB-35")
@given(values, st.integers(0, 2**53))
def test_values_come_back_with_their_types(value: Any, ts_ms: int) -> None:
    found = attributes.decode(attributes.encode(value, ts_ms))
    assert shape(found.value) == shape(value)
    assert found.ts_ms == ts_ms


@given(st.sampled_from(attributes.SCOPES), st.text(min_size=1, max_size=255))
def test_field_names_are_unambiguous(scope: attributes.Scope, key: str) -> None:
    assert attributes.split(attributes.field(scope, key)) == (scope, key)


@pytest.mark.parametrize(
    "value", [None, float("nan"), float("inf"), 2**63, -(2**63) - 1, b"x", [2**64], {"a": float("nan")}, {1, 2}]
)
def test_what_is_no_value_is_refused(value: Any) -> None:
    with pytest.raises(BadInput):
        attributes.encode(value, 1)


@pytest.mark.spec("TB-S10")
@pytest.mark.parametrize("key", ["", "k" * 256])
def test_keys_have_a_length(key: str) -> None:
    with pytest.raises(BadInput, match="255"):
        attributes.field("CLIENT", key)


def test_scope_names() -> None:
    assert attributes.scope_named("SHARED_SCOPE") == attributes.scope_named("SHARED") == "SHARED"
    for name in ("shared", "", "PUBLIC_SCOPE"):
        with pytest.raises(BadInput, match="SERVER_SCOPE"):
            attributes.scope_named(name)


@pytest.mark.parametrize("name", ["", "CLIENT", "CLIENT/", "OTHER/x", "/x"])
def test_foreign_fields_are_refused(name: str) -> None:
    with pytest.raises(BadInput):
        attributes.split(name)


def test_a_whole_hash_by_scope() -> None:
    fields = {
        b"CLIENT/a": attributes.encode(1, 5),
        "SHARED/ü/x".encode(): attributes.encode("v", 6),
        b"CLIENT/b": attributes.encode([1.0], 7),
    }
    assert attributes.by_scope(fields) == {
        "CLIENT": {"a": (1, 5), "b": ([1.0], 7)},
        "SHARED": {"ü/x": ("v", 6)},
        "SERVER": {},
    }
    assert attributes.by_scope({"SERVER/s": attributes.encode(True, 1)})["SERVER"] == {"s": (True, 1)}
