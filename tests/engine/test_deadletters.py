"""Dead letters: what an operator is told of them is true, and there are never too many."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from redis.exceptions import ConnectionError as RedisConnectionError

from engine import deadletters as module
from engine.commit import Commit, bury
from engine.effects import DeadLetter
from engine.housekeeping import Housekeeping
from engine.leases import Owned
from engine.message import now_ms
from engine.partitions import all_keys
from tests.engine.bench import PARTITIONS, Bench
from tests.engine.toy import message

pytestmark = pytest.mark.asyncio


class Cellar:
    """Partition 0 with dead letters that nobody had to die for."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.keys = bench, all_keys(PARTITIONS)[0]
        self.letters = bench.dead
        self.house = Housekeeping(bench.wire, PARTITIONS, self.tenants)

    async def tenants(self) -> list[str]:
        return ["acme"]

    async def put(self, *ids: str, age_ms: int = 0) -> None:
        commit = Commit(Owned(self.keys, "w:1", True, 0))
        for n, id in enumerate(ids):
            at_ms = now_ms() - age_ms + n
            bury(commit, DeadLetter(id, message("d", id=id), "node", "chain", 1, "why", at_ms))
        await self.bench.wire.execute(commit.lines)

    async def ids(self) -> list[str]:
        return [letter.id for letter in await self.letters.list("acme", limit=10_000)]

    async def bytes(self) -> int:
        return int(await self.bench.client.get(self.keys.dead_bytes) or 0)


@pytest_asyncio.fixture
async def cellar(bench: Bench) -> AsyncIterator[Cellar]:
    yield Cellar(bench)


async def test_a_redrive_that_redis_refuses_is_not_said_to_be_done(cellar: Cellar) -> None:
    await cellar.put("m1")
    await cellar.bench.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(RedisConnectionError, match="OOM"):
            await cellar.letters.redrive("acme", "m1")
    finally:
        await cellar.bench.client.config_set("maxmemory", 0)
    assert await cellar.ids() == ["m1"]


async def test_old_letters_go(cellar: Cellar) -> None:
    await cellar.put("old", age_ms=module.KEEP_MS + 60_000)
    await cellar.put("new")
    assert (await cellar.house.round())["dead letters"] == 1
    assert await cellar.ids() == ["new"]


async def test_of_too_many_bytes_the_oldest_go_until_the_rest_has_room(
    cellar: Cellar, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"m{n:04d}" for n in range(400)]
    await cellar.put(*ids)
    size = await cellar.bytes()
    monkeypatch.setattr(module, "AT_ONCE", 10)
    monkeypatch.setattr(module, "MOST_BYTES", size // 10)
    await cellar.house.make_room()
    kept = await cellar.ids()
    assert kept == ids[::-1][: len(kept)]
    assert 0 < len(kept) <= 40
    assert 0 < await cellar.bytes() <= size // 10


async def test_an_entry_of_the_index_without_its_letter_holds_nothing_up(
    cellar: Cellar, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cellar.put("gone", "here")
    await cellar.bench.client.hdel(cellar.keys.dead, "gone")
    monkeypatch.setattr(module, "MOST_BYTES", 0)
    await cellar.house.make_room()
    assert not await cellar.bench.client.exists(cellar.keys.dead, cellar.keys.index("dead", "acme"))
