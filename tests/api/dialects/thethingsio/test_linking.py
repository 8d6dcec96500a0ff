"""Linking by an id that a thing and its user both announce."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.dialects.thethingsio.linking import ATTEMPTS
from api.dialects.thethingsio.settings import Settings
from engine.errors import BadInput
from engine.message import now_ms
from engine.node import Product
from engine.stores.apps import shared_ids
from engine.stores.apps.apps import App
from engine.stores.apps.shared_ids import LIVES_S, MOST, Person, SharedIds, Thing
from engine.stores.register import P
from tests.api.dialects.thethingsio.world import APP, OTHER_APP, PRODUCT, World, world
from tests.api.stack import TENANT

pytestmark = pytest.mark.asyncio


async def of_user(w: World, session: str, shared_id: Any = "SN-1") -> tuple[int, Any]:
    answer = await w.call("POST", "/v2/me/things/link", session, {"sharedId": shared_id})
    return answer.status_code, answer.json()


async def of_thing(w: World, token: str, shared_id: Any = "SN-1") -> tuple[int, Any]:
    answer = await w.call("POST", f"/v2/things/{token}/link", body={"sharedId": shared_id})
    return answer.status_code, answer.json()


async def things_of(w: World, session: str) -> set[str]:
    return {thing for each in (await w.call("GET", "/v2/me/resources", session)).json() for thing in each["things"]}


@pytest.mark.spec("TTI-X10")
@pytest.mark.parametrize("thing_first", [True, False])
async def test_whoever_comes_second_is_told_the_thing(redis_url: str, thing_first: bool) -> None:
    async with world(redis_url) as w:
        ann = await w.register("ann@x.org")
        device, token = await w.thing("t1")
        calls = [of_thing(w, token), of_user(w, ann)]
        first, second = calls if thing_first else reversed(calls)
        waiting = "waiting for the user" if thing_first else "waiting for the thing"
        assert await first == (200, {"status": "success", "message": waiting})
        assert await things_of(w, ann) == set()
        assert await second == (201, {"status": "success", "message": "created", "thingId": device.id})
        assert await things_of(w, ann) == {device.id}
        # It is used up.
        assert (await of_user(w, await w.register("bob@x.org")))[1]["message"] == "waiting for the thing"


@pytest.mark.spec("TTI-X10", "TTI-S7")
async def test_only_things_and_users_of_one_product_meet(redis_url: str) -> None:
    async with world(redis_url) as w:
        await w.stack.registry.put_product(Product(id="else", tenant=TENANT))
        await w.parts.apps.put(App(id="app-of-else", tenant=TENANT, product="else"))
        (_, foreign), (device, token) = await w.thing("t1", "else"), await w.thing("t2")
        (_, nowhere) = await w.thing("t3", "")
        assert (await of_thing(w, foreign))[0] == 200
        assert (await of_thing(w, nowhere))[0] == 400
        assert (await of_user(w, await w.register("ann@x.org")))[0] == 200
        # An owner stays one, whoever knows the number.
        bob, eve = await w.register("bob@x.org", OTHER_APP), await w.register("eve@x.org", OTHER_APP)
        await w.link(bob, device)
        assert (await of_thing(w, token, "SN-2"))[0] == 200
        assert (await of_user(w, eve, "SN-2"))[0] == 403
        assert (await of_thing(w, token, "SN-2"))[0] == 200
        assert await of_user(w, bob, "SN-2") == (
            200, {"status": "success", "message": "created", "thingId": device.id}
        )  # fmt: skip


@pytest.mark.spec("TTI-X10")
async def test_an_id_that_several_announce_links_nobody(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann, eve = await w.register("ann@x.org"), await w.register("eve@x.org")
        device, token = await w.thing("t1")
        for session in (eve, ann, ann):
            assert (await of_user(w, session))[0] == 200
        status, told = await of_thing(w, token)
        assert (status, told["status"]) == (400, "error")
        assert await things_of(w, ann) == await things_of(w, eve) == set()
        assert (await of_thing(w, token))[0] == 200
        answers = await asyncio.gather(of_user(w, ann), of_user(w, ann), of_user(w, ann))
        assert sorted(status for status, _ in answers) == [200, 200, 201]
        assert await things_of(w, ann) == {device.id}


@pytest.mark.spec("TTI-X10", "TTI-S1", "TTI-S2")
async def test_what_is_refused(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann, (_, token) = await w.register("ann@x.org"), await w.thing("t1")
        for wrong in (None, 5, "", " ", "x" * 129, ["SN"]):
            assert (await of_user(w, ann, wrong))[0] == (await of_thing(w, token, wrong))[0] == 400
        assert (await of_user(w, "nobody"))[0] == (await of_thing(w, "nobody"))[0] == 401
        # A user who has gone meanwhile, and a thing.
        assert (await of_user(w, ann))[0] == 200
        user = await w.parts.users.find(APP, "ann@x.org")
        assert user is not None
        await w.parts.users.delete(user)
        assert (await of_thing(w, token))[0] == 404
    async with world(redis_url, Settings()) as w:
        _, token = await w.thing("t2")
        assert (await of_user(w, "any"))[0] == 403
        assert (await of_thing(w, token))[0] == 200


@pytest.mark.spec("TTI-X10")
async def test_ids_cannot_be_tried_out(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann, (device, token) = await w.register("ann@x.org"), await w.thing("t1")
        for i in range(ATTEMPTS.pair):
            assert (await of_user(w, ann, f"SN-{i}"))[0] == 200
        refused = await w.call("POST", "/v2/me/things/link", ann, {"sharedId": "SN-x"})
        assert (refused.status_code, refused.json()["code"]) == (429, 429)
        assert int(refused.headers["retry-after"]) > 0
        # Of nobody else, and what linked somebody does not count.
        assert await of_thing(w, token, "SN-3") == (
            201, {"status": "success", "message": "created", "thingId": device.id}
        )  # fmt: skip


@pytest.mark.spec("TTI-X10")
async def test_an_announcement_holds_for_a_day(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(redis_url) as w:
        ids, now = SharedIds(w.parts.redis), now_ms()
        assert await ids.announce(PRODUCT, "SN", Person(APP, "ann@x.org")) is None
        [key] = [key async for key in w.parts.redis.scan_iter(match=f"{P}shared-id:*")]
        assert 0 < await w.parts.redis.ttl(key) <= LIVES_S
        assert b"SN" not in key
        # Another of the same side a little later does not keep the first one alive.
        monkeypatch.setattr(shared_ids, "now_ms", lambda: now + LIVES_S * 1000 + 60_000)
        assert await ids.announce(PRODUCT, "SN", Person(APP, "bob@x.org")) is None
        assert await ids.announce(PRODUCT, "SN", Thing("t")) == Person(APP, "bob@x.org")
        for i in range(2 * MOST):
            assert await ids.announce(PRODUCT, "SN", Thing(f"t{i}")) is None
        assert await w.parts.redis.hlen(key) == MOST
        with pytest.raises(BadInput):
            await ids.announce(PRODUCT, "SN", Person(APP, "bob@x.org"))
        assert not await w.parts.redis.exists(key)
