from __future__ import annotations

import pytest

from nodes import Broadcast
from nodes.broadcast import BroadcastNode
from tests.nodes.context import NOW_MS, build, emitted, message, run

pytestmark = pytest.mark.asyncio


async def test_what_is_told_and_when_it_happened() -> None:
    batch = [
        message({"t": 1, "gone": None}),
        message({"t": 2}, metadata={"ts": "77"}),
        message({"t": 3}, metadata={"broadcast": "false"}),
        message({"gone": None}),
    ]
    out = await run(build(BroadcastNode), *batch)
    assert out.effects == [(0, Broadcast(NOW_MS - 1000, {"t": 1})), (1, Broadcast(77, {"t": 2}))]
    assert [i for i, _ in out.emitted["Success"]] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("data", "fields", "reason"),
    [
        ([1], {}, "with an object"),
        ({"t": 1}, {"type": "POST_ATTRIBUTES_REQUEST"}, "this is POST_ATTRIBUTES_REQUEST"),
        ({"t": 1}, {"metadata": {"ts": "soon"}}, "ts is not a whole number"),
    ],
)
async def test_what_cannot_be_told_fails(data: object, fields: dict[str, object], reason: str) -> None:
    out = await run(build(BroadcastNode), message(data, **fields))
    assert reason in out.failed[0]
    assert emitted(out) == {}
