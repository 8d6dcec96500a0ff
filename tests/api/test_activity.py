"""Activity, presence and silence of devices, with a clock that the test turns and a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Self

import pytest
import pytest_asyncio
from msgspec.structs import replace
from redis.exceptions import ConnectionError as RedisConnectionError

from api import activity as activity_module
from api.activity import FACET, SILENCE_MS, WRITE_EVERY_MS, Activity
from engine.message import now_ms
from engine.node import Product
from engine.partitions import all_keys
from engine.stores.activity import WRITTEN_WITHIN_MS, ActivityStore
from engine.stores.products import Products
from engine.stores.registry import Device
from engine.stores.tenant_data import forget_device
from tests.api.stack import PARTITIONS, TENANT, Stack

pytestmark = pytest.mark.asyncio


class Watched(Stack):
    """A stack without a worker, and two processes that hear of its devices by one clock."""

    def __init__(self, url: str) -> None:
        super().__init__(url, work=False)
        self.now = now_ms()
        self.activity_store = ActivityStore(self.wire, PARTITIONS)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.one, self.two = self.process(), self.process()
        self.d1 = await self.device("d1", token="T1")
        return self

    def process(self, **options: Any) -> Activity:
        options.setdefault("grace_ms", 0)
        return Activity(self.activity_store, self.auth, Products(self.registry), lambda: self.now, **options)

    async def server(self, device: Device | None = None) -> dict[str, Any]:
        """Server attributes of a device."""
        found = await self.attributes.read(TENANT, (device or self.d1).id)
        return {key: each.value for key, each in found["SERVER"].items()}

    async def told(self) -> list[str]:
        """Types of the events so far."""
        return [message.type for message in await self.messages()]

    async def wait(self, ms: int) -> None:
        """Let time pass, and the process that looks do so."""
        self.now += ms
        while await self.one.look():
            pass


@pytest_asyncio.fixture
async def site(redis_url: str) -> AsyncIterator[Watched]:
    async with Watched(redis_url) as made:
        yield made


def writes(site: Watched, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many devices each write to Redis had."""
    sizes: list[int] = []
    heard = site.activity_store.heard

    async def counted(batch: Any, now: int) -> Any:
        sizes.append(len(batch))
        return await heard(batch, now)

    monkeypatch.setattr(site.activity_store, "heard", counted)
    return sizes


@pytest.mark.spec("TB-S41")
async def test_a_device_that_is_heard_of_becomes_active_once(site: Watched) -> None:
    for _ in range(3):
        site.one.heard(site.d1)
        site.two.heard(site.d1)
        await asyncio.gather(site.one.flush(), site.two.flush())
    [event] = await site.messages()
    assert (event.type, event.originator, event.tenant) == ("ACTIVITY_EVENT", site.d1.id, TENANT)
    assert event.data == {"active": True, "lastActivityTime": site.now}
    assert (event.metadata["deviceName"], event.metadata["scope"]) == ("d1", "SERVER_SCOPE")
    assert await site.server() == {"active": True, "lastActivityTime": site.now}


