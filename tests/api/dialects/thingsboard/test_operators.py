"""Logging in as a person, and what the tokens are worth."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio
from msgspec.structs import replace

from api.dialects.thingsboard.tokens import ACCESS_S, ALGORITHM, REFRESH_S
from engine.stores.registry import Device
from tests.api.dialects.thingsboard.operator_site import OTHER, PASSWORD, OperatorSite
from tests.api.stack import TENANT

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def site(redis_url: str) -> AsyncIterator[OperatorSite]:
    async with OperatorSite(redis_url) as made:
        yield made


async def log_in(site: OperatorSite, username: Any = "ada@example.com", password: Any = PASSWORD) -> httpx.Response:
    return await site.http.post("/api/auth/login", json={"username": username, "password": password})


async def user(site: OperatorSite, token: str, header: str = "X-Authorization") -> httpx.Response:
    return await site.http.get("/api/auth/user", headers={header: f"Bearer {token}"})


def refused(answer: httpx.Response, message: str = "Authentication failed", code: int = 10) -> None:
    assert answer.status_code == 401
    body = answer.json()
    assert body.pop("timestamp") > 0
    assert body == {"status": 401, "message": message, "errorCode": code}


@pytest.mark.spec("TB-X5")
@pytest.mark.parametrize("header", ["X-Authorization", "Authorization", "x-authorization"])
async def test_a_login_gives_tokens_and_they_say_who_it_is(site: OperatorSite, header: str) -> None:
    answer = await log_in(site, "ADA@example.com")
    assert (answer.status_code, sorted(answer.json())) == (200, ["refreshToken", "token"])
    shown = (await user(site, answer.json()["token"], header)).json()
    assert (shown["email"], shown["authority"]) == ("ada@example.com", "TENANT_ADMIN")
    assert shown["id"] == {"entityType": "USER", "id": site.ada.id}


@pytest.mark.spec("TB-X5", "G-17")
async def test_the_token_is_a_jwt_that_clients_can_take_apart(site: OperatorSite) -> None:
    pair = (await log_in(site)).json()
    head, payload, _ = (part + "==" for part in pair["token"].split("."))
    claims = json.loads(base64.urlsafe_b64decode(payload))
    assert json.loads(base64.urlsafe_b64decode(head))["alg"] == "HS256"
    assert (claims["sub"], claims["scopes"], claims["tenant"]) == ("ada@example.com", ["TENANT_ADMIN"], TENANT)
    assert claims["exp"] - claims["iat"] == ACCESS_S
    refresh = jwt.decode(pair["refreshToken"], options={"verify_signature": False})
    assert (refresh["scopes"], refresh["exp"] - refresh["iat"]) == (["REFRESH_TOKEN"], REFRESH_S)


@pytest.mark.spec("TB-X5")
async def test_wrong_logins_tell_nothing_of_who_there_is(site: OperatorSite) -> None:
    for username, password in (("ada@example.com", "secret-2"), ("nobody@example.com", PASSWORD), ("x", "y")):
        refused(await log_in(site, username, password), "Invalid username or password")
    await site.people.change(TENANT, site.ada.id, lambda known: replace(known, enabled=False))
    refused(await log_in(site), "User account is not active")
    refused(await log_in(site, password="secret-2"), "Invalid username or password")


@pytest.mark.spec("TB-X5")
@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"username": "\xff", "password": "x"}', b'{"username": "a"}',
        b'{"username": 5, "password": "x"}', b'{"username": "a", "password": ""}', b'{"username": null}',
        b'{"username": "\\ud800", "password": "x"}', b"[" * 10_000,
    ],
)  # fmt: skip
async def test_a_login_that_cannot_be_read_is_400(site: OperatorSite, body: bytes) -> None:
    for path in ("login", "token", "changePassword"):
        answer = await site.admin.post(f"/api/auth/{path}", content=body)
        assert (answer.status_code, answer.json()["errorCode"]) == (400, 31), answer.text


async def test_a_body_that_is_too_large_is_413(site: OperatorSite) -> None:
    answer = await site.http.post("/api/auth/login", content=b"x" * 70_000)
    assert (answer.status_code, answer.json()) == (413, "Payload size exceeds the limit of 65536 bytes")


async def test_guessing_ends_with_429_and_a_time_to_wait(site: OperatorSite) -> None:
    for _ in range(5):
        assert (await log_in(site, password="guess-1")).status_code == 401
    answer = await log_in(site)
    assert (answer.status_code, answer.json()["errorCode"]) == (429, 33)
    assert 0 < int(answer.headers["retry-after"]) <= 300


@pytest.mark.spec("TB-X5")
async def test_without_a_token_of_ours_everything_is_401(site: OperatorSite) -> None:
    own = site.tokens.pair(site.ada)["token"]
    claims = jwt.decode(own, options={"verify_signature": False})
    forged = [
        jwt.encode(claims, b"x" * 48, ALGORITHM),
        jwt.encode(claims, None, "none"),
        jwt.encode({**claims, "iss": "other"}, site.tokens._key, ALGORITHM),
        jwt.encode({key: value for key, value in claims.items() if key != "userId"}, site.tokens._key, ALGORITHM),
        jwt.encode(claims, site.tokens._key, "HS384"),
        own[:-4] + "AAAA",
    ]
    wrong = [
        own, f"Basic {own}", "Bearer", "Bearer " + "x" * 10_000, "Bearer \xff\xfe",
        *(f"Bearer {token}" for token in forged),
    ]  # fmt: skip
    headers: list[dict[bytes, bytes]] = [{}, *({b"X-Authorization": each.encode("latin-1")} for each in wrong)]
    for header in headers:
        for path in ("auth/user", f"device/{site.d1.id}", "tenant/devices?deviceName=d1"):
            refused(await site.http.get(f"/api/{path}", headers=header))
        refused(await site.http.post("/api/auth/logout", headers=header))


@pytest.mark.spec("TB-X5")
async def test_a_token_ends_with_its_time_and_a_fresh_one_is_had_for_the_refresh_token(site: OperatorSite) -> None:
    pair = (await log_in(site)).json()
    site.now_s += ACCESS_S - 2
    assert (await user(site, pair["token"])).status_code == 200
    site.now_s += 3
    refused(await user(site, pair["token"]), "Token has expired", 11)
    renewed = await site.http.post("/api/auth/token", json={"refreshToken": pair["refreshToken"]})
    assert renewed.status_code == 200
    assert (await user(site, renewed.json()["token"])).status_code == 200
    site.now_s += REFRESH_S
    refused(
        await site.http.post("/api/auth/token", json={"refreshToken": pair["refreshToken"]}), "Token has expired", 11
    )


async def test_each_kind_of_token_is_good_for_its_own_purpose_alone(site: OperatorSite) -> None:
    pair = (await log_in(site)).json()
    refused(await user(site, pair["refreshToken"]))
    refused(await site.http.post("/api/auth/token", json={"refreshToken": pair["token"]}))


async def everything_ended(site: OperatorSite, pair: dict[str, str]) -> None:
    refused(await user(site, pair["token"]))
    refused(await site.http.post("/api/auth/token", json={"refreshToken": pair["refreshToken"]}))


async def test_logging_out_ends_one_login_and_no_other(site: OperatorSite) -> None:
    one, two = (await log_in(site)).json(), (await log_in(site)).json()
    ended = await site.http.post("/api/auth/logout", headers={"X-Authorization": f"Bearer {one['token']}"})
    assert (ended.status_code, ended.content) == (200, b"")
    await everything_ended(site, one)
    assert (await user(site, two["token"])).status_code == 200


@pytest.mark.spec("TB-X5")
async def test_another_password_ends_every_login_before(site: OperatorSite) -> None:
    pair = (await log_in(site)).json()
    for current, wanted, status, said in (
        ("wrong-one", "secret-3", 400, "Current password doesn't match!"),
        (PASSWORD, "short", 400, "/newPassword: a password has 6 to 1000 characters"),
        (PASSWORD, "secret-3", 200, ""),
    ):
        answer = await site.http.post(
            "/api/auth/changePassword", json={"currentPassword": current, "newPassword": wanted},
            headers={"X-Authorization": f"Bearer {pair['token']}"},
        )  # fmt: skip
        assert answer.status_code == status
        assert not said or answer.json()["message"] == said
    await everything_ended(site, pair)
    assert (await user(site, answer.json()["token"])).status_code == 200
    assert (await log_in(site)).status_code == 401
    assert (await log_in(site, password="secret-3")).status_code == 200


async def test_disabling_changing_the_role_and_deleting_end_every_login(site: OperatorSite) -> None:
    for change in ({"enabled": False}, {"enabled": True, "role": "customer"}):
        pair = site.tokens.pair(await site.people.person(TENANT, site.ada.id))
        await site.people.change(TENANT, site.ada.id, lambda known, change=change: replace(known, **change))
        await everything_ended(site, pair)
    pair = site.tokens.pair(await site.people.person(TENANT, site.ada.id))
    assert (await user(site, pair["token"])).json()["authority"] == "CUSTOMER_USER"
    await site.people.delete(TENANT, site.ada.id)
    await everything_ended(site, pair)


@pytest.mark.spec("TB-X5")
async def test_a_device_is_found_by_id_and_by_name(site: OperatorSite) -> None:
    for path in (f"device/{site.d1.id}", "tenant/devices?deviceName=d1", "tenant/device?deviceName=d1"):
        answer = await site.admin.get(f"/api/{path}")
        assert answer.status_code == 200
        shown = answer.json()
        assert shown["id"] == {"entityType": "DEVICE", "id": site.d1.id}
        assert (shown["name"], shown["type"]) == ("d1", "default")
        assert "A1_TEST_TOKEN" not in answer.text
    assert (await site.admin.get("/api/tenant/devices")).status_code == 400


@pytest.mark.spec("TB-X5")
async def test_devices_of_other_tenants_and_of_nobody_are_not_there(site: OperatorSite) -> None:
    other = await site.registry.put_device(Device(id="", tenant=OTHER, name="theirs"))
    for path in (f"device/{other.id}", "device/nobody", "tenant/devices?deviceName=theirs",
                 "tenant/devices?deviceName=nobody", f"tenant/devices?deviceName={site.d1.id}"):  # fmt: skip
        answer = await site.admin.get(f"/api/{path}")
        assert (answer.status_code, answer.json()["errorCode"]) == (404, 32), path


async def test_a_customer_sees_their_own_devices_alone(site: OperatorSite) -> None:
    bob, client = await site.customer("bob")
    assert (await client.get(f"/api/device/{site.d1.id}")).status_code == 403
    assert (await client.get("/api/tenant/devices?deviceName=d1")).json()["errorCode"] == 20
    await site.registry.set_owner(TENANT, site.d1.id, bob.id)
    site.auth._forget_all()
    shown = (await client.get(f"/api/device/{site.d1.id}")).json()
    assert shown["customerId"] == {"entityType": "CUSTOMER", "id": bob.id}


@pytest.mark.spec("TB-S40", "TB-3", "G-4", "G-7")
async def test_unknown_paths_and_wrong_methods_have_the_vendors_shape(site: OperatorSite) -> None:
    for method, path, status, code in (
        ("GET", "/api/nothing", 404, 32),
        ("GET", "/api", 404, 32),
        ("GET", "/api/v2/x/telemetry", 404, 32),
        ("GET", "/api/auth/login", 405, 2),
        ("DELETE", "/api/auth/user", 405, 2),
    ):
        answer = await site.admin.request(method, path)
        assert (answer.status_code, answer.json()["errorCode"]) == (status, code), path


@pytest.mark.spec("G-28")
async def test_apps_in_web_pages_may_log_in(site: OperatorSite) -> None:
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST",
               "Access-Control-Request-Headers": "x-authorization"}  # fmt: skip
    answer = await site.http.options("/api/auth/login", headers=headers)
    assert (answer.status_code, answer.headers["access-control-allow-headers"]) == (204, "x-authorization")
