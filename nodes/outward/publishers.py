"""Connections to several outside brokers, as many as messages ask for, of which a bounded number stays open idle."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Final, NamedTuple

from nodes.outward.addresses import Guard
from nodes.outward.mqtt import Publisher

IDLE: Final = 16
"""Connections that stay open though nothing is being published over them."""


class Place(NamedTuple):
    """Where a connection goes, and as whom."""

    host: str
    port: int
    tls: bool
    username: str
    password: str


class Publishers:
    """One shared connection for each place."""

    def __init__(self, guard: Guard, *, timeout_s: float) -> None:
        self._guard = guard
        self._timeout_s = timeout_s
        self._made: OrderedDict[Place, Publisher] = OrderedDict()
        self._busy: Counter[Place] = Counter()

    async def publish(self, place: Place, topic: str, payload: bytes) -> None:
        """Return when the broker has acknowledged. Raises Retry, or NotAllowed for an address that is refused."""
        publisher = self._made.get(place)
        if publisher is None:
            publisher = self._made[place] = Publisher(
                self._guard, place.host, place.port, tls=place.tls, client_id=None, timeout_s=self._timeout_s
            )
            publisher.login(place.username or None, place.password or None)
        self._made.move_to_end(place)
        self._busy[place] += 1
        try:
            await publisher.publish(topic, payload, qos=1, retain=False)
        finally:
            self._busy[place] -= 1
            await self._shrink()

    async def close(self) -> None:
        """Disconnect from all."""
        while self._made:
            _, publisher = self._made.popitem()
            await publisher.close()

    async def _shrink(self) -> None:
        """Close those that were not used for longest, none that something is being published over."""
        self._busy += Counter()  # forgets those at zero
        idle = [place for place in self._made if place not in self._busy]
        for publisher in [self._made.pop(place) for place in idle[: max(0, len(idle) - IDLE)]]:
            await publisher.close()
