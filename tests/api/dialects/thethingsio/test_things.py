from __future__ import annotations

from typing import Any

import pytest

from tests.api.dialects.thethingsio.test_streams import SUBSCRIBED, stream
from tests.api.dialects.thethingsio.world import APP, OTHER_APP, world

pytestmark = pytest.mark.asyncio

DENIED = {"status": "error", "code": 403, "message": "Permission denied"}


@pytest.mark.spec("TTI-14", "TTI-20", "TTI-21", "TTI-22", "TTI-S7")
async def test_linking_a_thing(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann, bob = await w.register("ann@x.org"), await w.register("bob@x.org")
        (device, thing_token), (foreign, _) = await w.thing("t1"), await w.thing("t2", product="")
        raw = await w.stack.device("never activated", product="weather")
        told = await w.call("POST", "/v2/me/things", ann, {"thingToken": thing_token})
        assert (told.status_code, told.json()) == (
            201,
            {"status": "success", "message": "created", "thingId": device.id},
        )
        again = await w.call("POST", "/v2/me/things", ann, {"thingId": device.id})
        assert (again.status_code, again.json()["thingId"]) == (200, device.id)
        assert (await w.call("POST", "/v2/me/things", bob, {"thingId": device.id})).status_code == 403
        for body, status in (
            ({"thingToken": "x" * 43}, 404), ({"thingId": "nobody"}, 404), ({"thingId": foreign.id}, 404),
            ({"thingId": raw.id}, 404), ({}, 400), ({"thingId": 7}, 400), ([], 400),
        ):  # fmt: skip
            assert (await w.call("POST", "/v2/me/things", ann, body)).status_code == status
        seen = (await w.call("GET", "/v2/me/resources", ann)).json()
        assert seen == [{"name": name, "things": [device.id]} for name in ("description", "humidity", "temperature")]
        assert (await w.call("GET", "/v2/me/resources", bob)).json() == []
        login = {"email": "ann@x.org", "password": "secret 1", "app": APP}
        roles = (await w.call("POST", "/v2/login", body=login)).json()["roles"]
        assert roles["RSRC_temperature"][device.id]["grant"] is True
        assert (await w.call("DELETE", f"/v2/me/things/{device.id}", bob)).status_code == 404
        assert (await w.call("DELETE", f"/v2/me/things/{device.id}", ann)).status_code == 200
        assert (await w.call("GET", "/v2/me/resources", ann)).json() == []
        await w.link(bob, device)
        # Another app, other users.
        await w.link(await w.register("ann@x.org", OTHER_APP), device)


@pytest.mark.spec("TTI-23", "TTI-24", "TTI-25", "TTI-S8")
async def test_sharing(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann = await w.register("ann@x.org")
        device, _ = await w.thing("t1")
        await w.link(ann, device)
        told = await w.grant(ann, "Friend@x.org", device.id, "temperature", get=True)
        assert (told.status_code, told.json()) == (200, {"status": "success", "message": "granted"})
        [(to, _, text)] = w.mail.letters
        assert to == "ann@x.org"
        assert all(word in text for word in ("Friend@x.org", "temperature", device.id, "get granted"))
        # Known only now, and it holds.
        friend = await w.register("friend@x.org")
        assert (await w.call("GET", "/v2/me/resources", friend)).json() == [
            {"name": "temperature", "things": [device.id]}
        ]
        denied = await w.grant(friend, "third@x.org", device.id, "temperature", get=True)
        assert (denied.status_code, denied.json()) == (403, DENIED)
        await w.grant(ann, "friend@x.org", device.id, "temperature", grant=True)
        third = await w.register("third@x.org")
        denied = await w.grant(friend, "third@x.org", device.id, "temperature", get=True, post=True)
        assert denied.status_code == 403
        assert (await w.grant(friend, "third@x.org", device.id, "temperature", get=True)).status_code == 200
        assert (await w.call("GET", "/v2/me/resources", third)).json() != []
        # What is taken from the friend is taken from everybody behind, at once.
        await w.grant(ann, "friend@x.org", device.id, "temperature", get=False)
        assert (await w.call("GET", "/v2/me/resources", third)).json() == []
        await w.grant(ann, "friend@x.org", device.id, "temperature", get=True)
        assert (await w.call("GET", "/v2/me/resources", third)).json() != []
        # The owner takes back what others gave.
        await w.grant(ann, "third@x.org", device.id, "temperature", get=False)
        assert (await w.call("GET", "/v2/me/resources", third)).json() == []


BAD_GRANTS: list[tuple[Any, int]] = [
    ({}, 400),
    ({"temperature": []}, 400),
    ({"temperature": {"THING": {}}}, 400),
    ({"temperature": {"THING": {"get": "yes"}}}, 400),
    ({"temperature": {"THING": {"fly": True}}}, 400),
    ({"secret": {"THING": {"get": True}}}, 404),
    ({"nothing": {"THING": {"get": True}}}, 404),
    ({"temperature": {"nobody": {"get": True}}}, 404),
]


@pytest.mark.spec("TTI-S8")
async def test_what_cannot_be_granted(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann = await w.register("ann@x.org")
        device, _ = await w.thing("t1")
        await w.link(ann, device)
        for permissions, status in BAD_GRANTS:
            named = {
                resource: {device.id if thing == "THING" else thing: asked for thing, asked in dict(things).items()}
                for resource, things in permissions.items()
            }
            body = {"email": "friend@x.org", "permissions": named}
            assert (await w.call("PUT", "/v2/me/grant", ann, body)).status_code == status
        assert (await w.grant(ann, "ANN@x.org", device.id, "temperature", get=True)).status_code == 400
        assert (await w.grant(ann, "no address", device.id, "temperature", get=True)).status_code == 400
        assert w.mail.letters == []


@pytest.mark.spec("TTI-S8", "TTI-S15")
async def test_what_hangs_on_a_person_ends_when_they_leave_the_thing(redis_url: str) -> None:
    async with world(redis_url) as w:
        ann, bob, eve = [await w.register(f"{name}@x.org") for name in ("ann", "bob", "eve")]
        device, _ = await w.thing("t1")
        await w.link(ann, device)
        await w.grant(ann, "bob@x.org", device.id, "temperature", get=True, grant=True)
        await w.grant(bob, "eve@x.org", device.id, "temperature", get=True)
        async with stream(w, f"/v2/me/resources/temperature/{device.id}", eve, subscribe="true") as texts:
            assert await texts.next() == SUBSCRIBED
            assert (await w.call("DELETE", f"/v2/me/things/{device.id}", bob)).status_code == 200
            assert (await texts.value())["code"] == 401
        # Granted anew, they have what they are granted, and nobody else has anything by it.
        await w.grant(ann, "bob@x.org", device.id, "temperature", get=True, grant=True)
        assert (await w.call("GET", "/v2/me/resources", eve)).json() == []
