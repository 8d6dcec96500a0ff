"""Attributes written by operators: kept with their types, checked before, told on the bus when shared."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from engine.errors import BadInput
from engine.message import now_ms
from engine.stores.attribute_store import Attributes
from engine.wire import Wire

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def store(redis_url: str) -> AsyncIterator[Attributes]:
    wire = Wire(redis_url, "test")
    yield Attributes(wire, 4)
    await wire.close()


def plain(found: Any) -> dict[str, dict[str, Any]]:
    return {scope: {key: each.value for key, each in values.items()} for scope, values in found.items() if values}


@pytest.mark.spec("TB-4", "TB-S12")
async def test_what_is_written_is_read_by_scope_with_type_and_time(store: Attributes) -> None:
    before = now_ms()
    values = {"d": 42.0, "l": 73, "b": True, "s": "x", "j": {"a": [1, 2.0]}, "a/b": "slash"}
    await store.write("acme", "d1", "CLIENT", values)
    await store.write("acme", "d1", "SHARED", {"d": 1})
    await store.write("acme", "d2", "SERVER", {"d": 2})
    await store.write("acme", "d1", "SERVER", {})
    found = await store.read("acme", "d1")
    assert set(found) == {"CLIENT", "SHARED", "SERVER"}
    assert plain(found) == {"CLIENT": values, "SHARED": {"d": 1}}
    assert [type(each.value) for each in found["CLIENT"].values()] == [type(value) for value in values.values()]
    assert before <= found["CLIENT"]["d"].ts_ms <= now_ms()
    assert await store.delete("acme", "d1", "CLIENT", [*values, "nothing"]) == len(values)
    assert await store.delete("acme", "d1", "CLIENT", []) == 0
    assert plain(await store.read("acme", "d1")) == {"SHARED": {"d": 1}}
    assert plain(await store.read("acme", "nobody")) == {}


@pytest.mark.parametrize("bad", [{"": 1}, {"k" * 256: 1}, {"k": None}, {"k": float("nan")}, {"k": 2**63}])
async def test_nothing_is_written_where_one_value_does_not_hold(store: Attributes, bad: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        await store.write("acme", "d1", "SHARED", {"good": 1, **bad})
    assert plain(await store.read("acme", "d1")) == {}