@pytest.mark.spec("TB-S41")
async def test_activity_is_written_once_a_minute(site: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = writes(site, monkeypatch)
    began = site.now
    for _ in range(180):
        site.now += 1000
        for _ in range(5):
            site.one.heard(site.d1)
        await site.one.flush()
    assert sizes == [1, 1, 1]
    assert (await site.server())["lastActivityTime"] == began + 1000 + 2 * WRITE_EVERY_MS


async def test_many_devices_are_written_together(site: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = writes(site, monkeypatch)
    devices = [await site.device(f"many-{n}") for n in range(30)]
    monkeypatch.setattr(activity_module, "AT_ONCE", 20)
    for device in devices:
        site.one.heard(device)
    await site.one.flush()
    assert sizes == [20, 10]
    assert len(await site.told()) == 30


@pytest.mark.spec("TB-S41")
async def test_a_device_is_told_to_be_silent_when_its_time_is_over_and_active_when_it_is_back(site: Watched) -> None:
    site.one.heard(site.d1)
    await site.one.flush()
    heard = site.now
    await site.wait(SILENCE_MS - 1)
    assert await site.told() == ["ACTIVITY_EVENT"]
    await site.wait(1)
    assert await site.told() == ["ACTIVITY_EVENT", "INACTIVITY_EVENT"]
    silent = (await site.messages())[-1]
    assert silent.data == {
        "active": False, "lastActivityTime": heard, "lastConnectTime": 0, "lastDisconnectTime": 0,
        "inactivityAlarmTime": site.now, "inactivityTimeout": SILENCE_MS,
    }  # fmt: skip
    assert await site.server() == {"active": False, "lastActivityTime": heard, "inactivityAlarmTime": site.now}
    await site.wait(10 * SILENCE_MS)
    assert len(await site.told()) == 2
    await site.one.flush()
    site.one.heard(site.d1)
    await site.one.flush()
    assert (await site.told())[-1] == "ACTIVITY_EVENT"
    assert (await site.server())["active"] is True
    await site.wait(SILENCE_MS)
    assert (await site.told())[-1] == "INACTIVITY_EVENT"


@pytest.mark.spec("TB-S41")
async def test_a_timer_that_fires_looks_at_the_activity_and_waits_for_the_rest(site: Watched) -> None:
    site.one.heard(site.d1)
    await site.one.flush()
    timer = await timers(site)
    assert list(timer.values()) == [site.now + SILENCE_MS]
    for _ in range(10):
        # A write a minute, and the timer stays where it is.
        site.now += WRITE_EVERY_MS
        site.two.heard(site.d1)
        await site.two.flush()
        if site.now < timer[site.d1.id]:
            assert await timers(site) == timer
    heard = site.now
    await site.wait(0)
    assert await timers(site) == {site.d1.id: heard + SILENCE_MS}
    await site.wait(SILENCE_MS)
    assert (await site.told())[-1] == "INACTIVITY_EVENT"
    assert await timers(site) == {}


async def timers(site: Watched) -> dict[str, int]:
    found = {}
    for keys in all_keys(PARTITIONS):
        flat = (await site.wire.execute([("ZRANGE", keys.quiet, 0, -1, "WITHSCORES")]))[0]
        found |= {flat[i].decode(): int(flat[i + 1]) for i in range(0, len(flat), 2)}
    return found


@pytest.mark.spec("TB-S41")
async def test_a_crash_loses_no_event(site: Watched) -> None:
    site.one.heard(site.d1)
    await site.one.flush()
    # That process dies, and another looks.
    site.now += SILENCE_MS
    await site.two.look()
    assert await site.told() == ["ACTIVITY_EVENT", "INACTIVITY_EVENT"]


async def test_two_that_look_at_once_tell_it_once(site: Watched) -> None:
    site.one.heard(site.d1)
    await site.one.flush()
    site.now += SILENCE_MS
    await asyncio.gather(*(process.look() for process in (site.one, site.two, site.process())))
    assert await site.told() == ["ACTIVITY_EVENT", "INACTIVITY_EVENT"]


async def test_after_a_start_devices_have_time_to_come_back(site: Watched) -> None:
    site.one.heard(site.d1)
    await site.one.flush()
    site.now += SILENCE_MS
    restarted = site.process(grace_ms=30_000)
    assert not await restarted.look()
    site.now += 29_000
    restarted.heard(site.d1)
    await restarted.flush()
    site.now += 1000
    while await restarted.look():
        pass
    assert await site.told() == ["ACTIVITY_EVENT"]


@pytest.mark.spec("TB-S41")
async def test_a_device_and_its_product_may_say_how_long_they_may_be_silent(site: Watched) -> None:
    await site.registry.put_product(Product(id="meter", tenant=TENANT, facets={FACET: 3600}))
    meter = await site.device("m1", product="meter")
    site.one.heard(site.d1)
    site.one.heard(meter)
    await site.one.flush()
    await site.wait(SILENCE_MS)
    assert (await site.server())["active"] is False
    await site.wait(3_600_000 - SILENCE_MS - 1)
    assert (await site.server(meter))["active"] is True
    await site.attributes.write(TENANT, meter.id, "SERVER", {"inactivityTimeout": 7_200_000.0})
    await site.wait(3_600_000)
    assert (await site.server(meter))["active"] is True
    await site.wait(1)
    assert (await site.server(meter))["active"] is False
    [silent] = [
        each for each in await site.messages() if (each.originator, each.type) == (meter.id, "INACTIVITY_EVENT")
    ]
    assert silent.data["inactivityTimeout"] == 7_200_000


async def test_a_shorter_time_of_silence_counts_within_a_minute(site: Watched) -> None:
    site.one.heard(site.d1)
    await site.one.flush()
    await site.attributes.write(TENANT, site.d1.id, "SERVER", {"inactivityTimeout": 30_000})
    assert site.now + WRITE_EVERY_MS < (await timers(site))[site.d1.id] < site.now + SILENCE_MS
    await site.wait(WRITTEN_WITHIN_MS + 5000)
    assert (await site.server())["active"] is False


async def test_a_shorter_time_of_silence_takes_nobody_for_silent_of_whom_there_was_word(site: Watched) -> None:
    site.one.heard(site.d1)
    await site.one.flush()
    await site.attributes.write(TENANT, site.d1.id, "SERVER", {"inactivityTimeout": 10_000})
    for _ in range(100):
        site.one.heard(site.d1)
        await site.one.flush()
        await site.wait(1000)
    assert await site.told() == ["ACTIVITY_EVENT"]


async def test_a_device_with_little_time_is_written_more_often(site: Watched) -> None:
    await site.attributes.write(TENANT, site.d1.id, "SERVER", {"inactivityTimeout": 10_000})
    for _ in range(60):
        site.two.heard(site.d1)
        await site.two.flush()
        await site.wait(1000)
    assert await site.told() == ["ACTIVITY_EVENT"]
    await site.wait(10_000)
    assert await site.told() == ["ACTIVITY_EVENT", "INACTIVITY_EVENT"]


@pytest.mark.parametrize("value", ["soon", 0, -5, None, [1], 1e300])
async def test_a_time_of_silence_that_is_none_disturbs_nothing(site: Watched, value: Any) -> None:
    if value is not None:
        await site.attributes.write(TENANT, site.d1.id, "SERVER", {"inactivityTimeout": value, "lastActivityTime": "x"})
    site.one.heard(site.d1)
    await site.one.flush()
    await site.wait(SILENCE_MS)
    assert (await site.server())["active"] is (value == 1e300)


@pytest.mark.spec("TB-S41", "G-18")
async def test_the_first_session_connects_and_the_last_disconnects(site: Watched) -> None:
    site.one.came(site.d1, "tb", "mqtt")
    site.one.came(site.d1, "ct", "http")
    site.now += 5
    site.one.went(site.d1, "tb", "mqtt", "lost")
    site.one.went(site.d1, "ct", "http", "client disconnected")
    await site.one.flush()
    came, went, _ = await site.messages()
    assert (came.type, came.data, came.ts_ms) == ("CONNECT_EVENT", {}, site.now - 5)
    assert (came.metadata["dialect"], came.metadata["transport"]) == ("tb", "mqtt")
    assert (went.type, went.metadata["reason"], went.metadata["dialect"]) == (
        "DISCONNECT_EVENT", "client disconnected", "ct",
    )  # fmt: skip
    server = await site.server()
    assert (server["lastConnectTime"], server["lastDisconnectTime"]) == (site.now - 5, site.now)
    assert site.one._sessions == {}


@pytest.mark.spec("TB-S41")
async def test_a_device_whose_session_holds_is_active_without_a_word(site: Watched) -> None:
    site.one.came(site.d1, "tb", "mqtt")
    for _ in range(30):
        await site.one.flush()
        await site.wait(WRITE_EVERY_MS)
    assert (await site.server())["active"] is True
    site.one.went(site.d1, "tb", "mqtt", "lost")
    await site.one.flush()
    await site.wait(SILENCE_MS + WRITE_EVERY_MS)
    assert (await site.server())["active"] is False


async def test_what_redis_did_not_take_is_written_later(site: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    site.one.came(site.d1, "tb", "mqtt")
    execute, away = site.wire.execute, [True, True]

    async def sometimes(*arguments: Any, **more: Any) -> Any:
        if away:
            away.pop()
            raise RedisConnectionError("away")
        return await execute(*arguments, **more)

    monkeypatch.setattr(site.wire, "execute", sometimes)
    for _ in range(2):
        with pytest.raises(RedisConnectionError):
            await site.one.flush()
    await site.one.flush()
    assert await site.told() == ["CONNECT_EVENT", "ACTIVITY_EVENT"]


async def test_more_than_can_wait_is_lost_and_told(
    site: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(activity_module, "MOST_WAITING", 3)
    for _ in range(3):
        site.one.came(site.d1, "tb", "mqtt")
        site.one.went(site.d1, "tb", "mqtt", "lost")
    await site.one.flush()
    assert (await site.told())[:3] == ["DISCONNECT_EVENT", "CONNECT_EVENT", "DISCONNECT_EVENT"]
    assert "3 connections and disconnections" in caplog.text


async def test_a_process_that_ends_writes_what_it_knows(site: Watched) -> None:
    process = site.process()
    await process.start()
    process.heard(site.d1)
    await process.flush()
    site.now += 30_000
    process.heard(site.d1)
    process.came(site.d1, "tb", "mqtt")
    await process.stop()
    server = await site.server()
    assert (server["lastActivityTime"], server["lastConnectTime"]) == (site.now, site.now)
    await process.stop()


async def test_nothing_is_noted_of_a_device_that_was_deleted(site: Watched) -> None:
    site.one.came(site.d1, "tb", "mqtt")
    await site.one.flush()
    await forget_device(site.wire, PARTITIONS, TENANT, site.d1.id)
    await site.registry.delete_device(TENANT, site.d1.id)
    before = len(await site.told())
    site.one.went(site.d1, "tb", "mqtt", "kicked")
    site.one.heard(site.d1)
    site.two.heard(site.d1)
    for _ in range(3):
        site.now += WRITE_EVERY_MS
        await site.one.flush()
        await site.two.flush()
        await site.wait(SILENCE_MS)
    assert len(await site.told()) == before
    assert await site.server() == {}
    assert site.one._seen == site.two._seen == {}
    # Another one of the same id is heard of again.
    again = await site.registry.put_device(Device(id=site.d1.id, tenant=TENANT, name="again"))
    site.now = max(site.now, now_ms())
    site.one.heard(again)
    await site.one.flush()
    assert (await site.server())["active"] is True


async def test_a_timer_of_a_device_that_is_no_more_is_dropped(site: Watched) -> None:
    site.one.heard(site.d1)
    await site.one.flush()
    await site.registry.delete_device(TENANT, site.d1.id)
    site.auth._forget_all()
    await site.wait(SILENCE_MS)
    assert await timers(site) == {}
    assert await site.told() == ["ACTIVITY_EVENT"]


async def test_a_device_that_is_renamed_while_its_session_holds_stays_active_by_its_new_name(site: Watched) -> None:
    await site.one.start()
    site.one.came(site.d1, "tb", "mqtt")
    await site.one.flush()
    renamed = await site.registry.put_device(replace(site.d1, name="new"))
    while renamed.id not in site.one._doubtful:
        await asyncio.sleep(0.01)
    await site.one.flush()
    assert site.one._seen[renamed.id].device.name == "new"
    await site.wait(WRITE_EVERY_MS)
    await site.one.flush()
    assert (await site.server())["lastActivityTime"] == site.now
    await site.one.stop()
