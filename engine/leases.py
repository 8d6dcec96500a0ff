"""Leases: the right to a partition, with a fence number. What the fence protects is the commit.

Renewal has a thread of its own: a script that holds the event loop must not cost the lease (the watchdog judges
progress). Leases are renewed with PEXPIRE, which works at maxmemory too.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from engine import metrics
from engine.lanes import Lane
from engine.partitions import Keys, all_keys
from engine.redis_scripts import LEASE
from engine.wire import Wire, call, failed

log = logging.getLogger("rulemill.leases")

LIFE_MS = 10_000
RENEW_EVERY_S = 2.0
BEAT_LIFE_S = 8.0
WORKERS_KEY = "rm:{reg}:workers"


@dataclass(slots=True)
class Owned:
    """A partition that this worker owns, with what its owner keeps in mind."""

    keys: Keys
    owner: str
    """`<worker>:<fence>`"""
    clean: bool
    """The owner before gave it back in order."""
    commit: int
    """Number of the last commit."""
    cursor: bytes = b"0-0"
    """Id of the last entry read; everything up to the last commit is gone from the stream."""
    lanes: dict[str, Lane] = field(default_factory=dict)
    store_behind: bool = False
    """Points of this partition will lie in the spool for a while."""


class Leases:
    """Takes, keeps and gives back partitions for one worker."""

    def __init__(self, url: str, worker: str, partitions: int, wire: Wire) -> None:
        self._url, self._worker, self._partitions, self._wire = url, worker, partitions, wire
        self._owners: dict[int, str] = {}
        self._lost: set[int] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.live_workers = 1

    def start(self) -> None:
        """Announce the worker and begin renewing."""
        client = self._client()
        self._beat(client)
        self._thread = threading.Thread(target=self._renew_for_ever, args=(client,), name="leases", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End renewing and take the worker's beat away; tolerates being called twice."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
            self._thread = None

    def _client(self) -> redis.Redis:
        return redis.Redis.from_url(
            self._url, socket_timeout=2.0, socket_connect_timeout=2.0, retry=Retry(NoBackoff(), 0),
            client_name=f"{self._worker}-leases",
        )  # fmt: skip

    def _beat(self, client: redis.Redis) -> None:
        now = time.time()
        pipe = client.pipeline(transaction=False)
        pipe.zadd(WORKERS_KEY, {self._worker: now})
        pipe.zremrangebyscore(WORKERS_KEY, "-inf", now - BEAT_LIFE_S)
        pipe.zcard(WORKERS_KEY)
        self.live_workers = max(1, int(pipe.execute()[2]))

    def _renew_for_ever(self, client: redis.Redis) -> None:
        keys = all_keys(self._partitions)
        while not self._stopped.wait(RENEW_EVERY_S):
            try:
                self._beat(client)
                with self._lock:
                    owners = dict(self._owners)
                for number, owner in owners.items():
                    k = keys[number]
                    kept = client.eval(LEASE.text, 4, k.lease, k.fence, k.clean, k.commit, "renew", owner, LIFE_MS)
                    if not kept:
                        with self._lock:
                            if self._owners.get(number) == owner:
                                self._lost.add(number)
            except (redis.RedisError, OSError) as error:
                log.warning("leases are not renewed: %s", error)
        try:
            client.zrem(WORKERS_KEY, self._worker)
        except (redis.RedisError, OSError) as error:
            log.info("beat not taken back: %s", error)
        client.close()

    def share(self) -> int:
        """How many partitions are this worker's fair share."""
        return -(-self._partitions // self.live_workers)

    def lost(self) -> set[int]:
        """Partitions that a renewal found in other hands since the last call."""
        with self._lock:
            lost, self._lost = self._lost, set()
            return lost

    async def take(self, wanted: list[int]) -> list[Owned]:
        """Take those of `wanted` that are free."""
        keys = all_keys(self._partitions)
        replies = await self._wire.execute(
            [
                call(LEASE, (k.lease, k.fence, k.clean, k.commit), "take", self._worker, LIFE_MS)
                for k in (keys[number] for number in wanted)
            ]
        )
        taken = []
        for number, reply in zip(wanted, replies, strict=True):
            if failed(reply) or not reply:
                continue
            fence, clean, commit = reply
            owned = Owned(keys[number], f"{self._worker}:{fence}", clean == b"1", int(commit))
            with self._lock:
                self._owners[number] = owned.owner
                self._lost.discard(number)
            taken.append(owned)
        metrics.OWNED.set(len(self._owners))
        return taken

    def drop(self, owned: Owned) -> None:
        """Stop renewing a partition that is not ours any more."""
        with self._lock:
            self._owners.pop(owned.keys.number, None)
        metrics.OWNED.set(len(self._owners))

    async def release(self, owned: Owned) -> None:
        """Give a partition back in order: its next owner need not recover."""
        self.drop(owned)
        k = owned.keys
        await self._wire.execute([call(LEASE, (k.lease, k.fence, k.clean, k.commit), "release", owned.owner, 0)])


def give_back(url: str, worker: str | None, partitions: int) -> int:
    """Delete the leases of a worker that has died (None: of all); for the parent that reaped it. How many there were.

    Should a worker of them live after all, its next commit is fenced.
    """
    with redis.Redis.from_url(url, socket_timeout=2.0, client_name="parent") as client:
        found = 0
        if worker is None:
            client.delete(WORKERS_KEY)
        else:
            client.zrem(WORKERS_KEY, worker)
        for k in all_keys(partitions):
            owner = client.get(k.lease)
            if isinstance(owner, bytes) and worker in (None, owner.decode().rpartition(":")[0]):
                found += int(bool(client.delete(k.lease)))
        return found
