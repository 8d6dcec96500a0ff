"""Work of one process at a time, with leases in a real Redis."""

import asyncio

import pytest
import pytest_asyncio
import redis.asyncio as redis

from api.alone import Alone
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def client(redis_url):
    client = redis.Redis.from_url(redis_url)
    yield client
    await client.aclose()


class Worker:
    def __init__(self, client, **options):
        self.running = 0
        self.begun = 0
        self.fail = False
        self.alone = Alone(client, "test", self.work, **options)

    async def work(self):
        self.begun += 1
        self.running += 1
        try:
            if self.fail:
                raise RuntimeError("of the test")
            await asyncio.Event().wait()
        finally:
            self.running -= 1


def true_when(condition):
    async def look():
        return condition()

    return until(look)


async def test_one_works_and_the_other_takes_over_when_it_stops(client):
    workers = [Worker(client), Worker(client)]
    for each in workers:
        await each.alone.start()
    await true_when(lambda: sum(each.running for each in workers) == 1)
    await asyncio.sleep(1.5)
    assert sum(each.begun for each in workers) == 1
    first = next(each for each in workers if each.running)
    await first.alone.stop()
    assert first.running == 0
    other = next(each for each in workers if each is not first)
    await true_when(lambda: other.running == 1)
    await other.alone.stop()
    assert await client.exists("rm:alone:test") == 0


async def test_who_died_is_followed_when_its_lease_ends(client):
    await client.set("rm:alone:test", "somebody who died", px=1500)
    worker = Worker(client)
    await worker.alone.start()
    await asyncio.sleep(0.3)
    assert worker.begun == 0
    await true_when(lambda: worker.running == 1)
    await worker.alone.stop()


async def test_who_lost_the_lease_stops_and_leaves_it_to_the_other(client):
    worker = Worker(client, life_s=2.0)
    await worker.alone.start()
    await true_when(lambda: worker.running == 1)
    await client.set("rm:alone:test", "another")
    await true_when(lambda: worker.running == 0)
    await worker.alone.stop()
    assert await client.get("rm:alone:test") == b"another"


async def test_a_lease_outlasts_its_life_by_being_renewed(client):
    worker = Worker(client, life_s=1.0)
    await worker.alone.start()
    await true_when(lambda: worker.running == 1)
    await asyncio.sleep(2.5)
    assert (worker.running, worker.begun) == (1, 1)
    await worker.alone.stop()


async def test_work_that_fails_begins_again_and_is_told(client, caplog):
    worker = Worker(client)
    worker.fail = True
    await worker.alone.start()
    await true_when(lambda: worker.begun == 1)
    worker.fail = False
    await true_when(lambda: worker.running == 1)
    await worker.alone.stop()
    assert "of the test" in caplog.text
