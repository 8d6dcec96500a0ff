"""`?sync=true`: what becomes of values, told without how the tenant's chains are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from api.dialects.thethingsio import writing
from engine.errors import PointsRefused, StoreUnavailable
from engine.message import Point
from tests.api.dialects.thethingsio.test_values import owner
from tests.api.dialects.thethingsio.world import World, world
from tests.engine.toy import until

pytestmark = [pytest.mark.asyncio, pytest.mark.spec("G-20", "TTI-S2")]


def unwilling(w: World, refused: Any = None, away: bool = False) -> None:
    """Have the store refuse a value, or be away."""
    write = w.stack.store.write

    async def put(points: Sequence[Point]) -> None:
        if away:
            raise StoreUnavailable("the store is away")
        await write([point for point in points if point.value != refused])
        if found := [(i, "too big a value") for i, point in enumerate(points) if point.value == refused]:
            raise PointsRefused(found)

    w.stack.store.write = put  # type: ignore[method-assign]


async def both(w: World, value: Any) -> list[tuple[int, dict[str, Any]]]:
    """What a user and a thing are told of the value."""
    ann, device, thing = await owner(w)
    path = f"/v2/me/resources/temperature/{device.id}"
    values = {"values": [{"key": "temperature", "value": value}]}
    told = [
        await w.call("POST", path, ann, values, sync="true"),
        await w.call("POST", f"/v2/things/{thing}", body=values, sync="true"),
    ]
    return [(answer.status_code, answer.json()) for answer in told]


async def test_a_value_that_the_store_refuses_is_bad(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with world(redis_url) as w:
        unwilling(w, refused=7)
        error = {"status": "error", "code": 400, "message": "store refused the point: too big a value"}
        assert await both(w, 7) == [(400, error)] * 2
        assert caplog.text.count("too big a value") >= 2
        _, thing = await w.thing("another")
        path = f"/v2/things/{thing}/resources/description"
        assert (await w.call("PUT", path, body={"x": 1})).status_code == 200
        unwilling(w, refused={"x": 2})
        told = await w.call("PUT", path, body={"x": 2})
        assert (told.status_code, told.json()) == (400, error)
        assert (await w.call("GET", path)).json() == [{"value": {"x": 1}}]


async def test_while_the_store_is_away_it_is_503(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "SYNC_TIMEOUT_S", 0.2)
    async with world(redis_url) as w:
        unwilling(w, away=True)
        error = {"status": "error", "code": 503, "message": "accepted, but not in the store yet"}
        assert await both(w, 7) == [(503, error)] * 2


async def test_a_chain_that_fails_is_told_without_its_names(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with world(redis_url) as w:
        bad = {"kind": "script", "config": {"lang": "lua", "source": "error('no room')"}}
        await w.stack.deploy({"chain": "root", "start": "secret step", "nodes": {"secret step": bad}})
        error = {"status": "error", "code": 500, "message": "the values could not be processed"}
        ann, device, thing = await owner(w)
        path = f"/v2/me/resources/temperature/{device.id}"

        async def told() -> Any:
            # A worker may go by the old deployment for a second.
            answer = await w.call("POST", path, ann, {"values": [{"value": 1}]}, sync="true")
            return (answer.status_code, answer.json()) if answer.status_code != 201 else None

        assert await until(told) == (500, error)
        answer = await w.call("POST", f"/v2/things/{thing}", body={"values": [{"key": "a", "value": 1}]}, sync="true")
        assert (answer.status_code, answer.json()) == (500, error)
        assert "secret step" in caplog.text
        assert "no room" in caplog.text
