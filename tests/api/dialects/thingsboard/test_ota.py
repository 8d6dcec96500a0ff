"""Firmware and software: how devices learn of them, and how they fetch them over HTTP and MQTT."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import aiomqtt
import httpx
import pytest
import pytest_asyncio
from msgspec.structs import replace

from api.dialects.thingsboard import downloads
from api.dialects.thingsboard.settings import Settings
from engine.node import Product
from engine.stores.firmware import About
from engine.stores.registry import Device
from tests.api.dialects.thingsboard.ota_site import IMAGE, PRODUCT, OtaSite
from tests.api.dialects.thingsboard.site import PATH, TOKEN
from tests.api.stack import TENANT
from tests.api.transports.mqtt.harness import RawClient, publication
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio

SHA256 = hashlib.sha256(IMAGE).hexdigest()


@pytest_asyncio.fixture
async def site(redis_url: str) -> AsyncIterator[OtaSite]:
    async with OtaSite(redis_url, settings=Settings(ota_devices_per_s=10_000.0)) as made:
        await made.rollout.start()
        yield made


@pytest_asyncio.fixture
async def still(redis_url: str) -> AsyncIterator[OtaSite]:
    """A site where nothing is told by itself."""
    async with OtaSite(redis_url, settings=Settings(ota_devices_per_s=10_000.0)) as made:
        yield made


async def get(site: OtaSite, what: str = "firmware", **query: Any) -> httpx.Response:
    return await site.get(what, params={"title": "fw", "version": "v2", **query})


# What devices are told


@pytest.mark.spec("TB-60", "TB-S37", "TB-30")
async def test_assigning_sets_the_shared_attributes_and_tells_who_waits(site: OtaSite) -> None:
    image = await site.upload(tag="fw v2")
    poll = asyncio.create_task(site.get("attributes/updates", params={"timeout": 10_000}))
    await until(lambda: site.d1.id in site.live._listeners)
    await site.assign(image)
    wanted = {
        "fw_title": "fw", "fw_version": "v2", "fw_size": len(IMAGE), "fw_checksum": SHA256,
        "fw_checksum_algorithm": "SHA256", "fw_tag": "fw v2",
    }  # fmt: skip
    assert (await poll).json() == wanted
    await site.told()
    assert await site.shared() == wanted
    points = {key: value for key, _, value in await site.points(site.d1)}
    assert points.pop("target_fw_ts") > 1_700_000_000_000
    assert points == {"target_fw_title": "fw", "target_fw_version": "v2", "fw_state": "INITIATED"}
    page = await site.store.range(TENANT, [site.d1.id], ["fw_state"], 0, 2**62)
    assert [point.value for point in page.points] == ["QUEUED", "INITIATED"]


@pytest.mark.spec("TB-S38", "TB-S37")
async def test_software_has_keys_of_its_own(site: OtaSite) -> None:
    await site.assign(await site.upload("s1", kind="SOFTWARE", algorithm="MURMUR3_32"), "SOFTWARE")
    await site.told()
    shared = await site.shared()
    assert {key.partition("_")[0] for key in shared} == {"sw"}
    assert (shared["sw_checksum_algorithm"], len(shared["sw_checksum"])) == ("MURMUR3_32", 8)
    assert (await site.latest(site.d1))["sw_state"] == "INITIATED"
    assert (await get(site, "software", version="s1")).content == IMAGE
    assert (await get(site, "firmware", version="s1")).status_code == 404


@pytest.mark.spec("TB-S37")
async def test_another_image_replaces_what_the_last_one_said_and_none_takes_it_away(site: OtaSite) -> None:
    await site.attributes.write(TENANT, site.d1.id, "SHARED", {"other": 1})
    await site.assign(await site.upload(tag="t"))
    await site.told()
    url = await site.firmware.put(PRODUCT, "v3", b"", About(title="fw", version="v3", url="https://example.com/v3"))
    await site.assign(url)
    await site.told()
    assert await site.shared() == {"other": 1, "fw_title": "fw", "fw_version": "v3", "fw_url": "https://example.com/v3"}
    # What lies elsewhere is not fetched here.
    assert (await get(site, version="v3")).status_code == 404
    poll = asyncio.create_task(site.get("attributes/updates", params={"timeout": 10_000}))
    await until(lambda: site.d1.id in site.live._listeners)
    await site.assign(None)
    assert sorted((await poll).json()["deleted"]) == ["fw_title", "fw_url", "fw_version"]
    await site.told()
    assert await site.shared() == {"other": 1}


@pytest.mark.spec("TB-S37", "TB-S36")
async def test_a_devices_own_image_counts_more(site: OtaSite) -> None:
    await site.assign(await site.upload("v1"))
    own = await site.upload("v2")
    await site.rollouts.assign_device(site.d1.id, PRODUCT, "FIRMWARE", own.id)
    await site.told()
    assert (await site.shared())["fw_version"] == "v2"
    assert (await get(site, version="v1")).status_code == 400
    await site.rollouts.assign_device(site.d1.id, PRODUCT, "FIRMWARE", "")
    await site.told()
    assert (await site.shared())["fw_version"] == "v1"


@pytest.mark.spec("TB-S37")
async def test_devices_that_come_later_or_move_are_told_too(site: OtaSite) -> None:
    await site.registry.put_product(Product(id="other", tenant=TENANT))
    await site.assign(await site.upload())
    await site.told()
    late = await site.device("late", product=PRODUCT)
    await site.told()
    assert (await site.shared(late))["fw_version"] == "v2"
    await site.registry.put_device(replace(late, product="other"))
    await site.told()
    assert await site.shared(late) == {}
    without = await site.device("without")
    await site.told()
    assert await site.shared(without) == {}


@pytest.mark.spec("TB-S37")
async def test_telling_goes_on_where_it_was_left(redis_url: str) -> None:
    async with OtaSite(redis_url, settings=Settings(ota_devices_per_s=10_000.0)) as site:
        made = await asyncio.gather(*[site.device(f"n{i:04}", product=PRODUCT) for i in range(600)])
        await site.redis.delete("rm:{reg}:ota-due")
        await site.assign(await site.upload())
        while True:
            await site.rollout.step()
            (under_way,) = await site.rollouts.all()
            assert not under_way.finished_ms
            if under_way.scanned >= 200:
                break
        assert under_way.of == 601
        told = sum([bool(await site.shared(each)) for each in made])
        assert 100 < told < 500
        # Another process, which does the last step of this one again.
        await site.rollouts.save(replace(under_way, cursor=0, scanned=0, told=0))
        await site.rollout.start()
        await site.told()
        (done,) = await site.rollouts.all()
        assert 601 - told <= done.told + 1 <= 602
        assert all([(await site.shared(each))["fw_version"] == "v2" for each in made])
        assert len([point for point in await site.points(made[0]) if point[0] == "fw_state"]) == 1


class Died(BaseException):
    """The process is gone."""


@pytest.mark.spec("TB-60", "TB-S37")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "step",
    ["rollouts.take_due", "rollouts.devices", "intake.submit", "attributes.delete", "attributes.write",
     "rollouts.done", "rollouts.save"],
)  # fmt: skip
async def test_whoever_follows_one_that_died_at_any_step_ends_what_it_began(
    still: OtaSite, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    await still.assign(await still.upload("v1", tag="gone in v2"))
    await still.work()
    other = await still.device("other", product=PRODUCT)
    await still.assign(await still.upload("v2"))
    part, _, method = step.partition(".")
    whole = getattr(getattr(still.parts, part), method)

    async def dying(*arguments: Any) -> None:
        if when == "after":
            await whole(*arguments)
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(getattr(still.parts, part), method, dying)
        with pytest.raises(Died):
            await still.work()
    await still.work()
    for device in (still.d1, other):
        shared = await still.shared(device)
        assert (shared["fw_version"], shared["fw_checksum"], "fw_tag" in shared) == ("v2", SHA256, False)
        points = {key: value for key, _, value in await still.points(device)}
        assert (points["target_fw_version"], points["fw_state"]) == ("v2", "INITIATED")
    assert await still.redis.exists("rm:{reg}:ota-due", "rm:{reg}:ota-doing") == 0


async def test_while_the_door_is_closed_nobody_is_told(site: OtaSite) -> None:
    site.ingress.closed_reason = "backlog full"
    await site.assign(await site.upload())
    await asyncio.sleep(0.3)
    assert await site.shared() == {}
    site.ingress.closed_reason = ""
    await site.told()
    assert (await site.shared())["fw_version"] == "v2"


@pytest.mark.spec("TB-S37", "G-18")
async def test_what_the_device_says_of_its_update_is_its_telemetry(site: OtaSite) -> None:
    await site.assign(await site.upload())
    await site.told()
    for state in ("DOWNLOADING", "FAILED"):
        body = f'{{"fw_state":"{state}","fw_error":"no room","current_fw_title":"fw","current_fw_version":"v1"}}'
        assert (await site.post("telemetry", body)).status_code == 200
    latest = await site.latest(site.d1)
    assert (latest["fw_state"], latest["fw_error"], latest["target_fw_version"]) == ("FAILED", "no room", "v2")


# Over HTTP


@pytest.mark.spec("TB-61", "TB-S35")
async def test_the_whole_image(site: OtaSite) -> None:
    await site.assign(await site.upload(file_name="thermostat v2.bin", content_type="application/x-firmware"))
    answer = await get(site)
    assert (answer.status_code, answer.content) == (200, IMAGE)
    headers = {name: answer.headers.get(name) for name in ("content-type", "content-disposition", "x-filename")}
    assert headers == {
        "content-type": "application/x-firmware",
        "content-disposition": "attachment;filename=thermostat v2.bin",
        "x-filename": "thermostat v2.bin",
    }
    assert answer.headers["content-length"] == str(len(IMAGE))
    assert (await get(site, size="0", chunk="7")).content == IMAGE
    small = await site.upload("v3", b"small")
    await site.assign(small)
    answer = await get(site, version="v3")
    assert (answer.content, answer.headers["x-filename"]) == (b"small", "v3")
    assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.spec("TB-S35")
@pytest.mark.parametrize("size", [1000, 65_536, 300_000, 2_147_483_647])
async def test_chunks(site: OtaSite, size: int) -> None:
    await site.assign(await site.upload())
    got, chunk = b"", 0
    while len(got) < len(IMAGE) and chunk < 5:
        answer = await get(site, size=str(size), chunk=str(chunk))
        assert answer.status_code == 200
        assert answer.content == IMAGE[size * chunk : size * (chunk + 1)]
        assert answer.headers["content-length"] == str(len(answer.content))
        got += answer.content
        chunk += 1
    assert got == IMAGE[: len(got)]
    last = (len(IMAGE) - 1) // size
    assert (await get(site, size=str(size), chunk=str(last))).content == IMAGE[last * size :]
    for behind in (last + 1, 2_147_483_647):
        answer = await get(site, size=str(size), chunk=str(behind))
        assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")
        assert answer.headers["x-filename"] == "v2"


@pytest.mark.spec("TB-S36", "TB-3")
async def test_what_is_not_assigned_or_asked_wrongly(site: OtaSite) -> None:
    answer = await get(site)
    assert (answer.status_code, answer.content) == (404, b"")
    await site.assign(await site.upload())
    for query in ({"title": "other"}, {"version": "v1"}, {"version": "V2"}, {"title": "fw" * 5000}):
        answer = await get(site, **query)
        assert (answer.status_code, answer.content) == (400, b""), query
    for query in (
        {"title": ""}, {"version": ""}, {"size": "-1"}, {"size": "x"}, {"size": "1.5"}, {"size": "1e3"},
        {"size": "99999999999"}, {"size": "10", "chunk": "-1"}, {"size": "10", "chunk": "abc"}, {"chunk": "٣"},
    ):  # fmt: skip
        answer = await get(site, **query)
        assert (answer.status_code, answer.json()["status"]) == (400, 400), query
    for path in ("firmware", "firmware?title=fw", "firmware?version=v2", "software?title=%FF&version=%FF"):
        assert (await site.http.get(f"{PATH}/{path}")).status_code in (400, 404), path
    assert (await site.http.get("/api/v1/nobody/firmware?title=fw&version=v2")).status_code == 401
    assert (await site.http.get("/api/v1/nobody/firmware")).status_code == 401
    assert (await site.post("firmware", "")).status_code == 405
    await site.registry.put_device(replace(site.d1, product=""))
    assert (await get(site)).status_code == 404


async def test_a_client_that_goes_away_in_the_middle_harms_nobody(site: OtaSite) -> None:
    await site.assign(await site.upload(body=b"x" * 8_000_000))
    async with site.http.stream("GET", f"{PATH}/firmware?title=fw&version=v2") as answer:
        assert answer.status_code == 200
        await anext(answer.aiter_raw(1000))
    assert (await get(site, size="10")).content == b"x" * 10


# Over MQTT


class Device1:
    """An MQTT client that asks for chunks."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.client = client

    async def ask(self, request: int, chunk: int, size: str | bytes = "", kind: str = "fw") -> None:
        await self.client.publish(f"v2/{kind}/request/{request}/chunk/{chunk}", size, qos=1)

    async def hear(self) -> tuple[str, bytes]:
        async with asyncio.timeout(10):
            message = await anext(aiter(self.client.messages))
        assert isinstance(message.payload, bytes)
        return str(message.topic), message.payload


