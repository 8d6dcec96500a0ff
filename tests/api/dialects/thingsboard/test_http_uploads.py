"""Telemetry and attributes over HTTP, through real sockets to the store."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from api.dialects.thingsboard.settings import Settings
from tests.api.dialects.thingsboard.site import PATH, TOKEN, Site
from tests.services import require

pytestmark = pytest.mark.asyncio

NESTED = {"someNumber": 42, "someArray": [1, 2, 3], "someNestedObject": {"key": "value"}}
FIXTURE: dict[str, Any] = {
    "stringKey": "value1", "booleanKey": True, "doubleKey": 42.0, "longKey": 73, "jsonKey": NESTED,
}  # fmt: skip
TS = 1451649600512


def same(found: Any, wanted: Any) -> bool:
    """Equal, types included: 42.0 is not 42, True is not 1."""
    return json.dumps(found, sort_keys=True) == json.dumps(wanted, sort_keys=True)


async def shell(site: Site, command: str, folder: Path | None = None) -> str:
    """Run a documented command in a shell and give what it prints."""
    require("curl")
    host = site.address.removeprefix("http://")
    command = command.replace("$ACCESS_TOKEN", TOKEN).replace("$HOST", host)
    done = await asyncio.to_thread(
        subprocess.run, ["/bin/sh", "-c", command], capture_output=True, text=True, timeout=20, cwd=folder, check=True
    )
    return done.stdout


STATUS = "curl -s -o /dev/null -w '%{http_code}' -X POST -d"


@pytest.mark.spec("TB-1", "TB-2", "TB-5", "TB-12")
@pytest.mark.parametrize("data", ['"{"temperature":42,"humidity":73}"', '\'{"temperature":42,"humidity":73}\''])
async def test_the_documented_telemetry_command_as_a_shell_runs_it(site: Site, data: str) -> None:
    command = (
        f"curl -s -o /dev/null -w '%{{http_code}}' -X POST --data {data} "
        "http://$HOST/api/v1/$ACCESS_TOKEN/telemetry --header 'Content-Type:application/json'"
    )
    assert await shell(site, command) == "200"
    assert same(await site.latest(site.d1), {"temperature": 42, "humidity": 73})


@pytest.mark.spec("TB-12", "TB-16")
async def test_the_documented_attributes_command_as_a_shell_runs_it(site: Site) -> None:
    command = (
        f'{STATUS} "{{"attribute1": "value1", "attribute2":true, "attribute3": 43.0}}" '
        "http://$HOST/api/v1/$ACCESS_TOKEN/attributes --header 'Content-Type:application/json'"
    )
    assert await shell(site, command) == "200"
    wanted = {"attribute1": "value1", "attribute2": True, "attribute3": 43.0}
    assert same((await site.attributes_of(site.d1))["CLIENT"], wanted)


@pytest.mark.spec("TB-4", "TB-9", "TB-35", "TB-S1")
async def test_a_file_of_every_type_keeps_its_types(site: Site, tmp_path: Path) -> None:
    (tmp_path / "telemetry-data-as-object.json").write_text(json.dumps(FIXTURE))
    command = (
        "curl -s -w '%{http_code}' -X POST -d @telemetry-data-as-object.json "
        "http://$HOST/api/v1/$ACCESS_TOKEN/telemetry --header 'Content-Type:application/json'"
    )
    assert await shell(site, command, tmp_path) == "200"  # and no body
    assert same(await site.latest(site.d1), FIXTURE)


@pytest.mark.spec("TB-6")
async def test_an_object_gets_the_servers_time(site: Site) -> None:
    before = site.intake.stamp("clock")
    answer = await site.post("telemetry", '{"key1":"value1", "key2":"value2"}')
    assert (answer.status_code, answer.content) == (200, b"")
    points = await site.points(site.d1)
    assert {(key, value) for key, _, value in points} == {("key1", "value1"), ("key2", "value2")}
    [at] = {ts_ms for _, ts_ms, _ in points}
    assert before - 1 <= at <= site.intake.stamp("clock")


@pytest.mark.spec("TB-7", "TB-10")
async def test_the_elements_of_an_array_are_one_instant(site: Site) -> None:
    assert (await site.post("telemetry", '[{"key1":"value1"}, {"key2":true}]')).status_code == 200
    points = await site.points(site.d1)
    assert same({key: value for key, _, value in points}, {"key1": "value1", "key2": True})
    assert len({ts_ms for _, ts_ms, _ in points}) == 1


@pytest.mark.spec("TB-8", "TB-11")
async def test_the_clients_time_is_kept(site: Site) -> None:
    assert (await site.post("telemetry", json.dumps({"ts": TS, "values": FIXTURE}))).status_code == 200
    points = await site.points(site.d1)
    assert same({key: value for key, _, value in points}, FIXTURE)
    assert {ts_ms for _, ts_ms, _ in points} == {TS}


@pytest.mark.spec("TB-S4")
@pytest.mark.parametrize("body", ['{"ts":5,"value":1}', '[{"ts":5,"value":1}]'])
async def test_a_ts_without_values_is_a_key_like_others(site: Site, body: str) -> None:
    assert (await site.post("telemetry", body)).status_code == 200
    points = await site.points(site.d1)
    assert {key: value for key, _, value in points} == {"ts": 5, "value": 1}
    assert all(ts_ms > TS for _, ts_ms, _ in points)


@pytest.mark.spec("TB-13", "TB-S4", "G-18")
async def test_one_message_for_each_instant(redis_url: str) -> None:
    async with Site(redis_url, work=False) as site:
        body = [{"ts": 5, "values": {"a": 1}}, {"b": 2}, {"ts": 5, "values": {"c": 3}}, {"ts": 6, "values": {"a": 4}}]
        assert (await site.post("telemetry", json.dumps(body))).status_code == 200
        messages = await site.messages()
        assert [message.data for message in messages] == [{"a": 1, "c": 3}, {"b": 2}, {"a": 4}]
        assert [message.metadata["ts"] for message in messages] == ["5", str(messages[1].ts_ms), "6"]
        common = {"dialect": "tb", "transport": "http", "deviceName": "d1", "deviceType": "default"}
        for message in messages:
            assert message.type == "POST_TELEMETRY_REQUEST"
            assert (message.originator, message.originator_type) == (site.d1.id, "DEVICE")
            assert message.metadata.items() >= common.items()


@pytest.mark.spec("TB-15", "TB-17")
async def test_attributes_of_every_type(site: Site) -> None:
    body = {"attribute1": "value1", "attribute2": True, "attribute3": 42.0, "attribute4": 73, "attribute5": NESTED}
    answer = await site.post("attributes", json.dumps(body))
    assert (answer.status_code, answer.content) == (200, b"")
    found = await site.attributes_of(site.d1)
    assert same(found["CLIENT"], body)
    assert not found["SHARED"]
    assert not found["SERVER"]


@pytest.mark.spec("TB-15")
async def test_an_attribute_upload_is_a_message_of_its_own_type(redis_url: str) -> None:
    async with Site(redis_url, work=False) as site:
        await site.post("attributes", '{"a":1}')
        [message] = await site.messages()
        assert (message.type, message.metadata["scope"]) == ("POST_ATTRIBUTES_REQUEST", "CLIENT_SCOPE")


@pytest.mark.spec("TB-20", "TB-21", "TB-22", "TB-S12")
async def test_reading_attributes(site: Site) -> None:
    query = "attributes?clientKeys=attribute1,attribute2&sharedKeys=shared1,shared2"
    assert (await site.get("attributes")).content == b"{}"
    await site.post("attributes?sync=true", '{"attribute1": "value1", "attribute2":true, "attribute3": 43.0}')
    answer = await site.get(query)
    assert answer.headers["content-type"] == "application/json"
    assert same(answer.json(), {"client": {"attribute1": "value1", "attribute2": True}})
    await site.attributes.write("acme", site.d1.id, "SHARED", {"shared1": 1, "other": 42.0})
    await site.attributes.write("acme", site.d1.id, "SERVER", {"secret": "for nobody", "shared2": 1})
    assert same((await site.get(query)).json()["shared"], {"shared1": 1})
    assert same((await site.get("attributes?sharedKeys=other")).json(), {"shared": {"other": 42.0}})
    assert same((await site.get("attributes?clientKeys=attribute3")).json(), {"client": {"attribute3": 43.0}})
    everything = {
        "client": {"attribute1": "value1", "attribute2": True, "attribute3": 43.0},
        "shared": {"shared1": 1, "other": 42.0},
    }
    assert same((await site.get("attributes")).json(), everything)
    assert same((await site.get("attributes?client_keys=a&shared_keys=b")).json(), everything)
    assert (await site.get("attributes?clientKeys=secret&sharedKeys=secret")).content == b"{}"


@pytest.mark.spec("TB-S6")
async def test_numeric_texts_become_numbers_and_nulls_are_skipped(site: Site) -> None:
    body = '{"a":"42","b":"3.5","c":1e3,"d":null,"e":"x1","f":12345678901234567890123,"g":["42"]}'
    assert (await site.post("telemetry", body)).status_code == 200
    wanted = {"a": 42, "b": 3.5, "c": 1000, "e": "x1", "f": "12345678901234567890123", "g": ["42"]}
    assert same(await site.latest(site.d1), wanted)


@pytest.mark.spec("TB-S6")
async def test_without_casting_texts_stay_and_what_is_too_large_is_refused(redis_url: str) -> None:
    async with Site(redis_url, settings=Settings(type_cast=False, max_text=5)) as site:
        assert (await site.post("telemetry", '{"a":"42"}')).status_code == 200
        assert same(await site.latest(site.d1), {"a": "42"})
        assert (await site.post("telemetry", '{"a":12345678901234567890123}')).status_code == 400
        assert (await site.post("attributes", '{"a":"123456"}')).status_code == 400


@pytest.mark.spec("TB-S4", "TB-X1")
@pytest.mark.parametrize("body", ["{}", "[]", "[{}]", '{"a":null}', '{"ts":1,"values":{}}'])
async def test_nothing_to_store_is_fine(redis_url: str, body: str) -> None:
    async with Site(redis_url, work=False) as site:
        assert (await site.post("telemetry", body)).status_code == 200
        assert await site.messages() == []


@pytest.mark.spec("TB-S7")
@pytest.mark.parametrize(
    "body",
    ["{a: b}", "{'a':'b'}", "// so\n{a:b}", "# so\n{a:b}", "/* so */{a:b}", "{a=b}", "{a=>b}", "{none:null;a:b}"],
)
async def test_lenient_bodies(site: Site, body: str) -> None:
    assert (await site.post("telemetry", body)).status_code == 200
    assert await site.latest(site.d1) == {"a": "b"}


@pytest.mark.spec("TB-S8", "G-27")
@pytest.mark.parametrize("header", [None, "text/plain", "application/x-www-form-urlencoded", "no type at all"])
async def test_the_content_type_does_not_matter(site: Site, header: str | None) -> None:
    headers = {} if header is None else {"content-type": header}
    assert (await site.post("telemetry/", '{"a":1}', headers=headers)).status_code == 200
    assert await site.latest(site.d1) == {"a": 1}


@pytest.mark.spec("G-20")
async def test_sync_waits_for_the_store_and_tells_a_failure(site: Site) -> None:
    assert (await site.post("telemetry?sync=true", '[{"ts":1,"values":{"a":1}},{"ts":2,"values":{"a":2}}]')).is_success
    assert [(point.ts_ms, point.value) for point in await site.store.latest("acme", [site.d1.id])] == [(2, 2)]
    save = {"kind": "script", "config": {"lang": "lua", "source": "error('no room')"}}
    await site.deploy({"chain": "root", "start": "s", "nodes": {"s": save}})
    await asyncio.sleep(1.2)  # a worker may go by the old deployment for a second
    answer = await site.post("telemetry?sync=true", '{"a":1}')
    assert answer.status_code == 500
    assert "no room" in answer.json()["message"]
    assert answer.json()["status"] == 500
    assert (await site.post("telemetry", '{"a":1}')).status_code == 200


@pytest.mark.spec("TB-S9")
async def test_a_body_of_megabytes_is_read(site: Site) -> None:
    body = json.dumps([{"ts": i, "values": {"a": i, "pad": "x" * 100}} for i in range(12_000)])
    assert len(body) > 1_500_000
    assert (await site.post("telemetry", body)).status_code == 200
    assert (await site.latest(site.d1))["a"] == 11_999


async def test_hypercorn_serves_the_same(redis_url: str) -> None:
    async with Site(redis_url, server="hypercorn") as site:
        assert (await site.post("telemetry?sync=true", '{"a":1}')).status_code == 200
        assert await site.latest(site.d1) == {"a": 1}
        assert (await site.http.post(PATH.replace(TOKEN, "x") + "/telemetry", content="{}")).status_code == 401
