"""Ingress, store and the things that look into Redis, around workers that tests start."""

from __future__ import annotations

import asyncio
from typing import Any

import redis.asyncio as redis

from engine.deadletters import DeadLetters
from engine.ingress import Ingress
from engine.partitions import Keys, all_keys, partition_of
from engine.replies import Replies
from engine.stores.commands import Commands
from engine.stores.memory import MemoryTimeseries
from engine.wire import Wire
from engine.worker import Worker
from tests.engine.toy import Plans, worker

PARTITIONS = 4


class Bench:
    """Everything around the workers. Use as an async context manager."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.wire = Wire(url, "bench")
        self.ingress = Ingress(self.wire, PARTITIONS)
        self.store: Any = MemoryTimeseries()
        self.replies = Replies(url)
        self.commands = Commands(self.wire, PARTITIONS)
        self.dead = DeadLetters(self.wire, PARTITIONS)
        self.client = redis.Redis.from_url(url)
        self.workers: list[Worker] = []

    async def __aenter__(self) -> Bench:
        await self.ingress.start()
        await self.replies.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for one in self.workers:
            await one.stop()
        await self.ingress.stop()
        await self.replies.stop()
        await self.wire.close()
        await self.client.aclose()

    async def work(self, *plans: object, name: str = "w1", url: str = "") -> Worker:
        found = plans[0] if isinstance(plans[0], Plans) else Plans(*plans)
        made = worker(url or self.url, found, self.store, name, PARTITIONS)
        await made.start()
        self.workers.append(made)
        return made

    async def crash(self, worker: Worker) -> None:
        """End a worker as SIGKILL would: nothing in order, nothing given back; then its parent clears its leases."""
        tasks = [
            *worker._tasks, *worker._timers._tasks, *worker._outward._tasks, worker._writer._task,
            *worker._tail._tasks,
        ]  # fmt: skip
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        worker._tasks = []
        await asyncio.to_thread(worker._leases.stop)
        await worker._deployed.stop()
        await worker._store_state.stop()
        await worker._wire.close()
        await worker._side.close()
        self.workers.remove(worker)
        await self.client.delete(*[keys.lease for keys in all_keys(PARTITIONS)])

    @staticmethod
    def keys(device: str) -> Keys:
        """Keys of the partition of a device of the tenant `acme`."""
        return all_keys(PARTITIONS)[partition_of("acme", device, PARTITIONS)]

    async def left(self) -> int:
        """Entries in all streams."""
        return sum(await self.wire.execute([("XLEN", keys.inbox) for keys in all_keys(PARTITIONS)]))

    async def drained(self) -> bool:
        return await self.left() == 0

    async def letters(self, count: int) -> list[Any] | None:
        """The dead letters, once there are so many."""
        letters = await self.dead.list("acme", limit=10_000)
        return letters if len(letters) == count else None

    async def stored(self, device: str) -> bool:
        return bool(await self.store.latest("acme", [device]))

    async def spools_empty(self) -> bool:
        lengths = [await self.client.xlen(keys.points) for keys in all_keys(PARTITIONS)]
        sizes = [int(await self.client.get(keys.spooled) or 0) for keys in all_keys(PARTITIONS)]
        return not any(lengths) and not any(sizes)

    async def no_lanes(self) -> bool:
        return not await self.client.keys("rm:*lane*")
