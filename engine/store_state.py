"""How each worker gets on with the telemetry store, for whoever asks how the server is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError

from engine.entries import encode
from engine.feed import Feed
from engine.service import Loop
from engine.wire import Wire, failed

EVERY_S: Final = 2.0
KEEP_S: Final = 10
_KEY: Final = "rm:{reg}:store:"


class StoreState(msgspec.Struct, frozen=True):
    """One worker's circuit to the store."""

    worker: str
    store: str
    circuit: str
    """`closed`: it takes points; `open`: it is left alone; `half-open`: it is probed."""
    reason: str
    """Why the last write failed; empty after one that did not."""
    since_ms: int
    """When the circuit was opened or closed last."""
    told: list[str]
    """What somebody who runs the store should know."""


_decode = msgspec.msgpack.Decoder(StoreState).decode


class StateBoard:
    """Pins one worker's state to Redis; what is pinned fades with the worker."""

    def __init__(self, wire: Wire, worker: str, feed: Feed) -> None:
        self._wire, self._worker, self._feed = wire, worker, feed
        self._loop = Loop("store-state", EVERY_S, self.pin)

    async def start(self) -> None:
        """Pin once, then go on."""
        await self.pin()
        await self._loop.start()

    async def stop(self) -> None:
        """End."""
        await self._loop.stop()

    async def pin(self) -> None:
        """Write what is so now."""
        feed, circuit = self._feed, self._feed.breaker
        state = StoreState(self._worker, feed.name, circuit.state, circuit.reason, circuit.since_ms, feed.told())
        await self._wire.execute([("SET", _KEY + self._worker, encode(state), "EX", KEEP_S)])


async def read_states(wire: Wire, workers: Sequence[str]) -> list[StoreState]:
    """What the given workers have pinned."""
    if not workers:
        return []
    [blobs] = await wire.execute([("MGET", *[_KEY + worker for worker in workers])])
    if failed(blobs):
        raise RedisConnectionError(str(blobs))
    return [_decode(blob) for blob in blobs if blob is not None]
