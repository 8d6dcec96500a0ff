"""What is wrong, and the exact answer to it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import pytest
from redis.exceptions import ConnectionError as Lost

from engine.errors import Refused, Unconfirmed
from tests.api.dialects.thingsboard.site import PATH, TOKEN, Site
from tests.api.stack import TENANT
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio

DEEP = "[" * 100 + "]" * 100
LONG_KEY = '{"' + "k" * 256 + '":1}'


def told(answer: Any, status: int) -> str:
    """The reason in an error of the vendor's shape."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"status", "message", "errorCode", "timestamp"}
    assert body["status"] == status
    assert isinstance(body["timestamp"], int)
    return str(body["message"])


BAD = [
    ("POST", "telemetry", ""),
    ("POST", "telemetry", "   "),
    ("POST", "telemetry", "{"),
    ("POST", "telemetry", "5"),
    ("POST", "telemetry", '"text"'),
    ("POST", "telemetry", "null"),
    ("POST", "telemetry", "[1]"),
    ("POST", "telemetry", '[{"a":1},null]'),
    ("POST", "telemetry", "[[]]"),
    ("POST", "telemetry", '{"ts":"1","values":{}}'),
    ("POST", "telemetry", '{"ts":true,"values":{}}'),
    ("POST", "telemetry", '{"ts":null,"values":{}}'),
    ("POST", "telemetry", '{"ts":1,"values":[]}'),
    ("POST", "telemetry", '{"ts":1,"values":null}'),
    ("POST", "telemetry", '{"ts":99999999999999999,"values":{"a":1}}'),
    ("POST", "telemetry", '{"":1}'),
    ("POST", "telemetry", LONG_KEY),
    ("POST", "telemetry", '{"a":' + DEEP + "}"),
    ("POST", "telemetry", '{"a":1}x'),
    ("POST", "telemetry", b"\xff\xfe"),
    ("POST", "telemetry", b'{"a":"\xff"}'),
    ("POST", "telemetry", '{"a":"\\ud800"}'),
    ("POST", "attributes", ""),
    ("POST", "attributes", "[]"),
    ("POST", "attributes", '[{"a":1}]'),
    ("POST", "attributes", "true"),
    ("POST", "attributes", "{"),
    ("POST", "attributes", '{"":1}'),
    ("POST", "attributes", LONG_KEY),
    ("POST", "rpc", "{"),
    ("POST", "rpc", "null"),
    ("POST", "rpc?timeout=x", '{"method":"a","params":1}'),
    ("POST", "rpc/abc", "{}"),
    ("POST", "rpc/1.5", "{}"),
    ("POST", "rpc/99999999999", "{}"),
    ("POST", "rpc/9223372036854775808999", "{}"),
    ("POST", "rpc/1", ""),
    ("POST", "rpc/1", "{"),
    ("GET", "rpc?timeout=x", ""),
    ("GET", "rpc?timeout=1.5", ""),
    ("GET", "rpc?timeout=1e3", ""),
    ("GET", "attributes/updates?timeout=abc", ""),
    ("GET", "attributes/updates?timeout=%20", ""),
    ("GET", "attributes/updates?timeout=99999999999999999999", ""),
]


@pytest.mark.spec("TB-3", "TB-S3", "TB-S4", "TB-S5", "TB-S10", "TB-S16", "TB-S21", "TB-S22")
async def test_bad_input(site: Site) -> None:
    for method, what, body in BAD:
        answer = await site.http.request(method, f"{PATH}/{what}", content=body)
        assert answer.status_code == 400, (method, what, body, answer.content)
        assert told(answer, 400), (method, what, body)
        assert answer.json()["errorCode"] == 31
    assert await site.latest(site.d1) == {}
    assert await site.dead.list(TENANT) == []


@pytest.mark.spec("TB-3", "TB-S2", "TB-S40")
@pytest.mark.parametrize("token", ["nobody", "provision", "a" * 5000, "%2F", "%FF", "A1_TEST_TOKE", "%41", "é"])
async def test_whatever_is_sent_for_an_unknown_token_is_401(site: Site, token: str) -> None:
    for method, what, body in [*BAD, ("POST", "telemetry", '{"a":1}'), ("GET", "attributes", "")]:
        answer = await site.http.request(method, f"/api/v1/{token}/{what}", content=body)
        assert (answer.status_code, answer.content) == (401, b""), (method, what)


@pytest.mark.spec("TB-3", "TB-S2", "TB-S18")
async def test_whatever_is_sent_with_the_token_of_a_deleted_device_is_401(site: Site) -> None:
    assert (await site.post("telemetry", '{"a":1}')).status_code == 200
    await site.registry.delete_device(TENANT, site.d1.id)

    async def refused() -> bool:
        return (await site.post("telemetry", "{}")).status_code == 401

    await until(refused)
    for method, what, body in [*BAD, ("POST", "telemetry", '{"a":1}'), ("GET", "attributes", ""), ("GET", "rpc", "")]:
        answer = await site.http.request(method, f"{PATH}/{what}", content=body)
        assert (answer.status_code, answer.content) == (401, b""), (method, what)


