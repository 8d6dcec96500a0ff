from __future__ import annotations

import re
from typing import Any

import pytest

from api.dialects.thethingsio.settings import Settings
from tests.api.dialects.thethingsio.world import APP, OTHER_APP, world

pytestmark = pytest.mark.asyncio

INVALID = {"status": "error", "code": 401, "message": "Invalid session token"}
ALL = {"get": True, "post": True, "grant": True, "put": True, "delete": True}


@pytest.mark.spec("TTI-1", "TTI-3", "TTI-4", "TTI-S6", "G-5")
async def test_without_a_session_nothing_is_told(redis_url: str) -> None:
    async with world(redis_url) as w:
        for path in ("/v2/", "/v2", "/v2/me/resources", "/v2/no/such/place"):
            for token in ("", "nonsense"):
                answer = await w.call("GET", path, token)
                assert (answer.status_code, answer.json()) == (401, INVALID)
        token = await w.register("a@b.c")
        for given in (token, f"Bearer {token}"):
            answer = await w.call("GET", "/v2/me/resources", given)
            assert (answer.status_code, answer.json()) == (200, [])
        for path in ("/v2/", "/v2/no/such/place"):
            answer = await w.call("GET", path, token)
            assert (answer.status_code, answer.json()["code"]) == (404, 404)


@pytest.mark.spec("TTI-2", "TTI-S1")
async def test_apps_need_tls(redis_url: str) -> None:
    async with world(redis_url, Settings()) as w:
        for method, path in (("POST", "/v2/register"), ("POST", "/v2/login"), ("GET", "/v2/")):
            answer = await w.call(method, path, body={} if method == "POST" else None)
            assert (answer.status_code, answer.json()) == (
                403,
                {"status": "error", "code": 403, "message": "HTTPS required"},
            )


@pytest.mark.spec("TTI-6", "TTI-10", "TTI-11", "TTI-12", "TTI-13", "TTI-S3", "TTI-S5")
async def test_registering_and_logging_in(redis_url: str) -> None:
    async with world(redis_url) as w:
        body = {"email": "You@There.org", "password": "hard to guess", "app": APP}
        answer = await w.call("POST", "/v2/register", body=body)
        told = answer.json()
        assert answer.status_code == 201
        assert re.fullmatch(r"[A-Za-z0-9_-]{27}", told.pop("token"))
        roles = told.pop("roles")
        assert told == {"expirationDate": 31536000, "status": "success", "message": "user created"}
        assert sorted(roles) == ["RSRC_description", "RSRC_humidity", "RSRC_temperature"]
        [(group, rights)] = roles["RSRC_temperature"].items()
        assert re.fullmatch(r"OTLoG_[A-Za-z0-9]{8}", group)
        assert rights == ALL
        answer = await w.call("POST", "/v2/login", body={**body, "email": "you@there.ORG"})
        assert answer.status_code == 200
        assert sorted(answer.json()) == ["expirationDate", "roles", "token"]
        assert answer.json()["roles"] == roles
        # The same person in another app is somebody else.
        answer = await w.call("POST", "/v2/login", body={**body, "app": OTHER_APP})
        assert answer.status_code == 401
        await w.register("you@there.org", OTHER_APP)


@pytest.mark.spec("TTI-S2", "TTI-S4")
@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"email": None}, 400, "email is missing"),
        ({"email": "nobody"}, 400, "email is not an e-mail address"),
        ({"email": "a,b@x.org"}, 400, "email is not an e-mail address"),
        ({"email": "a<b@x.org>"}, 400, "email is not an e-mail address"),
        ({"email": 5}, 400, "email must be a text"),
        ({"password": None}, 400, "password is missing"),
        ({"password": "short"}, 400, "a password has 6 to 1000 characters"),
        ({"app": "no-such-app"}, 400, "invalid app"),
        ({"app": ["x"]}, 400, "app must be a text"),
        ({"email": "A@B.C "}, 400, "user already exists"),
    ],
)
async def test_what_cannot_be_registered(redis_url: str, change: dict[str, Any], status: int, message: str) -> None:
    async with world(redis_url) as w:
        await w.register("a@b.c")
        body = {"email": "x@y.z", "password": "secret 1", "app": APP, **change}
        answer = await w.call("POST", "/v2/register", body={k: v for k, v in body.items() if v is not None})
        assert (answer.status_code, answer.json()) == (status, {"status": "error", "code": status, "message": message})


@pytest.mark.spec("TTI-55", "TTI-56", "TTI-57", "TTI-58", "TTI-S6", "TTI-S17")
async def test_settings_and_the_password_among_them(redis_url: str) -> None:
    async with world(redis_url) as w:
        token, other = await w.register("a@b.c"), ""
        login = await w.call("POST", "/v2/login", body={"email": "a@b.c", "password": "secret 1", "app": APP})
        other = login.json()["token"]
        assert (await w.call("GET", "/v2/me/settings", token)).json() == {}
        mine = {"hair-color": "pink", "phones": ["13246578", "99833212"]}
        answer = await w.call("PUT", "/v2/me/settings", token, mine)
        assert (answer.status_code, answer.json()) == (200, {"status": "success", "message": "updated"})
        await w.call("PUT", "/v2/me/settings", token, {"hair-color": None, "eyes": {"left": 1}})
        kept = {"phones": ["13246578", "99833212"], "eyes": {"left": 1}}
        assert (await w.call("GET", "/v2/me/settings", token)).json() == kept
        for bad in ([1], "x", {"big": "x" * 65536}, {"password": "short"}, {"password": 7}):
            assert (await w.call("PUT", "/v2/me/settings", token, bad)).status_code in (400, 413)
        assert (await w.call("PUT", "/v2/me/settings", token, {"password": "another 1"})).status_code == 200
        assert (await w.call("GET", "/v2/me/settings", token)).json() == kept
        assert (await w.call("GET", "/v2/me/settings", other)).status_code == 401
        for password, status in (("secret 1", 401), ("another 1", 200)):
            login = {"email": "a@b.c", "password": password, "app": APP}
            assert (await w.call("POST", "/v2/login", body=login)).status_code == status


@pytest.mark.spec("TTI-60", "TTI-S18")
async def test_the_date(redis_url: str) -> None:
    async with world(redis_url) as w:
        token = await w.register("a@b.c")
        for path in ("/v2/utils/date", "/v2/utils/date/"):
            told = (await w.call("GET", path, token, format="UTC")).json()
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["date"])
            assert told["values"] == [{"value": told["date"]}]
        told = (await w.call("GET", "/v2/utils/date", token, format="unix_timestamp")).json()
        assert isinstance(told["date"], int)
        assert told["values"] == [{"value": told["date"]}]
        assert (await w.call("GET", "/v2/utils/date", token, format="moon")).status_code == 400
        assert (await w.call("GET", "/v2/utils/date")).status_code == 401


@pytest.mark.spec("TTI-57", "TTI-S17")
async def test_settings_that_are_refused_leave_the_password_as_it_was(redis_url: str) -> None:
    async with world(redis_url) as w:
        token = await w.register("a@b.c")
        await w.call("PUT", "/v2/me/settings", token, {"a": "x" * 40_000})
        for body in ({"password": "another 1", "b": "x" * 40_000}, {"password": "short", "b": 1}):
            assert (await w.call("PUT", "/v2/me/settings", token, body)).status_code == 400
        assert (await w.call("GET", "/v2/me/settings", token)).json() == {"a": "x" * 40_000}
        login = {"email": "a@b.c", "password": "secret 1", "app": APP}
        assert (await w.call("POST", "/v2/login", body=login)).status_code == 200
