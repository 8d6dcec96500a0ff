"""Devices that ask for their credential once more: their first request died half way, or its answer was lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from api.activity import Activity
from api.dialects.thingsboard import provisioning
from api.dialects.thingsboard.provision_request import read_request
from api.intake import Intake
from engine.stores import tellings
from engine.stores.activity import ActivityStore
from engine.stores.products import Products
from engine.stores.registry import ACCESS_TOKEN, Credential, Device
from tests.api.dialects.thingsboard.provision_site import ASK, FAILURE, ProvisionSite
from tests.api.stack import PARTITIONS, TENANT

pytestmark = pytest.mark.asyncio


class ActiveProvisionSite(ProvisionSite):
    """A site that takes notes of who is there."""

    def __init__(self, url: str, *, work: bool = True) -> None:
        super().__init__(url, work=work)
        self.activity = Activity(ActivityStore(self.wire, PARTITIONS), self.auth, Products(self.registry), grace_ms=0)
        self.intake = Intake(self.ingress, self.replies, self.activity)


@pytest_asyncio.fixture
async def site(redis_url: str) -> AsyncIterator[ProvisionSite]:
    async with ProvisionSite(redis_url, work=False) as made:
        yield made


class Died(BaseException):
    """The process is gone."""


@pytest.mark.spec("TB-S30", "TB-S33")
@pytest.mark.parametrize("step", ["attributes.write", "intake.submit", "registry.announced"])
async def test_a_device_whose_first_request_died_half_way_provisions_itself(
    site: ProvisionSite, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.product()
    asked = read_request(json.dumps(ASK).encode())
    part, _, method = step.partition(".")
    with monkeypatch.context() as patched:
        patched.setattr(getattr(site.parts, part), method, _die)
        with pytest.raises(Died):
            await provisioning.provision(site.parts, asked, "http")
    left = await site.registry.device(TENANT, "DEVICE_NAME")
    assert await site.ask() == FAILURE  # it may still be under way
    monkeypatch.setattr(provisioning, "LEFT_BEHIND_MS", 0)
    answer = await site.ask()
    assert answer["status"] == "SUCCESS"
    assert (await site.http.get(f"/api/v1/{answer['credentialsValue']}/attributes")).status_code == 200
    device = await site.registry.device(TENANT, "DEVICE_NAME")
    assert device.id != left.id
    assert await site.server_attributes(device) == {"provisionState": "provisioned"}
    assert await site.server_attributes(left) == {}
    ended = [kind for kind, _, id in await site.kinds() if id == device.id]
    assert ended == ["ENTITY_CREATED", "PROVISION_SUCCESS"]
    assert await site.ask() == FAILURE  # this one has come to its end


@pytest.mark.spec("TB-S32")
@pytest.mark.parametrize("step", ["intake.submit", "registry.take_handout"])
async def test_a_device_made_before_whose_first_request_died_half_way_is_told_its_credential(
    site: ProvisionSite, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.product("check_pre_provisioned")
    await site.device("DEVICE_NAME", token="chosen", product="p")
    asked = read_request(json.dumps(ASK).encode())
    part, _, method = step.partition(".")
    with monkeypatch.context() as patched:
        patched.setattr(getattr(site.parts, part), method, _die)
        with pytest.raises(Died):
            await provisioning.provision(site.parts, asked, "http")
    assert await site.ask() == FAILURE  # it may still be under way
    monkeypatch.setattr(provisioning, "LEFT_BEHIND_MS", 0)
    assert (await site.ask())["credentialsValue"] == "chosen"
    assert await site.ask() == FAILURE


@pytest.mark.parametrize("strategy", ["allow_new", "check_pre_provisioned"])
async def test_of_requests_that_all_take_too_long_one_succeeds_at_most(
    site: ProvisionSite, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provisioning, "LEFT_BEHIND_MS", 0)
    await site.product(strategy)
    if strategy == "check_pre_provisioned":
        await site.device("DEVICE_NAME", token="chosen", product="p")
    answers = [each for each in await asyncio.gather(*[site.ask() for _ in range(10)]) if each["status"] == "SUCCESS"]
    assert len(answers) == 1
    assert (await site.http.get(f"/api/v1/{answers[0]['credentialsValue']}/attributes")).status_code == 200


async def _die(*_: Any, **__: Any) -> None:
    raise Died


# An answer that was lost

ASKED = [
    ("allow_new", {}),
    ("allow_new", {"token": "mine"}),
    ("allow_new", {"credentialsType": "MQTT_BASIC", "clientId": "c", "username": "u", "password": "pw"}),
    ("check_pre_provisioned", {}),
]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices need not wait ten seconds before they ask again."""
    monkeypatch.setattr(tellings, "AGAIN_MS", 1)


