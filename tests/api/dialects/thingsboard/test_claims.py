"""Claiming: a device opens a window over HTTP or MQTT, a user claims it over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Self

import aiomqtt
import pytest
import pytest_asyncio

from api.dialects.thingsboard.http_claims import UserClaims
from api.dialects.thingsboard.settings import Settings
from api.transports.http import Route
from tests.api.dialects.thingsboard.operator_site import OTHER, OperatorSite
from tests.api.dialects.thingsboard.site import TOKEN
from tests.api.stack import TENANT
from tests.api.transports.mqtt.harness import RawClient, publication

pytestmark = pytest.mark.asyncio

CLAIM = "/api/customer/device/d1/claim"


class ClaimSite(OperatorSite):
    """`people`: ann and bob are customers of the tenant, eve of another, ada its administrator."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.users = {"ada": self.admin, "nobody": self.http}
        self.ids = {"ada": self.ada.id}
        for name, tenant in (("ann", TENANT), ("bob", TENANT), ("eve", OTHER)):
            person, self.users[name] = await self.customer(name, tenant)
            self.ids[name] = person.id
        return self

    def routes(self) -> list[Route]:
        return list(UserClaims(self.parts, self.access.caller).routes)

    async def user(self, name: str, secret: str | None = None, method: str = "POST", path: str = CLAIM) -> Any:
        body = b"" if secret is None else json.dumps({"secretKey": secret}).encode()
        return await self.users[name].request(method, path, content=body)

    async def owner(self) -> str:
        """The name of the device's owner."""
        owner = (await self.registry.device(TENANT, "d1")).owner
        return next((name for name, id in self.ids.items() if id == owner), owner)

    async def heard(self) -> list[tuple[str, Any]]:
        return [(each.type, each.data) for each in await self.messages()]


@pytest_asyncio.fixture
async def site(redis_url: str) -> AsyncIterator[ClaimSite]:
    async with ClaimSite(redis_url, work=False) as made:
        yield made


@pytest.mark.spec("TB-50", "TB-S26", "G-18")
async def test_a_user_who_knows_the_secret_gets_the_device(site: ClaimSite) -> None:
    answer = await site.post("claim", '{"secretKey":"value", "durationMs":60000}')
    assert (answer.status_code, answer.content) == (200, b"")
    assert await site.heard() == [("CLAIM_REQUEST", {"durationMs": 60_000})]
    answer = await site.user("ann", "value")
    assert answer.status_code == 200
    told = answer.json()
    assert told["response"] == "SUCCESS"
    assert (told["device"]["name"], told["device"]["customerId"]["id"]) == ("d1", site.ids["ann"])
    assert await site.owner() == "ann"
    kinds = [message.type for message in await site.messages()]
    assert kinds == ["CLAIM_REQUEST", "ENTITY_ASSIGNED"]
    # The window is used up, and the device has an owner.
    assert (await site.user("bob", "value")).json() == "CLAIMED"
    answer = await site.post("claim", "{}")
    assert (answer.status_code, answer.json()["message"]) == (400, "Device [d1] has been already claimed!")


@pytest.mark.spec("TB-S25")
@pytest.mark.parametrize(
    ("body", "secret", "duration_ms"),
    [
        ("", "", 86_400_000),
        ("  ", "", 86_400_000),
        ("{}", "", 86_400_000),
        ('{"secretKey":null,"durationMs":null}', "", 86_400_000),
        ('{"secretKey":"a"}', "a", 86_400_000),
        ("{secretKey: value, durationMs: 60000}", "value", 60_000),
        ("{secretKey: 123, durationMs: -1}", "123", 86_400_000),
        ('{"durationMs":0}', "", 86_400_000),
        ('{"durationMs":1500.9}', "", 1500),
        ('{"durationMs":9223372036854775807}', "", 9_223_372_036_854_775_807),
    ],
)
async def test_both_members_and_the_body_may_be_left_out(
    site: ClaimSite, body: str, secret: str, duration_ms: int
) -> None:
    assert (await site.post("claim", body)).status_code == 200
    assert await site.heard() == [("CLAIM_REQUEST", {"durationMs": duration_ms})]
    left_ms = await site.redis.pttl(f"rm:{{reg}}:claim:{site.d1.id}")
    assert 0 < left_ms <= duration_ms
    assert left_ms > min(duration_ms, 86_400_000) - 20_000
    assert (await site.user("ann", secret)).status_code == 200


