"""What apps and things may not send: refused with the dialect's error object, and nothing of it is done."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.dialects.thethingsio.test_values import owner
from tests.api.dialects.thethingsio.world import World, world

pytestmark = pytest.mark.asyncio

TOO_LONG = 10**30
"""An integer of more than 64 bits."""


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


async def send(w: World, method: str, path: str, token: str, body: bytes) -> tuple[int, Any]:
    told = await w.client.request(method, path, headers={"authorization": token}, content=body)
    return told.status_code, told.json()


@pytest.mark.spec("TTI-S2", "TTI-S13", "TTI-S16", "TTI-S17", "TTI-S20", "TTI-X2", "TTI-X6")
@pytest.mark.parametrize(
    "bad", [b'{"a":%d}' % TOO_LONG, nested(70), nested(975), nested(5000), b'{"a":1e999}', b'{"a":"\\ud800"}'],
    ids=["integer", "deep", "deeper", "deepest", "float", "surrogate"],
)  # fmt: skip
async def test_json_that_no_message_holds_is_refused_everywhere(redis_url: str, bad: bytes) -> None:
    async with world(redis_url) as w:
        ann, device, token = await owner(w)
        value = b'{"values":[{"value":%s}]}' % bad
        for method, path, body in (
            ("POST", f"/v2/me/resources/temperature/{device.id}", value),
            ("POST", f"/v2/me/resources/$settings/{device.id}", value),
            ("POST", "/v2/classes/me/Kept", bad),
            ("POST", "/v2/classes/app/Kept/1", bad),
            ("PUT", "/v2/me/settings", bad),
            ("POST", f"/v2/things/{token}", b'{"values":[{"key":"b","value":%s}]}' % bad),
            ("PUT", f"/v2/things/{token}/resources/description", bad),
        ):
            status, told = await send(w, method, path, ann, body)
            assert (status, told["status"], told["code"]) == (400, "error", 400), (path, told)
        assert (await w.call("GET", "/v2/classes/me/Kept", ann)).json() == {"results": []}
        assert (await w.call("GET", "/v2/me/settings", ann)).json() == {}


@pytest.mark.spec("TTI-S13")
@pytest.mark.parametrize("date", ["99991231235959", "00010101000000"])
async def test_a_date_that_no_store_holds_is_refused(redis_url: str, date: str) -> None:
    async with world(redis_url) as w:
        ann, device, token = await owner(w)
        for path, value in (
            (f"/v2/me/resources/temperature/{device.id}", {"value": 1, "datetime": date}),
            (f"/v2/things/{token}", {"key": "b", "value": 1, "datetime": date}),
        ):
            told = await w.call("POST", path, ann, {"values": [value]})
            assert told.status_code == 400, told.text
            assert "/values/0/datetime" in told.json()["message"]


@pytest.mark.spec("TTI-S4")
async def test_who_is_registered_cannot_be_tried_out(redis_url: str) -> None:
    async with world(redis_url) as w:
        await w.register("ann@x.org")
        body = {"email": "ann@x.org", "password": "secret 2", "app": "app-weather-1"}
        statuses = [(await w.call("POST", "/v2/register", body=body)).status_code for _ in range(12)]
        assert (statuses[0], statuses[-1]) == (400, 429)
