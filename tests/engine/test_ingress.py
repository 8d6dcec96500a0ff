"""The way in: stored once whatever gets lost, nothing overtakes what was refused, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import redis.asyncio as redis

from engine import ingress as module
from engine.entries import unpack_entry
from engine.errors import Refused, Unconfirmed
from engine.ingress import Ingress, Limits
from engine.partitions import all_keys
from engine.redis_scripts import SUBMIT
from engine.wire import Wire
from tests.engine.toy import message, until
from tests.faults.proxy import Proxy, proxied

pytestmark = pytest.mark.asyncio

PARTITIONS = 4


class Door:
    """An ingress behind a proxy, and a direct look into the streams."""

    def __init__(self, proxy: Proxy, through: str, direct: str) -> None:
        self.proxy = proxy
        self.wire = Wire(through, "ingress")
        self.limits = Limits()
        self.ingress = Ingress(self.wire, PARTITIONS, self.limits)
        self.client = redis.Redis.from_url(direct)

    async def stored(self) -> list[int]:
        """Numbers of all stored messages, partition by partition, in order."""
        found = []
        for keys in all_keys(PARTITIONS):
            for _, fields in await self.client.xrange(keys.inbox):
                flat = [part for pair in fields.items() for part in pair]
                found += [item.message.data for item in unpack_entry(flat)]
        return found


@pytest_asyncio.fixture
async def door(redis_url: str, tmp_path: Path) -> AsyncIterator[Door]:
    async with proxied(redis_url, tmp_path) as (proxy, url):
        made = Door(proxy, url, redis_url)
        await made.ingress.start()
        yield made
        proxy.open = True
        proxy.release()
        await made.ingress.stop()
        await made.wire.close()
        await made.client.aclose()


async def test_a_lost_reply_stores_nothing_twice(door: Door) -> None:
    await door.ingress.submit([message("d", 0)])
    for n in range(1, 6):
        door.proxy.lose_reply_to(b"EVALSHA")
        await door.ingress.submit([message("d", n)])
    assert door.proxy.dropped == 5
    assert await door.stored() == [0, 1, 2, 3, 4, 5]


async def test_order_holds_through_cuts(door: Door) -> None:
    async def trouble() -> None:
        for _ in range(10):
            await asyncio.sleep(0.02)
            door.proxy.cut()
            await asyncio.sleep(0.01)
            door.proxy.open = True

    cutting = asyncio.create_task(trouble())
    futures = []
    for n in range(300):
        futures.append(door.ingress.submit([message("d", n)]))
        await asyncio.sleep(0.001)
    await asyncio.gather(*set(futures))
    await cutting
    assert await door.stored() == list(range(300))


async def test_what_is_refused_is_not_stored_and_nothing_behind_overtakes_it(door: Door) -> None:
    door.limits.entries = 50
    outcomes: dict[int, bool] = {}
    n = 0
    while sum(not ok for ok in outcomes.values()) < 3:
        sent = [door.ingress.submit([message("d", n + i)]) for i in range(3)]
        for i, future in enumerate(sent):
            try:
                await future
                outcomes[n + i] = True
            except Unconfirmed:
                raise
            except Refused:
                outcomes[n + i] = False
        n += 3
        assert n < 1000
    stored = await door.stored()
    assert stored == [number for number, ok in outcomes.items() if ok]
    assert stored == list(range(len(stored))), "something overtook what was refused"


async def test_the_door_opens_again_when_there_is_room(door: Door) -> None:
    door.limits.entries = 50

    async def refused() -> bool:
        try:
            await door.ingress.submit([message("d", 0)])
        except Refused:
            return True
        return False

    await until(refused)
    await door.client.flushall()
    await until(lambda: _not(refused))


async def _not(condition: object) -> bool:
    return not await condition()


async def test_a_redis_that_has_forgotten_us_is_told_again(door: Door) -> None:
    await door.ingress.submit([message("d", 0)])
    await door.client.flushall()
    await door.ingress.submit([message("d", 1)])
    assert await door.stored() == [1]


async def test_scripts_that_were_flushed_come_back(door: Door) -> None:
    await door.ingress.submit([message("d", 0)])
    await door.client.script_flush()
    await door.ingress.submit([message("d", 1)])
    assert await door.stored() == [0, 1]


@pytest.mark.parametrize("how", ["cut", "hold"])
async def test_who_waits_for_a_redis_that_is_gone_is_told_in_time(
    door: Door, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONFIRM_WITHIN_S", 0.3)
    await door.ingress.submit([message("d", 0)])
    door.proxy.cut() if how == "cut" else door.proxy.hold()
    first = door.ingress.submit([message("d", 1)])
    await asyncio.sleep(0.05)
    behind = door.ingress.submit([message("d", 2)])
    with pytest.raises(Unconfirmed):
        await asyncio.wait_for(first, 3)
    with pytest.raises(Refused):
        await asyncio.wait_for(behind, 3)
    door.proxy.open = True
    door.proxy.release()

    async def accepted() -> bool:
        try:
            await door.ingress.submit([message("d", 3)])
        except Refused:
            return False
        return True

    await until(accepted)
    stored = await door.stored()
    assert stored[0] == 0
    assert stored[-1] == 3
    assert 2 not in stored, "what was refused must not be stored"


async def test_what_waits_in_memory_is_bounded(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 10)
    door.proxy.hold()
    futures = [door.ingress.submit([message("d", n)]) for n in range(20)]
    with pytest.raises(Refused, match="ingress full"):
        await futures[-1]
    door.proxy.release()
    await asyncio.gather(*set(futures[:10]))
    assert await door.stored() == list(range(10))


async def test_who_hangs_up_takes_nobody_along(door: Door) -> None:
    """Many wait for one flush; that one of them is cancelled is nothing to the others."""

    async def send(n: int) -> None:
        await door.ingress.submit([message("d", n)])

    door.proxy.hold()
    tasks = [asyncio.create_task(send(n)) for n in range(5)]
    await asyncio.sleep(0.02)
    tasks[2].cancel()
    await asyncio.wait([tasks[2]], timeout=1)
    assert tasks[2].cancelled()
    door.proxy.release()
    await asyncio.gather(*tasks[:2], *tasks[3:])
    assert await door.stored() == [0, 1, 2, 3, 4]


async def test_messages_for_many_partitions_are_known_stored_only_together(door: Door) -> None:
    await asyncio.gather(*{door.ingress.submit([message(f"d{n}", n) for n in range(20)]) for _ in range(3)})
    assert sorted(await door.stored()) == sorted(list(range(20)) * 3)


async def test_stopping_stores_what_was_accepted_and_refuses_what_comes_later(door: Door) -> None:
    accepted = door.ingress.submit([message("d", 1)])
    await door.ingress.stop()
    await accepted
    with pytest.raises(Refused):
        await door.ingress.submit([message("d", 2)])
    assert await door.stored() == [1]


async def test_submit_numbers(redis_url: str) -> None:
    """submit.lua: the next number is stored, the last is a repeat, any other a gap; a full stream takes nothing."""
    keys = all_keys(PARTITIONS)[0]
    async with redis.Redis.from_url(redis_url) as client:

        async def submit(number: int, *entries: bytes, most: int = 100) -> list:
            return await client.eval(SUBMIT.text, 2, keys.inbox, keys.producers, "p", number, most, 0, *entries)

        assert await submit(2, b"x") == [b"gap", 0]
        assert await submit(1, b"a", b"b") == [b"ok", 2]
        assert await submit(1, b"a", b"b") == [b"done", 2]
        assert await submit(3, b"x") == [b"gap", 1]
        assert await submit(2, b"x", most=2) == [b"full", 2]
        assert await submit(2, b"c") == [b"ok", 3]
        assert await submit(1, b"x") == [b"gap", 2]
        assert [fields[b"m"] for _, fields in await client.xrange(keys.inbox)] == [b"a", b"b", b"c"]
