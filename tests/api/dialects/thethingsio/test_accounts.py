"""Users by the paths of their app, another password, and leaving."""

from __future__ import annotations

from typing import Any

import pytest

from api.dialects.thethingsio.settings import Settings
from tests.api.dialects.thethingsio.test_streams import SUBSCRIBED, stream
from tests.api.dialects.thethingsio.world import APP, OTHER_APP, World, world
from tests.api.stack import TENANT

pytestmark = pytest.mark.asyncio

INVALID = {"status": "error", "code": 401, "message": "Invalid session token"}
UPDATED = {"status": "success", "message": "updated"}


def passwords(now: Any = "secret 1", wanted: Any = "secret 2", again: Any = None, app: Any = APP) -> dict[str, Any]:
    again = wanted if again is None else again
    return {"appId": app, "currentPassword": now, "password": wanted, "confirmationPassword": again}


async def login(w: World, email: str, password: str, app: str = APP) -> int:
    body = {"email": email, "password": password, "app": app}
    return (await w.call("POST", "/v2/login", body=body)).status_code


async def id_of(w: World, session: str, app: str = APP) -> str:
    [me] = (await w.call("GET", f"/v2/apps/{app}/users", session)).json()
    return str(me["id"])


@pytest.mark.spec("TTI-X11", "TTI-S6")
async def test_another_password(redis_url: str) -> None:
    async with world(redis_url) as w:
        here = await w.register("ann@x.org")
        body: Any = {"email": "ann@x.org", "password": "secret 1", "app": APP}
        there = (await w.call("POST", "/v2/login", body=body)).json()["token"]
        for body, status in (
            (passwords(now="wrong one"), 403), (passwords(wanted="short"), 400), (passwords(again="other"), 400),
            (passwords(app=OTHER_APP), 400), (passwords(now=5), 400), (passwords(wanted=None), 400), ([], 400),
        ):  # fmt: skip
            answer = await w.call("PUT", "/v2/me", here, body)
            assert (answer.status_code, answer.json()["status"]) == (status, "error")
        assert (await w.call("PUT", "/v2/me", "", passwords())).json() == INVALID
        answer = await w.call("PUT", "/v2/me", here, passwords())
        assert (answer.status_code, answer.json()) == (200, UPDATED)
        assert (await w.call("GET", "/v2/me/resources", there)).json() == INVALID
        assert (await w.call("GET", "/v2/me/resources", here)).status_code == 200
        assert await login(w, "ann@x.org", "secret 1") == 401
        assert await login(w, "ann@x.org", "secret 2") == 200


@pytest.mark.spec("TTI-X11", "TTI-S1", "TTI-S4")
async def test_registering_by_the_path_of_the_app(redis_url: str) -> None:
    async with world(redis_url) as w:
        body = {"email": "ann@x.org", "password": "secret 1"}
        answer = await w.call("POST", f"/v2/apps/{APP}/register", body=body)
        told = answer.json()
        assert (answer.status_code, told["message"], told["expirationDate"]) == (201, "user created", 31536000)
        assert (await w.call("GET", "/v2/me/resources", told["token"])).status_code == 200
        answer = await w.call("POST", f"/v2/apps/{APP}/users", body={**body, "email": "bob@x.org", "app": APP})
        assert (answer.status_code, sorted(answer.json())) == (201, ["id", "message", "status"])
        assert await login(w, "bob@x.org", "secret 1") == 200
        for end in ("register", "users"):
            for app, wrong in (
                (APP, body), ("no-such-app", {**body, "email": "c@x.org"}), (APP, {}), (APP, []),
                (APP, {**body, "email": "c@x.org", "app": OTHER_APP}),
            ):  # fmt: skip
                answer = await w.call("POST", f"/v2/apps/{app}/{end}", body=wrong)
                assert (answer.status_code, answer.json()["code"]) == (400, 400)
    async with world(redis_url, Settings()) as w:
        for end in ("register", "users"):
            assert (await w.call("POST", f"/v2/apps/{APP}/{end}", body=body)).status_code == 403


