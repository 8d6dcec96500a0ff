"""Alerts of apps, through real sockets, a real worker and chains: they are the alarms of the user's things."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from api.dialects.thethingsio import alerts
from chains.repository import default_root
from engine.stores.registry import Device
from tests.api.dialects.thethingsio.test_bad_input import nested
from tests.api.dialects.thethingsio.world import APP, OTHER_APP, World, world
from tests.api.stack import TENANT

pytestmark = pytest.mark.asyncio

HOT = {
    "hot?": {
        "kind": "filter",
        "config": {"source": "return (msg.temperature or msg.secret) > 40"},
        "to": {"True": "raise hot", "False": "clear hot"},
    },
    "raise hot": {"kind": "create_alarm", "config": {"type": "Too hot", "severity": "MAJOR"}},
    "clear hot": {"kind": "clear_alarm", "config": {"type": "Too hot"}},
}
"""Behind the default chain's telemetry: an alarm above 40 degrees."""
NOT_FOUND = {"status": "error", "code": 404, "message": "Alert not found"}


def chain(**nodes: Any) -> dict[str, Any]:
    """The default root chain with some nodes of its own, those of HOT among them."""
    made = copy.deepcopy(default_root())
    made["nodes"] |= {**HOT, **nodes}
    made["nodes"]["save telemetry"]["to"]["Success"] = ["tell apps", "hot?"]
    return made


class Scene(NamedTuple):
    """Ann with a thing of hers."""

    w: World
    ann: str
    device: Device
    token: str

    async def sends(self, key: str, value: float, *, token: str = "", ts: str = "") -> None:
        each = {"key": key, "value": value} | ({"datetime": ts} if ts else {})
        told = await self.w.call("POST", f"/v2/things/{token or self.token}?sync=true", "", {"values": [each]})
        assert told.status_code == 201, told.text

    async def raises(self, type: str = "Help", token: str = "", **more: Any) -> Any:
        body = {"thingId": self.device.id, "type": type, **more}
        told = await self.w.call("POST", "/v2/me/alerts", token or self.ann, body)
        assert told.status_code == 201, told.text
        assert told.json() == {"status": "success", "message": "raised", "id": told.json()["id"]}
        return told.json()["id"]

    async def alerts(self, token: str = "", **query: Any) -> Any:
        told = await self.w.call("GET", "/v2/me/alerts", token or self.ann, **query)
        assert told.status_code == 200, told.text
        return told.json()

    async def types(self, **query: Any) -> list[str]:
        return [each["type"] for each in await self.alerts(**query)]

    async def statuses(self) -> list[str]:
        """Of the alarms as operators see them."""
        page = await self.w.parts.alarms.list(TENANT)
        return [alarm.status for alarm in page.alarms]


@asynccontextmanager
async def scene(redis_url: str, document: dict[str, Any] | None = None) -> AsyncIterator[Scene]:
    async with world(redis_url) as w:
        if document is not None:
            await w.stack.deploy(document)
        ann = await w.register("ann@x.org")
        device, token = await w.thing("t1")
        await w.link(ann, device)
        yield Scene(w, ann, device, token)


@pytest.mark.spec("TTI-X11", "TTI-85")
async def test_an_alarm_of_the_chain_is_an_alert_until_it_is_deleted(redis_url: str) -> None:
    async with scene(redis_url, chain()) as s:
        assert await s.alerts() == []
        await s.sends("temperature", 41, ts="2017-01-16T10:25:10.644Z")
        await s.sends("temperature", 42, ts="2017-01-16T10:26:10.644Z")
        (one,) = await s.alerts()
        assert one == {
            "id": one["id"], "thingId": s.device.id, "type": "Too hot", "severity": "MAJOR", "active": True,
            "acknowledged": False, "startDate": "2017-01-16T10:25:10.644Z", "endDate": "2017-01-16T10:26:10.644Z",
            "details": {"temperature": 42},
        }  # fmt: skip
        path = f"/v2/me/alerts/{one['id']}"
        assert (await s.w.call("GET", path, s.ann)).json() == one
        told = await s.w.call("DELETE", path, s.ann)
        assert (told.status_code, told.json()) == (200, {"status": "success", "message": "deleted"})
        assert await s.alerts() == []
        for method in ("GET", "DELETE"):
            told = await s.w.call(method, path, s.ann)
            assert (told.status_code, told.json()) == (404, NOT_FOUND)
        assert await s.statuses() == ["CLEARED_ACK"]
        # It goes on being hot, which is another alarm.
        await s.sends("temperature", 43)
        (again,) = await s.alerts()
        assert (again["type"], again["active"], again["id"] == one["id"]) == ("Too hot", True, False)


