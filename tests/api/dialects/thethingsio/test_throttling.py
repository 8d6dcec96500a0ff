"""Too many logins: whoever tries too often is told when to come back, and passwords do not hold up anything else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.api.dialects.thethingsio.world import APP, World, world

pytestmark = pytest.mark.asyncio


def told(answer: Any, status: int, message: str) -> None:
    """An error in the dialect's shape, with the time to come back."""
    assert answer.status_code == status
    body = answer.json()
    assert (body["status"], body["code"]) == ("error", status)
    assert body["message"].startswith(message)
    assert 1 <= int(answer.headers["retry-after"]) <= 300


def person(n: int) -> dict[str, str]:
    return {"email": f"u{n}@x.org", "password": "a password", "app": APP}


@pytest.mark.spec("TTI-S2", "TTI-S4")
async def test_many_attempts_at_one_address_are_too_many(redis_url: str) -> None:
    async with world(redis_url) as w:
        token = await w.register("ann@x.org")
        wrong = {"email": "ANN@x.org", "password": "wrong password", "app": APP}
        for _ in range(9):
            assert (await w.call("POST", "/v2/login", body=wrong)).status_code == 401
        for _ in range(2):
            last = await w.call("POST", "/v2/login", body=wrong)
        told(last, 429, "too many login attempts")
        # The right password is not looked at either, but who is in stays in.
        told(await w.call("POST", "/v2/login", body={**wrong, "password": "secret 1"}), 429, "too many login attempts")
        assert (await w.call("GET", "/v2/me/resources", token)).status_code == 200


@pytest.mark.spec("TTI-S2")
@pytest.mark.parametrize("call", ["register", "login"])
async def test_more_passwords_than_can_be_hashed_are_turned_away(redis_url: str, call: str) -> None:
    async with world(redis_url) as w:
        _, token = await w.thing("t1")
        w.parts.passwords._most = 5
        flood = [asyncio.create_task(w.call("POST", f"/v2/{call}", body=person(n))) for n in range(30)]
        writes = [await write(w, token, n) for n in range(20)]
        assert writes == [201] * 20
        answers = await asyncio.gather(*flood)
        busy = [each for each in answers if each.status_code == 503]
        assert busy
        for each in busy:
            told(each, 503, "too many logins at once")
        assert {each.status_code for each in answers} == {503, 201 if call == "register" else 401}


async def write(w: World, token: str, n: int) -> int:
    body = {"values": [{"key": "temperature", "value": n}]}
    return (await w.call("POST", f"/v2/things/{token}", body=body)).status_code