@pytest_asyncio.fixture
async def device(site: OtaSite) -> AsyncIterator[Device1]:
    async with aiomqtt.Client("127.0.0.1", site.mqtt_port, username=TOKEN, timeout=5) as client:
        for topic in ("v2/fw/response/+/chunk/+", "v2/sw/response/+/chunk/+", "v2/fw/error", "v2/sw/error"):
            await client.subscribe(topic, qos=1)
        yield Device1(client)


@pytest.mark.spec("TB-X1", "TB-S35")
async def test_chunks_over_mqtt(site: OtaSite, device: Device1) -> None:
    await site.assign(await site.upload())
    got, chunk = b"", 0
    while True:
        await device.ask(7, chunk, "50000")
        topic, body = await device.hear()
        assert topic == f"v2/fw/response/7/chunk/{chunk}"
        got += body
        chunk += 1
        if not body:
            break
    assert (got == IMAGE, chunk) == (True, len(IMAGE) // 50_000 + 2)


@pytest.mark.spec("TB-X1")
@pytest.mark.parametrize("size", ["", "0", "300000", "999999999", " 300000\n"])
async def test_large_answers_over_mqtt(site: OtaSite, device: Device1, size: str) -> None:
    await site.assign(await site.upload())
    count = int(size.strip() or 0) or len(IMAGE)
    for chunk in range(3):
        await device.ask(1, chunk, size)
    answers = dict([await device.hear() for _ in range(3)])
    wanted = [IMAGE[count * chunk : count * (chunk + 1)] for chunk in range(3)]
    if size in ("", "0"):
        wanted = [IMAGE] * 3
    assert [answers[f"v2/fw/response/1/chunk/{chunk}"] for chunk in range(3)] == wanted


@pytest.mark.spec("TB-X1", "TB-S36")
async def test_what_is_wrong_is_told_on_a_topic_of_its_own(site: OtaSite, device: Device1) -> None:
    await device.ask(1, 0)
    assert await device.hear() == ("v2/fw/error", b"NOT_FOUND")
    await site.assign(await site.upload("s1", kind="SOFTWARE"), "SOFTWARE")
    await device.ask(1, 0, "10")
    assert await device.hear() == ("v2/fw/error", b"NOT_FOUND")
    for size in ("x", "-1", "1.5", b"\xff", "1" * 60_000, "٣"):
        await device.ask(1, 0, size, "sw")
        topic, reason = await device.hear()
        assert (topic, reason[:11]) == ("v2/sw/error", b"BAD_REQUEST")
    await device.ask(1, 0, "10", "sw")
    assert await device.hear() == ("v2/sw/response/1/chunk/0", IMAGE[:10])
    await device.ask(1, 10**17, "10", "sw")
    assert await device.hear() == (f"v2/sw/response/1/chunk/{10**17}", b"")


async def test_a_topic_without_numbers_closes_the_connection(site: OtaSite) -> None:
    for topic in ("v2/fw/request/x/chunk/0", "v2/fw/request/1/chunk/-1", "v2/fw/response/1/chunk/0", "v2/fw/error"):
        client = await RawClient.open(site.mqtt_port)
        assert (await client.login(username=TOKEN)).code == 0
        client.say(publication(b"10", 1, topic=topic))
        assert await client.hear() is None
        await client.close()


@pytest.mark.spec("TB-X1")
async def test_a_download_keeps_to_the_image_that_it_began_with(site: OtaSite, device: Device1) -> None:
    await site.assign(await site.upload("v1", b"old" * 10))
    await device.ask(1, 0, "3")
    assert (await device.hear())[1] == b"old"
    await site.assign(await site.upload("v2", b"new" * 10))
    for request, chunk, wanted in ((1, 1, b"old"), (2, 1, b"new"), (1, 0, b"new"), (1, 1, b"new")):
        await device.ask(request, chunk, "3")
        assert (await device.hear())[1] == wanted


@pytest.mark.spec("TB-X1")
async def test_an_answer_needs_no_subscription(site: OtaSite) -> None:
    await site.assign(await site.upload())
    client = await RawClient.open(site.mqtt_port)
    await client.login(username=TOKEN)
    client.say(publication(b"10", 1, topic="v2/fw/request/1/chunk/2"))
    packets = await client.hear_many(2)
    assert sorted(type(packet).__name__ for packet in packets) == ["Puback", "Publish"]
    (answer,) = [packet for packet in packets if type(packet).__name__ == "Publish"]
    assert (answer.topic, answer.payload) == ("v2/fw/response/1/chunk/2", IMAGE[20:30])
    await client.close()


async def test_what_the_client_does_not_take_is_told(site: OtaSite) -> None:
    await site.assign(await site.upload())
    client = await RawClient.open(site.mqtt_port)
    await client.login(username=TOKEN, level=5, maximum_packet_bytes=1000)
    for id, size in enumerate((b"", b"2000", b"500"), 1):
        client.say(publication(size, id, topic="v2/fw/request/1/chunk/0"))
    answers = [packet for packet in await client.hear_many(6) if type(packet).__name__ == "Publish"]
    assert [(answer.topic, answer.payload) for answer in answers] == [
        ("v2/fw/error", b"PAYLOAD_TOO_LARGE"),
        ("v2/fw/error", b"PAYLOAD_TOO_LARGE"),
        ("v2/fw/response/1/chunk/0", IMAGE[:500]),
    ]
    await client.close()


async def test_large_answers_wait_for_room_in_memory(
    site: OtaSite, device: Device1, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "IN_MEMORY_BYTES", len(IMAGE))
    await site.assign(await site.upload())
    # One that asks, takes the answer and never acknowledges it; one that never reads; then they go away.
    held = await RawClient.open(site.mqtt_port)
    await held.login(username=TOKEN, client_id="held")
    held.say(publication(b"", 1, topic="v2/fw/request/1/chunk/0"))
    await held.hear_many(2)
    held.say(publication(b"", 2, topic="v2/fw/request/1/chunk/0"))
    await held.close()
    await device.ask(1, 0)
    assert (await device.hear())[1] == IMAGE


async def test_devices_of_other_products_see_nothing(site: OtaSite) -> None:
    await site.registry.put_product(Product(id="other", tenant=TENANT))
    await site.device("e", token="e-token", product="other")
    await site.assign(await site.upload())
    answer = await site.http.get("/api/v1/e-token/firmware?title=fw&version=v2")
    assert answer.status_code == 404
    assert isinstance(site.d1, Device)
