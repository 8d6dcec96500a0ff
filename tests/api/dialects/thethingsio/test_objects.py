from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.stores.apps.objects import Place
from tests.api.dialects.thethingsio.test_streams import SUBSCRIBED, stream
from tests.api.dialects.thethingsio.world import APP, OTHER_APP, World, world

pytestmark = pytest.mark.asyncio

LISTS = "/v2/classes/me/Playlists"


async def results(w: World, token: str, path: str) -> list[Any]:
    told = await w.call("GET", path, token)
    assert told.status_code == 200, told.text
    return list(told.json()["results"])


@pytest.mark.spec("TTI-65", "TTI-66", "TTI-67", "TTI-68", "TTI-69", "TTI-70", "TTI-71", "TTI-72", "TTI-S19", "TTI-S20")
async def test_an_object_from_its_making_to_its_end(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann = await w.register("ann@x.org")
        assert await results(w, ann, LISTS) == []
        told = await w.call("POST", LISTS, ann, {"_id": "25", "name": "Dubstep"})
        assert (told.status_code, told.json()) == (201, {"status": "success", "message": "created", "id": "25"})
        again = {"status": "error", "code": 400, "message": "object already exists"}
        assert (await w.call("POST", LISTS, ann, {"_id": 25, "name": "x"})).json() == again
        assert (await w.call("POST", f"{LISTS}/25", ann, {"name": "x"})).json() == again
        told = await w.call("PUT", f"{LISTS}/25", ann, {"_id": "9", "name": "Dubstep Mix", "duration": 180})
        assert (told.status_code, told.json()) == (200, {"status": "success", "message": "updated"})
        mix = {"_id": "25", "name": "Dubstep Mix", "duration": 180}
        assert await results(w, ann, f"{LISTS}/25/") == [mix]
        await w.call("POST", LISTS, ann, {"_id": 20, "name": "Classic", "duration": 90})
        await w.call("POST", f"{LISTS}/9", ann, {"name": "old"})
        await w.call("POST", f"{LISTS}/b", ann, {"name": "named"})
        assert [each["_id"] for each in await results(w, ann, LISTS)] == ["b", "25", 20, "9"]
        made = (await w.call("POST", LISTS, ann, {"name": "no id"})).json()["id"]
        assert len(made) == 24
        assert await results(w, ann, f"{LISTS}/{made}") == [{"_id": made, "name": "no id"}]
        told = await w.call("DELETE", f"{LISTS}/25", ann)
        assert (told.status_code, told.json()) == (200, {"status": "success", "message": "deleted"})
        for method in ("GET", "PUT", "DELETE"):
            body = {} if method == "PUT" else None
            assert (await w.call(method, f"{LISTS}/25", ann, body)).status_code == 404
        assert (await w.call("DELETE", LISTS, ann)).status_code == 405
        for body in ([], "x", {"_id": 1.5}, {"_id": ["x"]}, {"_id": ""}, {"_id": "a/b"}, {"big": "x" * 262_144}):
            assert (await w.call("POST", LISTS, ann, body)).status_code in (400, 413), body
        for path in (f"/v2/classes/me/{'x' * 129}", "/v2/classes/me/a%2Fb", "/v2/classes/me" + "/x" * 65):
            assert (await w.call("GET", path, ann)).status_code == 400
        assert (await w.call("GET", "/v2/classes/me", ann)).status_code == 404
        assert (await w.call("GET", LISTS)).status_code == 401


@pytest.mark.spec("TTI-65", "TTI-S21")
async def test_whose_an_object_is(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann, bob = await w.register("ann@x.org"), await w.register("bob@x.org")
        far = await w.register("ann@x.org", OTHER_APP)
        for token in (ann, bob, far):
            assert (await w.call("POST", f"{LISTS}/1", token, {"of": token})).status_code == 201
            assert await results(w, token, LISTS) == [{"_id": "1", "of": token}]
        shared = "/v2/classes/app/News"
        assert (await w.call("POST", shared, ann, {"_id": "1", "text": "hello"})).status_code == 201
        assert (await w.call("POST", shared, bob, {"_id": "1", "text": "mine"})).status_code == 400
        assert await results(w, bob, shared) == [{"_id": "1", "text": "hello"}]
        assert await results(w, far, shared) == []
        for method, body in (("PUT", {"text": "bad"}), ("DELETE", None)):
            assert (await w.call(method, f"{shared}/1", bob, body)).status_code == 403
        assert (await w.call("PUT", f"{shared}/1", ann, {"text": "news"})).status_code == 200
        assert await results(w, bob, shared) == [{"_id": "1", "text": "news"}]


@pytest.mark.spec("TTI-76", "TTI-77", "TTI-78", "TTI-79", "TTI-S22")
async def test_collections_below_objects(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann = await w.register("ann@x.org")
        songs = f"{LISTS}/25/Songs"
        assert (await w.call("POST", f"{songs}/100/", ann, {"n": 1})).status_code == 201
        assert (await w.call("POST", f"{songs}/100/Artist/10/", ann, {"n": 2})).status_code == 201
        assert (await w.call("POST", "/v2/classes/me/Songs/100/Playlist/25", ann, {"n": 3})).status_code == 201
        assert await results(w, ann, LISTS) == []
        assert await results(w, ann, songs) == [{"_id": "100", "n": 1}]
        assert await results(w, ann, f"{songs}/100/Artist") == [{"_id": "10", "n": 2}]
        assert await results(w, ann, "/v2/classes/me/Songs/100/Playlist/25/") == [{"_id": "25", "n": 3}]
        await w.call("DELETE", f"{songs}/100", ann)
        assert await results(w, ann, f"{songs}/100/Artist/10") == [{"_id": "10", "n": 2}]


@pytest.mark.spec("TTI-75", "TTI-76", "TTI-86", "TTI-S22")
async def test_changes_are_told_to_who_may_see_them_and_to_the_chain(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann, bob = await w.register("ann@x.org"), await w.register("bob@x.org")
        shared = "/v2/classes/app/News"
        async with (
            stream(w, LISTS, ann, subscribe="true", keepAlive="2000") as own,
            stream(w, shared, bob, subscribe="true") as news,
        ):
            assert await own.next() == SUBSCRIBED
            assert await news.next() == SUBSCRIBED
            await w.call("POST", f"{LISTS}/20", bob, {"of": "bob"})
            await w.call("POST", f"{LISTS}/20/Songs/1", ann, {"below": True})
            await w.call("POST", f"{LISTS}/20", ann, {"name": "Classic"})
            await w.call("PUT", f"{LISTS}/20", ann, {"duration": 90})
            await w.call("DELETE", f"{LISTS}/20", ann)
            assert await own.value() == [{"_id": "20", "name": "Classic"}]
            assert await own.value() == [{"_id": "20", "name": "Classic", "duration": 90}]
            assert await own.value() == [{"_id": "20", "deleted": True}]
            await w.call("POST", f"{shared}/1", ann, {"text": "hello"})
            assert await news.value() == [{"_id": "1", "text": "hello"}]
            await w.call("PUT", "/v2/me/settings", ann, {"password": "another 1"})
        assert not await w.stack.dead.list("acme")


async def test_many_writers_lose_nothing(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann = await w.register("ann@x.org")
        await w.call("POST", f"{LISTS}/1", ann, {})
        answers = await asyncio.gather(
            *(w.call("PUT", f"{LISTS}/1", ann, {f"k{i}": i}) for i in range(10)),
            *(w.call("POST", f"{LISTS}/new", ann, {"i": i}) for i in range(10)),
        )
        assert [each.status_code for each in answers[:10]] == [200] * 10
        assert sorted(each.status_code for each in answers[10:]) == [201] + [400] * 9
        [first] = await results(w, ann, f"{LISTS}/1")
        assert first == {"_id": "1", **{f"k{i}": i for i in range(10)}}


async def test_a_collection_is_one_key(redis_url: str) -> None:
    """Listing reads nothing of another collection, however many objects there are."""
    async with world(redis_url) as w:
        ann = await w.register("ann@x.org")
        user = await w.parts.users.find(APP, "ann@x.org")
        assert user is not None
        for id in ("1", "2"):
            await w.call("POST", f"{LISTS}/{id}/Songs/x", ann, {"n": 1})
        place = Place(APP, f"me:{user.key}", ("Playlists", "1", "Songs"))
        assert await w.stack.redis.hlen(place.key) == 1
        await w.parts.objects.forget_person(APP, user.key)
        assert await results(w, ann, f"{LISTS}/1/Songs") == []


@pytest.mark.spec("TTI-65")
async def test_no_address_leads_into_anothers_objects(redis_url: str) -> None:
    async with world(redis_url) as w:
        # No such address can register; whatever gets one in, it must not matter.
        ann, odd = await w.register("ann@x.org"), await w.parts.users.add(APP, "ann@x.org:Lists", "")
        eve = await w.parts.sessions.begin(odd)
        assert (await w.call("POST", "/v2/classes/me/Lists:Mine/1", ann, {"n": 1})).status_code == 201
        assert await results(w, eve, "/v2/classes/me/Mine") == []
        await w.parts.objects.forget_person(APP, "ann@x.org")
        assert (await w.call("POST", "/v2/classes/me/Mine/1", eve, {"n": 1})).status_code == 201
        await w.parts.objects.forget_person(APP, "ann@x.org")
        assert len(await results(w, eve, "/v2/classes/me/Mine")) == 1


@pytest.mark.spec("TTI-S2", "TTI-S20")
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_a_tree_is_no_collection(redis_url: str, method: str) -> None:
    async with world(redis_url) as w:
        ann = await w.register("ann@x.org")
        for path in ("/v2/classes/me", "/v2/classes/app/"):
            answer = await w.call(method, path, ann, {"n": 1} if method in ("POST", "PUT") else None)
            assert (answer.status_code, answer.json()["code"]) == (404, 404)
