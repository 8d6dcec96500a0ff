from __future__ import annotations

from typing import Any

import pytest

from nodes import BadInput, Park, Resumed
from nodes.delay import Delay
from tests.nodes.context import NOW_MS, build, emitted, message, resume, run

pytestmark = pytest.mark.asyncio


async def test_it_holds_and_lets_go() -> None:
    node = build(Delay, delay_s=1.5)
    out = await run(node, message({"a": 1}), message({"b": 2}))
    assert out.parked == {0: Park(NOW_MS + 1500), 1: Park(NOW_MS + 1500)}
    back = await resume(node, message({"a": 1}), Resumed("timer"))
    assert emitted(back) == {"Success": [message({"a": 1})]}
    assert (await resume(node, message({}), Resumed("answer"))).failed


async def test_the_message_says_how_long() -> None:
    node = build(Delay, delay_s="${wait}")
    batch = [message({}, metadata={"wait": text}) for text in ("0", "2.5", "-1", "nan", "x", "1e9")]
    out = await run(node, *batch, message({}))
    assert {i: park.until_ms - NOW_MS for i, park in out.parked.items()} == {0: 0, 1: 2500}
    assert list(out.failed) == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("delay_s", [-1, 1e9, "soon", "-5", "${", float("inf")])
async def test_wrong_delays_are_found_when_it_is_built(delay_s: Any) -> None:
    with pytest.raises(BadInput):
        build(Delay, delay_s=delay_s)