@pytest.mark.spec("TTI-X11")
async def test_an_alarm_that_its_chain_has_cleared_is_shown_until_somebody_has_seen_it(redis_url: str) -> None:
    async with scene(redis_url, chain()) as s:
        await s.sends("temperature", 41)
        (hot,) = await s.alerts(active="true")
        await s.sends("temperature", 20)
        (one,) = await s.alerts(active="false")
        assert one == hot | {"active": False}
        assert await s.alerts(active="true") == []
        assert (await s.w.call("DELETE", f"/v2/me/alerts/{one['id']}", s.ann)).status_code == 200
        assert await s.alerts() == []
        # An operator's word counts for apps, too.
        await s.sends("temperature", 41)
        (one,) = await s.alerts()
        await s.w.parts.alarms.acknowledge(TENANT, s.device.id, one["id"], "operator")
        assert await s.alerts() == [one | {"acknowledged": True}]
        await s.w.parts.alarms.clear(TENANT, s.device.id, one["id"], "operator")
        assert await s.alerts() == []


@pytest.mark.spec("TTI-X11", "TTI-6")
async def test_details_tell_nothing_of_private_resources(redis_url: str) -> None:
    async with scene(redis_url, chain()) as s:
        await s.sends("secret", 41)
        assert [(each["type"], each["details"]) for each in await s.alerts()] == [("Too hot", {})]


@pytest.mark.spec("TTI-X11", "TTI-85")
async def test_an_app_raises_an_alarm_through_the_root_chain(redis_url: str) -> None:
    async with scene(redis_url) as s:
        id = await s.raises("Help", severity="MINOR", details="I have fallen")
        (one,) = await s.alerts()
        assert one == one | {
            "id": id, "thingId": s.device.id, "type": "Help", "severity": "MINOR", "active": True,
            "acknowledged": False, "startDate": one["endDate"], "details": "I have fallen",
        }  # fmt: skip
        # There is one active alarm of a type.
        assert await s.raises("Help", details={"temperature": 50}) == id
        (again,) = await s.alerts()
        assert (again["severity"], again["details"]) == ("CRITICAL", {"temperature": 50})
        assert (again["startDate"], again["endDate"] > one["endDate"]) == (one["startDate"], True)
        body = {"thingId": s.device.id, "name": "Named"}
        assert (await s.w.call("POST", "/v2/me/alerts", s.ann, body)).status_code == 201
        assert await s.types() == ["Named", "Help"]
        assert (await s.w.call("DELETE", f"/v2/me/alerts/{id}", s.ann)).status_code == 200
        user = (await s.w.call("GET", f"/v2/apps/{APP}/users", s.ann)).json()[0]["id"]
        alarm = await s.w.parts.alarms.get(TENANT, s.device.id, id)
        assert (alarm.acked_by, alarm.cleared_by) == (user, user)
        assert await s.raises("Help") != id


@pytest.mark.spec("TTI-X11", "TTI-S10", "TTI-S11")
async def test_a_list_goes_on_before_the_date_of_its_last(redis_url: str) -> None:
    async with scene(redis_url) as s:
        other, _ = await s.w.thing("t2")
        await s.w.link(s.ann, other)
        for number in range(3):
            await s.raises(f"type {number}")
        await s.raises("of the other", thingId=other.id)
        assert await s.types() == ["of the other", "type 2", "type 1", "type 0"]
        assert await s.types(thingId=s.device.id) == ["type 2", "type 1", "type 0"]
        assert await s.types(thingId=other.id) == ["of the other"]
        assert await s.types(limit=2000) == await s.types()
        seen: list[str] = []
        ends: dict[str, str] = {}
        while page := await s.alerts(limit=1, **ends):
            seen += [each["type"] for each in page]
            ends = {"endDate": page[-1]["startDate"]}
        assert sorted(seen) == sorted(await s.types())
        first = (await s.alerts())[-1]["startDate"]
        assert "type 0" in await s.types(startDate=first)
        assert await s.types(endDate=first) == []
        assert await s.types(startDate=first, endDate=first) == []
        for query in (
            {"limit": 0}, {"limit": "x"}, {"limit": -1}, {"active": "maybe"}, {"active": ""}, {"startDate": "soon"},
            {"endDate": "20171301000000"},
        ):  # fmt: skip
            told = await s.w.call("GET", "/v2/me/alerts", s.ann, **query)
            assert (told.status_code, told.json()["code"]) == (400, 400), query
        told = await s.w.call("GET", "/v2/me/alerts", s.ann, thingId="no such thing")
        assert (told.status_code, told.json()["message"]) == (404, "Thing not found")


