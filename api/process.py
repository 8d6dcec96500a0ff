"""What every process of a server begins with: its Redis, the number of partitions, and the signals that end it."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal

import redis.asyncio as redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from engine.stores.register import P

log = logging.getLogger("rulemill.app")


def connect(url: str, name: str) -> redis.Redis:
    """A client for what is not hot: never retries by itself (a lost reply would be a second write).

    A burst waits for a connection; the library's own pool would refuse it.
    """
    pool = redis.BlockingConnectionPool.from_url(
        url, client_name=name, retry=Retry(NoBackoff(), 0), socket_connect_timeout=5.0, socket_timeout=10.0,
        health_check_interval=0, max_connections=64, timeout=10,
    )  # fmt: skip
    return redis.Redis.from_pool(pool)


async def partition_count(client: redis.Redis, wanted: int) -> int:
    """How many partitions this Redis has: what the first server to start on it has chosen."""
    key = P + "partitions"
    await client.set(key, wanted, nx=True)
    count = int(await client.get(key) or wanted)
    if count != wanted:
        log.warning("this Redis has %d partitions; `partitions = %d` has no effect any more", count, wanted)
    return count


def spare_the_collector() -> None:
    """Let the cycle collector look rarely: messages make many objects and no cycles, and a look costs milliseconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def stopping() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