@pytest.mark.spec("TTI-X11")
async def test_nobody_sees_or_deletes_anybody_else(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann, bob = await w.register("ann@x.org"), await w.register("bob@x.org")
        path = f"/v2/apps/{APP}/users"
        [me] = (await w.call("GET", path, ann)).json()
        assert me == {"id": await id_of(w, ann), "email": "ann@x.org"}
        assert (await w.call("GET", path)).json() == INVALID
        assert (await w.call("GET", f"/v2/apps/{OTHER_APP}/users", ann)).status_code == 403
        assert (await w.call("DELETE", f"/v2/apps/{OTHER_APP}/users/{me['id']}", ann)).status_code == 403
        for other in (await id_of(w, bob), "nobody"):
            assert (await w.call("DELETE", f"{path}/{other}", ann)).status_code == 403
        assert (await w.call("GET", path, bob)).status_code == 200


@pytest.mark.spec("TTI-X11")
async def test_nothing_is_left_of_who_leaves(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann, bob = await w.register("ann@x.org"), await w.register("bob@x.org")
        (mine, _), (bobs, _) = await w.thing("t1"), await w.thing("t2")
        await w.link(ann, mine)
        await w.link(bob, bobs)
        await w.grant(ann, "bob@x.org", mine.id, "temperature", get=True)
        await w.grant(bob, "ann@x.org", bobs.id, "temperature", get=True)
        await w.call("PUT", "/v2/me/settings", ann, {"colour": "pink"})
        for tree, session, id in (("me", ann, "1"), ("app", ann, "1"), ("app", bob, "2"), ("me", bob, "3")):
            assert (await w.call("POST", f"/v2/classes/{tree}/Notes/{id}", session, {"n": 1})).status_code == 201
        path = f"/v2/me/resources/temperature/{mine.id}"
        async with (
            stream(w, "/v2/classes/app/Notes", bob, subscribe="true") as notes,
            stream(w, path, bob, subscribe="true") as shared,
            stream(w, "/v2/me/resources/temperature", ann, subscribe="true") as own,
        ):
            for each in (notes, shared, own):
                assert await each.next() == SUBSCRIBED
            gone = await w.call("DELETE", f"/v2/apps/{APP}/users/{await id_of(w, ann)}", ann)
            assert (gone.status_code, gone.json()) == (200, {"status": "success", "message": "deleted"})
            assert await notes.value() == [{"_id": "1", "deleted": True}]
            assert (await shared.value())["code"] == 401
            assert await own.value() == INVALID
        assert (await w.call("GET", "/v2/me/resources", ann)).json() == INVALID
        assert await login(w, "ann@x.org", "secret 1") == 401
        assert [key async for key in w.parts.redis.scan_iter(match="*ann@x.org*")] == []
        # Who takes the address next is somebody else, to whom no old session leads.
        again = await w.register("ann@x.org")
        assert (await w.call("GET", "/v2/me/resources", again)).json() == []
        assert (await w.call("GET", "/v2/me/settings", again)).json() == {}
        assert (await w.call("GET", "/v2/classes/me/Notes", again)).json() == {"results": []}
        assert (await w.call("GET", "/v2/me/resources", ann)).json() == INVALID
        for tree, id in (("app", "2"), ("me", "3")):
            [left] = (await w.call("GET", f"/v2/classes/{tree}/Notes", bob)).json()["results"]
            assert left["_id"] == id
        await w.link(again, mine)


@pytest.mark.spec("TTI-S6")
async def test_an_old_session_is_not_the_next_owners_of_the_address(redis_url: str) -> None:
    """Also where the sessions themselves were not ended, as when an app was deleted."""
    async with world(redis_url) as w:
        old = await w.register("ann@x.org")
        app = await w.parts.apps.delete(TENANT, APP)
        await w.parts.apps.put(app)
        await w.register("ann@x.org")
        assert (await w.call("GET", "/v2/me/resources", old)).json() == INVALID


@pytest.mark.spec("TTI-S15")
async def test_streams_end_with_their_app(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann = await w.register("ann@x.org")
        async with stream(w, "/v2/me/resources/temperature", ann, subscribe="true") as texts:
            assert await texts.next() == SUBSCRIBED
            await w.parts.apps.delete(TENANT, APP)
            assert await texts.value() == INVALID
            assert await texts.ended()