@pytest.mark.spec("TB-3", "TB-S25")
@pytest.mark.parametrize(
    "body",
    ["[]", "5", "{", '{"secretKey":{}}', '{"secretKey":true}', '{"durationMs":"x"}', '{"durationMs":true}', b"\xff"]
)  # fmt: skip
async def test_a_body_that_is_no_claim(site: ClaimSite, body: Any) -> None:
    answer = await site.post("claim", body)
    assert (answer.status_code, answer.json()["status"]) == (400, 400)
    assert await site.heard() == []
    assert (await site.http.post("/api/v1/nobody/claim", content=body)).status_code == 401


@pytest.mark.spec("TB-S25")
async def test_a_second_request_does_not_replace_an_open_window(site: ClaimSite) -> None:
    for secret in ("first", "second"):
        assert (await site.post("claim", json.dumps({"secretKey": secret}))).status_code == 200
    assert (await site.user("ann", "first")).status_code == 200


@pytest.mark.spec("TB-S26")
async def test_a_wrong_secret_ends_the_window(site: ClaimSite) -> None:
    await site.post("claim", '{"secretKey":"value"}')
    for secret in ("wrong", "value"):
        answer = await site.user("ann", secret)
        assert (answer.status_code, answer.json()) == (400, "FAILURE")
    assert await site.owner() == ""


@pytest.mark.spec("TB-S26")
async def test_without_a_window_or_after_its_time_there_is_nothing_to_claim(site: ClaimSite) -> None:
    assert (await site.user("ann", "")).json() == "FAILURE"
    await site.post("claim", '{"durationMs":1}')
    await asyncio.sleep(0.05)
    assert (await site.user("ann", "")).json() == "FAILURE"
    assert (await site.user("ann", "", path="/api/customer/device/nothing/claim")).status_code == 404
    assert (await site.user("ann", "", path=f"/api/customer/device/{site.d1.id}/claim")).status_code == 404


@pytest.mark.spec("TB-S26")
async def test_who_may_claim(site: ClaimSite) -> None:
    await site.post("claim", "{}")
    assert [(await site.user(name, "")).status_code for name in ("nobody", "ada", "eve")] == [401, 403, 404]
    for body in ("[]", '{"secretKey":{}}', "{"):
        assert (await site.users["ann"].post(CLAIM, content=body)).status_code == 400
    assert (await site.user("ann")).status_code == 200


@pytest.mark.spec("TB-S26")
async def test_of_many_users_at_once_one_gets_the_device(site: ClaimSite) -> None:
    await site.post("claim", '{"secretKey":"value"}')
    answers = await asyncio.gather(*[site.user(name, "value") for name in ("ann", "bob") * 5])
    assert sorted(each.status_code for each in answers) == [200] + [400] * 9
    assert [message.type for message in await site.messages()].count("ENTITY_ASSIGNED") == 1


@pytest.mark.spec("TB-S26")
async def test_a_device_is_given_back_and_can_be_claimed_anew(site: ClaimSite) -> None:
    await site.post("claim", "{}")
    await site.user("ann", "")
    assert (await site.user("bob", method="DELETE")).status_code == 403
    assert (await site.user("eve", method="DELETE")).status_code == 404
    assert await site.owner() == "ann"
    for _ in range(2):
        assert (await site.user("ann", method="DELETE")).status_code == 200
        assert await site.owner() == ""
    assert [message.type for message in await site.messages()][-1] == "ENTITY_UNASSIGNED"
    await site.post("claim", "{}")
    assert (await site.user("bob", "")).status_code == 200
    assert (await site.user("ada", method="DELETE")).status_code == 200