@pytest.mark.spec("TB-S2", "TB-S40", "G-27")
async def test_a_disabled_device_is_401_at_once_and_a_known_one_again(site: Site) -> None:
    assert (await site.post("telemetry", "{}")).status_code == 200
    for enabled, status in ((False, 401), (True, 200)):
        device = msgspec.structs.replace(site.d1, enabled=enabled)
        await site.registry.put_device(device)
        await asyncio.sleep(0.1)
        assert (await site.post("telemetry", "{}")).status_code == status
    assert (await site.http.post(f"/api/v1/%41{TOKEN[1:]}/telemetry/", content="{}")).status_code == 200


@pytest.mark.spec("TB-S40", "TB-3", "G-7")
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"{PATH}/nothing", 404),
        ("GET", PATH, 404),
        ("GET", "/api/v1", 404),
        ("POST", f"{PATH}//telemetry", 404),
        ("POST", f"{PATH}/rpc/1/2", 404),
        ("POST", "/api/v1//telemetry", 404),
        ("GET", f"{PATH}/telemetry", 405),
        ("DELETE", f"{PATH}/attributes", 405),
        ("PUT", f"{PATH}/rpc", 405),
        ("POST", f"{PATH}/attributes/updates", 405),
        ("GET", f"{PATH}/rpc/1", 405),
    ],
)
async def test_unknown_paths_and_methods(site: Site, method: str, path: str, status: int) -> None:
    answer = await site.http.request(method, path)
    told(answer, status)
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.spec("TB-S9", "G-12")
@pytest.mark.parametrize(
    ("what", "limit"),
    [("telemetry", 52_428_800), ("attributes", 52_428_800), ("claim", 52_428_800), ("rpc", 65_536), ("rpc/1", 65_536)],
)
async def test_a_body_that_is_too_large(site: Site, what: str, limit: int) -> None:
    host, port = site.address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST {PATH}/{what} HTTP/1.1\r\nHost: x\r\nContent-Length: {limit + 1}\r\n\r\n".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 413 ")
    message = f'"Payload size exceeds the limit of {limit} bytes"'.encode()
    assert await reader.readexactly(len(message)) == message
    writer.close()


@pytest.mark.spec("TB-S9")
async def test_a_body_without_a_length_is_counted_as_it_comes(site: Site) -> None:
    async def parts(count: int) -> Any:
        yield b'{"method":"getSessionLimits","params":"'
        for _ in range(count):
            yield b"x" * 1000
        yield b'"}'

    assert (await site.http.post(f"{PATH}/rpc", content=parts(60))).status_code == 200
    answer = await site.http.post(f"{PATH}/rpc", content=parts(70))
    assert (answer.status_code, answer.json()) == (413, "Payload size exceeds the limit of 65536 bytes")


async def refusing(site: Site, error: Exception) -> None:
    """Serve the same with an ingress that takes nothing."""

    class Shut:
        def submit(self, messages: Any) -> Any:
            future = asyncio.get_running_loop().create_future()
            future.set_exception(error)
            return future

    site.intake._ingress = Shut()


@pytest.mark.spec("TB-S40", "G-7")
@pytest.mark.parametrize("error", [Refused("backlog full", 3), Unconfirmed("storage does not answer", 3)])
async def test_a_full_server_says_503_and_when_to_come_back(site: Site, error: Exception) -> None:
    await refusing(site, error)
    for what, body in (
        ("telemetry", '{"a":1}'),
        ("telemetry?sync=true", '{"a":1}'),
        ("attributes", '{"a":1}'),
        ("rpc", '{"method":"a","params":{}}'),
    ):
        answer = await site.post(what, body)
        assert told(answer, 503) == error.args[0]
        assert answer.headers["retry-after"] == "3"
        assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.spec("TB-S40", "G-7")
async def test_a_redis_that_is_away_is_503_not_500(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Site(redis_url, work=False) as site:

        async def away(*_: Any) -> Any:
            raise Lost("gone")

        monkeypatch.setattr(site.registry, "find_credential", away)
        monkeypatch.setattr(site.wire, "execute", away)
        for method, what in (("POST", "telemetry"), ("GET", "attributes"), ("GET", "rpc")):
            answer = await site.http.request(method, f"{PATH}/{what}")
            told(answer, 503)
            assert answer.headers["retry-after"] == "1"


@pytest.mark.spec("TB-S40")
async def test_a_bug_is_a_500_in_the_same_shape_and_keeps_the_token_out_of_the_log(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(device_id: str) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr(site.intake, "stamp", broken)
    with caplog.at_level(logging.ERROR):
        told(await site.post("telemetry", '{"a":1}'), 500)
    assert "/api/v1/{token}/telemetry" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.spec("G-28")
async def test_web_pages_may_call(site: Site) -> None:
    wants = {"origin": "https://app.example", "access-control-request-method": "POST"}
    wants["access-control-request-headers"] = "content-type"
    answer = await site.http.options(f"{PATH}/telemetry", headers=wants)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-methods"] == "POST"
    assert answer.headers["access-control-allow-headers"] == "content-type"
    for answer in (await site.post("telemetry", "{}"), await site.post("telemetry", "{"), await site.get("nothing")):
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-expose-headers"] == "Location, Retry-After"