async def lost(site: ProvisionSite, strategy: str = "allow_new", **asked: Any) -> tuple[Device, Any]:
    """A device whose first answer, which is given here too, was lost."""
    await site.product(strategy)
    if strategy == "check_pre_provisioned":
        await site.device("DEVICE_NAME", token="chosen", product="p")
    answer = await site.ask(**asked)
    assert answer["status"] == "SUCCESS"
    await asyncio.sleep(0.01)
    return await site.registry.device(TENANT, "DEVICE_NAME"), answer


@pytest.mark.spec("TB-S30", "TB-S32", "TB-S33")
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("strategy", "asked"), ASKED)
async def test_a_lost_answer_is_given_again(site: ProvisionSite, strategy: str, asked: Any) -> None:
    device, answer = await lost(site, strategy, **asked)
    told = await site.kinds()
    assert await site.ask(**asked) == answer
    assert await site.registry.device(TENANT, "DEVICE_NAME") == device
    assert await site.kinds() == told


@pytest.mark.spec("TB-S32")
@pytest.mark.parametrize(("strategy", "asked"), ASKED)
async def test_it_may_be_under_way_for_ten_seconds(site: ProvisionSite, strategy: str, asked: Any) -> None:
    device, answer = await lost(site, strategy, **asked)
    assert await site.ask(**asked) == FAILURE
    await site.redis.delete(f"rm:{{reg}}:telling:{device.id}")
    answers = await asyncio.gather(*[site.ask(**asked) for _ in range(10)])
    assert [each for each in answers if each != FAILURE] == [answer]


@pytest.mark.spec("TB-S32")
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("first", [{}, {"token": "mine"}])
async def test_whoever_asks_for_something_else_does_not_get_it(site: ProvisionSite, first: Any) -> None:
    device, _ = await lost(site, **first)
    for other in ({}, {"token": "mine"}, {"token": "other"}, {"gateway": True}, {"provisionDeviceKey": "q"}):
        if other != first:
            await site.product("allow_new", "q", key="q")
            assert await site.ask(**other) == FAILURE
    assert await site.registry.device(TENANT, "DEVICE_NAME") == device


@pytest.mark.spec("TB-S32")
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("strategy", "asked"), ASKED)
async def test_a_device_that_has_spoken_has_had_its_answer(redis_url: str, strategy: str, asked: Any) -> None:
    async with ActiveProvisionSite(redis_url, work=False) as site:
        device, answer = await lost(site, strategy, **asked)
        value = answer["credentialsValue"]
        if isinstance(value, str):
            assert (await site.http.get(f"/api/v1/{value}/attributes")).status_code == 200
        else:
            assert await site.login(username="u", identifier="c", password="pw")
        await site.activity.flush()
        assert await site.ask(**asked) == FAILURE
        # Nobody gets it then, however long it is silent.
        await site.attributes.delete(TENANT, device.id, "SERVER", ["lastActivityTime"])
        assert await site.ask(**asked) == FAILURE


@pytest.mark.spec("TB-S32")
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("strategy", ["allow_new", "check_pre_provisioned"])
async def test_a_credential_that_an_operator_has_changed_stays(site: ProvisionSite, strategy: str) -> None:
    device, _ = await lost(site, strategy)
    changed = await site.registry.put_device(device, [Credential(kind=ACCESS_TOKEN, value="changed")])
    assert await site.ask() == FAILURE
    assert await site.registry.device(TENANT, "DEVICE_NAME") == changed


@pytest.mark.spec("TB-S32")
async def test_an_answer_is_not_kept_for_ever(site: ProvisionSite) -> None:
    device, _ = await lost(site)
    assert 0 < await site.redis.pttl(f"rm:{{reg}}:told:{device.id}") <= 3_600_000


@pytest.mark.spec("TB-S32")
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("step", ["intake.submit", "registry.put_device"])
async def test_a_new_token_whose_setting_died_is_set_when_the_device_asks_again(
    site: ProvisionSite, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It was made before its product told any credential, so none waits for it.
    await site.product("disabled")
    before = await site.device("DEVICE_NAME", token="unknown", product="p")
    await site.product("check_pre_provisioned")
    part, _, method = step.partition(".")
    with monkeypatch.context() as patched:
        patched.setattr(getattr(site.parts, part), method, _die)
        with pytest.raises(Died):
            await provisioning.provision(site.parts, read_request(json.dumps(ASK).encode()), "http")
    assert await site.registry.device(TENANT, "DEVICE_NAME") == before
    await asyncio.sleep(0.01)
    answer = await site.ask()
    assert (await site.http.get(f"/api/v1/{answer['credentialsValue']}/attributes")).status_code == 200
    assert (await site.http.get("/api/v1/unknown/attributes")).status_code == 401
    assert ("PROVISION_SUCCESS", "DEVICE", before.id) in await site.kinds()