@pytest.mark.spec("TTI-X11", "TTI-14", "TTI-S9")
async def test_alerts_are_for_those_who_may_read_all_of_a_thing(redis_url: str) -> None:
    async with scene(redis_url) as s:
        id, path = await s.raises(), "/v2/me/alerts"
        bob = await s.w.register("bob@x.org")
        elsewhere = await s.w.register("ann@x.org", OTHER_APP)
        assert await s.alerts(bob) == await s.alerts(elsewhere) == []
        for resource in ("temperature", "humidity"):
            await s.w.grant(s.ann, "bob@x.org", s.device.id, resource, get=True)
            # Something of the thing is not the thing.
            told = await s.w.call("GET", path, bob)
            assert (told.status_code, told.json()["message"]) == (403, "Permission denied")
            assert (await s.w.call("GET", f"{path}?thingId={s.device.id}", bob)).status_code == 403
            told = await s.w.call("GET", f"{path}/{id}", bob)
            assert (told.status_code, told.json()) == (404, NOT_FOUND)
            told = await s.w.call("DELETE", f"{path}/{id}", bob)
            assert (told.status_code, told.json()) == (404, NOT_FOUND)
        await s.w.grant(s.ann, "bob@x.org", s.device.id, "description", get=True)
        assert await s.alerts(bob) == await s.alerts()
        assert (await s.w.call("DELETE", f"{path}/{id}", bob)).status_code == 403
        body = {"thingId": s.device.id, "type": "Bob's"}
        assert (await s.w.call("POST", path, bob, body)).status_code == 403
        for resource in ("temperature", "humidity", "description"):
            await s.w.grant(s.ann, "bob@x.org", s.device.id, resource, post=True)
        assert (await s.w.call("DELETE", f"{path}/{id}", bob)).status_code == 200
        await s.raises("Bob's", bob)
        await s.w.grant(s.ann, "bob@x.org", s.device.id, "humidity", get=False)
        # What was read before is gone with the right to it; his own things are shown as ever.
        his, _ = await s.w.thing("t2")
        await s.w.link(bob, his)
        await s.raises("of his", bob, thingId=his.id)
        assert [each["type"] for each in await s.alerts(bob)] == ["of his"]
        assert await s.types() == ["Bob's"]


BAD: list[tuple[Any, str]] = [
    ([], "must be an object"), ("text", "must be an object"), (7, "must be an object"),
    ({}, "type is missing"), ({"type": ""}, "type must be a text"), ({"type": " \n"}, "type must be a text"),
    ({"type": 7}, "type must be a text"), ({"type": None, "name": "x"}, "type must be a text"),
    ({"name": {}}, "name must be a text"), ({"type": "x" * 256}, "/type: a type has at most 255"),
    ({"type": "\x1b[31mred"}, "/type"), ({"name": "a\0b"}, "/name"),
    ({"type": "x"}, "thingId is missing"), ({"type": "x", "thingId": 7}, "thingId must be a text"),
    ({"type": "x", "severity": "major"}, "/severity: must be one of CRITICAL"),
    ({"type": "x", "severity": ["MAJOR"]}, "/severity"), ({"type": "x", "severity": None}, "/severity"),
    ({"type": "x", "details": 7}, "/details: must be a text"), ({"type": "x", "details": [1]}, "/details"),
    ({"type": "x", "details": {"secret": 1}}, "/details: not a resource of the app: 'secret'"),
]  # fmt: skip


@pytest.mark.spec("TTI-X11", "TTI-S2")
async def test_what_cannot_be_raised(redis_url: str) -> None:
    async with scene(redis_url) as s:
        path, head = "/v2/me/alerts", {"authorization": s.ann}
        for body, reason in BAD:
            told = await s.w.client.post(path, headers=head, json=body)
            assert (told.status_code, told.json()["code"]) == (400, 400), (body, told.text)
            assert reason in told.json()["message"], body
        told_of = b'{"thingId":"%s","type":"x","details":{"temperature":%%s}}' % s.device.id.encode()
        for raw in (
            b"", b"null", b"{", b'{"type":"\\ud800"}', b"\xff", told_of % b"1e999", told_of % (b"9" * 30),
            told_of % nested(70), told_of % nested(2000), told_of % b'"\\udc00"',
        ):  # fmt: skip
            assert (await s.w.client.post(path, headers=head, content=raw)).status_code == 400, raw[:99]
        big = {"thingId": s.device.id, "type": "x", "details": "x" * alerts.MOST_BYTES}
        assert (await s.w.call("POST", path, s.ann, big)).status_code == 413
        strange, _ = await s.w.thing("of nobody")
        for thing, status in (("no such thing", 404), ("x" * 5000, 404), (strange.id, 403)):
            told = await s.w.call("POST", path, s.ann, {"thingId": thing, "type": "x"})
            assert (told.status_code, told.json()["code"]) == (status, status), thing
        for id in ("none", "x" * 5000, "%00", "a|b", strange.id, "*"):
            for method in ("GET", "DELETE"):
                told = await s.w.call(method, f"{path}/{id}", s.ann)
                assert (told.status_code, told.json()) == (404, NOT_FOUND), id
        assert (await s.w.call("PUT", path, s.ann, {})).status_code == 405
        assert (await s.w.call("POST", path + "/some", s.ann, {})).status_code == 405
        assert await s.alerts() == []
        assert await s.statuses() == []


