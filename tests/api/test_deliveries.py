"""Commands on their way to the sessions of a process, by a few lookers for any number of devices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from redis.exceptions import ConnectionError as RedisConnectionError

from api import deliveries as module
from api.deliveries import Deliveries
from engine.message import Message, new_id, now_ms
from engine.stores.commands import Pending
from engine.stores.registry import Device
from tests.api.stack import TENANT, Stack
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio

Give = Callable[[Pending], bool]


class Site(Stack):
    """`given` has the numbers that each session was given, by the name of the session."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.deliveries: Deliveries[Give] = Deliveries(self.commands, self.live, lambda give, entry: give(entry))
        self.given: dict[str, list[int]] = {}

    def session(self, device: Device, name: str, *, once: bool = False, wants: int = 1000) -> Callable[[], None]:
        """A session that takes so many commands."""
        given = self.given.setdefault(name, [])

        def give(entry: Pending) -> bool:
            if len(given) >= wants:
                return False
            given.append(entry.id)
            return True

        end = self.deliveries.attach(device, give, once=once)
        self.deliveries.wake(device.id)
        return end

    async def command(self, *devices: Device) -> None:
        """Queue a one-way command for each."""
        await self.ingress.submit([
            Message(
                id=new_id(), ts_ms=now_ms(), tenant=TENANT, type="RPC_CALL_FROM_SERVER_TO_DEVICE",
                originator=device.id, data={"method": "m", "params": None}, metadata={"oneway": "true"},
            )
            for device in devices
        ])  # fmt: skip
        await self.idle()


@pytest_asyncio.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as made:
        yield made
        await made.deliveries.stop()


async def test_few_lookers_serve_many_devices(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOKING", 3)
    devices = [await site.device(f"d{i}") for i in range(60)]
    await site.command(*devices)
    looking, most, real = 0, 0, site.commands.snapshot

    async def snapshot(*args: Any) -> Any:
        nonlocal looking, most
        looking += 1
        most = max(most, looking)
        try:
            return await real(*args)
        finally:
            looking -= 1

    monkeypatch.setattr(site.commands, "snapshot", snapshot)
    ends = [site.session(device, device.name) for device in devices]
    await until(lambda: all(site.given[device.name] == [1] for device in devices))
    await site.command(*devices)
    await until(lambda: all(site.given[device.name] == [1, 2] for device in devices))
    assert most == 3
    for end in ends:
        end()
    await until(lambda: not site.deliveries._devices)
    assert len(site.live._listeners) == 0


async def test_a_looker_that_has_just_ended_is_not_counted_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOKING", 1)
    first, second = await site.device("a"), await site.device("b")
    await site.command(first, second)
    real = site.commands.delivered

    async def delivered(*args: Any, **named: Any) -> None:
        await real(*args, **named)
        if args[1] == first.id:
            # After the only looker has come to its end, and before anybody is told that it has.
            asyncio.get_running_loop().call_soon(site.session, second, "b")

    monkeypatch.setattr(site.commands, "delivered", delivered)
    site.session(first, "a")
    await until(lambda: site.given.get("b") == [1])


async def test_sessions_that_want_one_command_share_what_is_queued(site: Site) -> None:
    device = await site.device("d")
    for _ in range(3):
        await site.command(device)
    for name in ("a", "b"):
        site.session(device, name, once=True)
    await until(lambda: site.given["a"] + site.given["b"] == [1, 2])
    site.session(device, "all")
    await until(lambda: site.given["all"] == [3])
    site.session(device, "c", once=True)
    site.session(device, "d", once=True)
    await site.command(device)
    await until(lambda: site.given["all"] == [3, 4])
    assert (site.given["c"], site.given["d"]) == ([4], [4])


async def test_what_nobody_wants_stays_queued(site: Site) -> None:
    device = await site.device("d")
    site.session(device, "full", wants=0)
    await site.command(device)
    await until(lambda: _seen(site, device, 1))
    assert [entry.id for entry in await site.commands.undelivered(TENANT, device.id)] == [1]


async def _seen(site: Site, device: Device, last: int) -> bool:
    return all(each.seen == last for each in site.deliveries._devices[device.id].sessions)


async def test_what_was_given_to_one_who_left_is_marked_all_the_same(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRY_AGAIN_S", 0.01)
    device = await site.device("d")
    await site.command(device)
    real, failures = site.commands.delivered, [1, 1]

    async def delivered(*args: Any, **named: Any) -> None:
        if failures:
            failures.pop()
            raise RedisConnectionError("away")
        await real(*args, **named)

    monkeypatch.setattr(site.commands, "delivered", delivered)
    end = site.session(device, "gone", once=True)
    await until(lambda: site.given["gone"] == [1])
    end()
    site.session(device, "next", once=True)
    await until(lambda: not failures)
    await until(lambda: _none_open(site, device))
    assert site.given["next"] == []


async def _none_open(site: Site, device: Device) -> bool:
    return not await site.commands.open(TENANT, device.id)
