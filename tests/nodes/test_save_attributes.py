from __future__ import annotations

from typing import Any

import pytest

from engine.stores import attributes
from nodes import Hint
from nodes.save_attributes import SaveAttributes
from tests.nodes.context import NOW_MS, DictContext, build, emitted, message, run

pytestmark = pytest.mark.asyncio

TYPE = "POST_ATTRIBUTES_REQUEST"


def hints(out: Any) -> list[Hint]:
    return [effect for _, effect in out.effects if isinstance(effect, Hint)]


@pytest.mark.spec("TB-15", "TB-17")
async def test_values_are_stored_with_type_and_time_in_the_scope_of_the_message() -> None:
    ctx = DictContext()
    data = {"attribute1": "value1", "attribute3": 42.0, "attribute4": 73, "attribute5": {"x": [1]}, "gone": None}
    out = await run(build(SaveAttributes), message(data, type=TYPE, metadata={"scope": "CLIENT_SCOPE"}), ctx=ctx)
    found = {name: attributes.decode(raw) for (_, _, name), raw in ctx.state.items()}
    assert found == {f"CLIENT/{key}": (value, NOW_MS - 1000) for key, value in data.items() if value is not None}
    assert type(found["CLIENT/attribute3"].value) is float
    assert {(device, table) for device, table, _ in ctx.state} == {("dev1", "attr")}
    assert hints(out) == []
    assert list(emitted(out)) == ["Success"]


async def test_the_configured_scope_is_the_default() -> None:
    for config, scope in (({}, "SERVER"), ({"scope": "CLIENT_SCOPE"}, "CLIENT")):
        ctx = DictContext()
        await run(build(SaveAttributes, **config), message({"k": 1}, type=TYPE), ctx=ctx)
        assert list(ctx.state) == [("dev1", "attr", f"{scope}/k")]


@pytest.mark.spec("TB-30", "TB-S19")
async def test_one_hint_for_all_shared_keys_of_a_message() -> None:
    out = await run(build(SaveAttributes, scope="SHARED_SCOPE"), message({"a": 1, "b": None, "c": "x"}, type=TYPE))
    assert hints(out) == [Hint("attributes", {"a": 1, "c": "x"})]
    empty = await run(build(SaveAttributes, scope="SHARED_SCOPE"), message({"b": None}, type=TYPE))
    assert empty.effects == []


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (message({"k": 1}), "POST_TELEMETRY_REQUEST"),
        (message([1], type=TYPE), "list"),
        (message({"a": 1, "k": float("nan")}, type=TYPE), "'k'"),
        (message({"a": 1, "k" * 256: 1}, type=TYPE), "255"),
        (message({"a": 1}, type=TYPE, metadata={"scope": "PUBLIC"}), "PUBLIC"),
        (message({"a": 1}, type=TYPE, metadata={"ts": "x"}), "ts"),
    ],
)
async def test_a_bad_message_fails_alone_and_writes_nothing(bad: Any, reason: str) -> None:
    out = await run(build(SaveAttributes), message({"good": 1}, type=TYPE), bad)
    assert list(out.failed) == [1]
    assert reason in out.failed[1]
    assert [i for i, _ in out.effects] == [0]


async def test_it_says_what_it_writes() -> None:
    assert build(SaveAttributes).writes() == {"attr"}