OWN = """
if metadata.alarmType == "fails" then error("not from you") end
if metadata.alarmType == "text" then return {msg = "done"} end
if metadata.alarmType == "other words" then return {msg = {ok = true}} end
if metadata.alarmType == "number" then return {msg = {id = 7}} end
return {msg = {id = msg}}
"""
"""How a chain of somebody's own may answer; the last with the details, which is an id."""


@pytest.mark.spec("TTI-X11", "TTI-85")
async def test_a_chain_with_answers_of_its_own_is_believed_what_is_true(redis_url: str) -> None:
    own = chain(own={"kind": "script", "config": {"source": OWN}, "to": {"Success": "tell who asked"}})
    own["nodes"]["by type"]["to"]["Alarm request"] = "own"
    del own["nodes"]["raise alarm"]
    async with scene(redis_url, own) as s:
        other, token = await s.w.thing("t2")
        await s.w.link(s.ann, other)
        await s.sends("temperature", 41, token=token)
        (foreign,) = await s.alerts()
        for type, status, reason in (
            ("fails", 400, "not from you"), ("text", 503, alerts.NO_ANSWER), ("other words", 503, alerts.NO_ANSWER),
            ("number", 503, alerts.NO_ANSWER), ("no alarm of the thing", 503, alerts.NO_ANSWER),
        ):  # fmt: skip
            body = {"thingId": s.device.id, "type": type, "details": foreign["id"]}
            told = await s.w.call("POST", "/v2/me/alerts", s.ann, body)
            assert (told.status_code, told.json()["code"]) == (status, status), told.text
            assert reason in told.json()["message"]
        assert await s.alerts() == [foreign]
        # A chain may raise where it wants to: what it names is there.
        await s.sends("temperature", 41)
        (mine,) = await s.alerts(thingId=s.device.id)
        assert await s.raises("of the thing", details=mine["id"]) == mine["id"]


@pytest.mark.spec("TTI-X11", "TTI-85")
async def test_a_chain_from_before_there_were_alerts_is_not_said_to_have_raised_any(redis_url: str) -> None:
    old = chain()
    del old["nodes"]["by type"]["to"]["Alarm request"], old["nodes"]["raise alarm"], old["nodes"]["tell who asked"]
    async with scene(redis_url, old) as s:
        told = await s.w.call("POST", "/v2/me/alerts", s.ann, {"thingId": s.device.id, "type": "Help"})
        assert (told.status_code, told.json()["message"]) == (503, alerts.NO_ANSWER)
        assert told.headers["retry-after"] == "60"
        await s.sends("temperature", 41)
        assert await s.types() == ["Too hot"]


@pytest.mark.spec("TTI-X11", "G-20")
async def test_a_chain_that_is_late_is_not_said_to_have_raised_anything(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "SYNC_TIMEOUT_S", 0.1)
    slow = chain(later={"kind": "delay", "config": {"delay_s": 600}, "to": {"Success": "raise alarm"}})
    slow["nodes"]["by type"]["to"]["Alarm request"] = "later"
    async with scene(redis_url, slow) as s:
        told = await s.w.call("POST", "/v2/me/alerts", s.ann, {"thingId": s.device.id, "type": "Help"})
        assert (told.status_code, told.json()["code"], told.headers["retry-after"]) == (503, 503, "1")
        assert await s.alerts() == []
        s.w.stack.ingress.closed_reason = "storage is full"
        told = await s.w.call("POST", "/v2/me/alerts", s.ann, {"thingId": s.device.id, "type": "Help"})
        assert (told.status_code, told.json()["message"]) == (503, "storage is full")


@pytest.mark.spec("TTI-X11")
async def test_how_many_can_be_raised(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "MOST_ACTIVE", 2)
    monkeypatch.setattr(alerts, "RAISED", alerts.RAISED._replace(pair=5))
    async with scene(redis_url) as s:
        first = await s.raises("1")
        await s.raises("2")
        await s.raises("1")
        told = await s.w.call("POST", "/v2/me/alerts", s.ann, {"thingId": s.device.id, "type": "3"})
        assert (told.status_code, told.json()["message"]) == (400, "the thing has 2 active alerts; delete one first")
        assert (await s.w.call("DELETE", f"/v2/me/alerts/{first}", s.ann)).status_code == 200
        await s.raises("3")
        await s.raises("3")
        told = await s.w.call("POST", "/v2/me/alerts", s.ann, {"thingId": s.device.id, "type": "3"})
        assert (told.status_code, "retry-after" in told.headers) == (429, True)
