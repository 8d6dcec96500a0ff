"""Kinds save_event and event_function."""

from __future__ import annotations

from typing import Any

import pytest

from nodes import Message, Product
from nodes.event_function import EventFunction
from nodes.save_event import SaveEvent
from tests.nodes.context import NOW_MS, DictContext, build, emitted, message, run

pytestmark = pytest.mark.asyncio


def event(data: Any, id: str = "door", **metadata: str) -> Message:
    return message(data, type="DEVICE_EVENT", metadata={"eventId": id, "productId": "p1", **metadata})


class Context(DictContext):
    """With products."""

    def __init__(self, **events: Any) -> None:
        super().__init__()
        self.found: Product | None = Product(id="p1", tenant="acme", facets={"events": events}, revision=1)

    async def product(self, product_id: str) -> Product | None:
        return self.found if product_id == "p1" else None


@pytest.mark.spec("CT-3", "G-19")
@pytest.mark.parametrize(
    ("data", "value"),
    [
        ({"open": True}, {"open": True}),
        (5, 5),
        ("x", "x"),
        (b"\xff\x00", {"raw_b64": "/wA=", "hex": "ff00"}),
        (None, {"raw_b64": "bnVsbA==", "hex": "6e756c6c"}),
    ],
)
async def test_an_event_is_a_point_of_its_series(data: Any, value: Any) -> None:
    out = await run(build(SaveEvent), event(data))
    [(_, point)] = out.points
    assert (point.device, point.key, point.ts_ms, point.value) == ("dev1", "event/door", NOW_MS - 1000, value)
    assert list(emitted(out)) == ["Success"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (message({}, type="POST_TELEMETRY_REQUEST", metadata={"eventId": "e"}), "DEVICE_EVENT"),
        (message({}, type="DEVICE_EVENT"), "eventId"),
        (event({}, "x" * 250), "249"),
        (event(float("nan")), "finite"),
    ],
)
async def test_what_cannot_be_stored_fails_alone(bad: Message, reason: str) -> None:
    out = await run(build(SaveEvent), event(1), bad, event(2))
    assert reason in out.failed[1]
    assert [point.value for _, point in out.points] == [1, 2]


@pytest.mark.spec("CT-3", "G-19", "G-23")
@pytest.mark.parametrize(
    ("function", "answer"),
    [
        ({"source": "return {n = msg.n + 1, of = metadata.eventId}"}, {"n": 2, "of": "door"}),
        ({"lang": "js", "source": ["return {msg: msg.n};"]}, 1),
        ({"source": "return {msg = {a = 1}, metadata = metadata, msgType = msgType}"}, {"a": 1}),
        ({"source": "return 'yes'"}, "yes"),
    ],
)
async def test_what_the_function_returns_goes_on(function: dict[str, Any], answer: Any) -> None:
    out = await run(build(EventFunction), event({"n": 1}), ctx=Context(door=function))
    [made] = emitted(out)["Success"]
    assert (made.data, made.type) == (answer, "DEVICE_EVENT")


async def test_events_without_a_function_or_an_answer_go_along_none() -> None:
    ctx = Context(door={"source": "if msg.n == 1 then return msg end"}, bell=None)
    batch = [event({"n": 1}), event({"n": 2}), event({}, "bell"), event({}, "other"), event({}, productId="p2")]
    out = await run(build(EventFunction), *batch, message({}, type="DEVICE_EVENT"), ctx=ctx)
    assert {relation: len(messages) for relation, messages in emitted(out).items()} == {"Success": 1, "None": 5}


async def test_a_function_that_fails_or_does_not_compile_fails_its_events_alone() -> None:
    ctx = Context(door={"source": "error('stuck')"}, bell={"source": "return {"}, bad=7, fine={"source": "return 1"})
    out = await run(build(EventFunction), *[event({}, id) for id in ("door", "bell", "bad", "fine")], ctx=ctx)
    assert "stuck" in out.failed[0]
    assert "'bell'" in out.failed[1]
    assert "lang and source" in out.failed[2]
    assert [made.data for made in emitted(out)["Success"]] == [1]


async def test_a_changed_product_has_its_new_function() -> None:
    node, ctx = build(EventFunction), Context(door={"source": "return 1"})
    assert [made.data for made in emitted(await run(node, event({}), ctx=ctx))["Success"]] == [1]
    facets = {"events": {"door": {"source": "return 2"}}}
    ctx.found = Product(id="p1", tenant="acme", facets=facets, revision=2)
    assert [made.data for made in emitted(await run(node, event({}), ctx=ctx))["Success"]] == [2]