@pytest.mark.spec("TB-S25")
async def test_where_claiming_is_not_for_all_an_attribute_allows_it(redis_url: str) -> None:
    async with ClaimSite(redis_url, work=False, settings=Settings(claim_by_default=False)) as site:
        for value in (None, False, "true"):
            if value is not None:
                await site.attributes.write(TENANT, site.d1.id, "SERVER", {"claimingAllowed": value})
            answer = await site.post("claim", "{}")
            assert answer.status_code == 400
            assert "claimingAllowed" in answer.json()["message"]
        await site.attributes.write(TENANT, site.d1.id, "SERVER", {"claimingAllowed": True})
        assert (await site.post("claim", "{}")).status_code == 200
        assert (await site.user("ann", "")).status_code == 200
        assert (await site.attributes.read(TENANT, site.d1.id))["SERVER"] == {}
        await site.user("ann", method="DELETE")
        assert (await site.attributes.read(TENANT, site.d1.id))["SERVER"]["claimingAllowed"].value is True


@pytest.mark.spec("TB-S26")
@pytest.mark.parametrize(
    ("data", "answer"),
    [
        ({"secretKey": "s", "expirationTime": 9_999_999_999_999}, 200),
        ('{"secretKey":"s","expirationTime":9999999999999}', 200),
        ({"secretKey": "s", "expirationTime": 1}, 400),
        ({"secretKey": "other", "expirationTime": 9_999_999_999_999}, 400),
        ({"expirationTime": "x"}, 400),
        ("not JSON", 400),
        (5, 400),
    ],
)
async def test_an_operator_may_open_a_window_by_an_attribute(site: ClaimSite, data: Any, answer: int) -> None:
    await site.attributes.write(TENANT, site.d1.id, "SERVER", {"claimingData": data})
    assert (await site.user("ann", "s")).status_code == answer


@pytest.mark.spec("TB-X1", "TB-50")
async def test_a_device_claims_over_mqtt(site: ClaimSite) -> None:
    async with aiomqtt.Client("127.0.0.1", site.mqtt_port, username=TOKEN, timeout=5) as client:
        await client.publish("v1/devices/me/claim", '{"secretKey":"value","durationMs":60000}', qos=1)
        # Acknowledged is durable.
        assert (await site.user("ann", "value")).status_code == 200
    owned = await RawClient.open(site.mqtt_port)
    await owned.login(username=TOKEN)
    owned.say(publication(b"{}", 1, topic="v1/devices/me/claim"))
    assert await owned.hear() is None
    await owned.close()
    kinds = [(each.type, each.metadata["transport"]) for each in await site.messages()]
    assert kinds == [("CLAIM_REQUEST", "mqtt"), ("ENTITY_ASSIGNED", "http")]


async def test_nothing_is_assigned_that_the_chain_cannot_be_told_of(
    site: ClaimSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.post("claim", "{}")
    site.ingress.closed_reason = "backlog full"
    answer = await site.user("ann", "")
    assert (answer.status_code, await site.owner()) == (503, "")
    site.ingress.closed_reason = ""
    assert (await site.user("ann", "")).status_code == 200
    site.ingress.closed_reason = "backlog full"
    assert ((await site.user("ann", method="DELETE")).status_code, await site.owner()) == (503, "ann")


@pytest.mark.spec("TB-S26")
async def test_a_claim_that_died_half_way_is_ended_when_its_user_tries_again(site: ClaimSite) -> None:
    """As a process leaves it that dies between giving the device to the user and telling the chain."""
    await site.post("claim", '{"secretKey":"value"}')
    assert await site.parts.claims.begin(site.d1.id)
    await site.registry.set_owner(TENANT, site.d1.id, site.ids["ann"], was="")
    assert (await site.user("ann", "value")).json() == "CLAIMED"  # it may still be under way
    await site.parts.claims.end(site.d1.id)  # as happens after a while
    answer = await site.user("ann", "value")
    assert (answer.status_code, answer.json()["response"]) == (200, "SUCCESS")
    assert [message.type for message in await site.messages()].count("ENTITY_ASSIGNED") == 1
    assert (await site.user("ann", "value")).json() == "CLAIMED"
    assert (await site.user("bob", "value")).json() == "CLAIMED"


async def test_a_deleted_device_leaves_no_window(site: ClaimSite) -> None:
    await site.post("claim", '{"secretKey":"value"}')
    await site.registry.delete_device(TENANT, "d1")
    assert await site.redis.keys("rm:{reg}:claim:*") == []
    assert (await site.user("ann", "value")).status_code == 404
