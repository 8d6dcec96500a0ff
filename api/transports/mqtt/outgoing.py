"""Publications on their way to one client: matched, numbered, held back where the client is slow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from api.transports.mqtt.encoding import NO_PROPERTIES, encode_publish
from api.transports.mqtt.handshake import Terms
from api.transports.mqtt.topics import Subscriptions

MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
"""Payload bytes that may wait for a client besides the count of messages."""


class Queued(msgspec.Struct, frozen=True, array_like=True):
    """A publication for one session; `packet_id` is 0 until it was sent at QoS 1."""

    topic: str
    payload: bytes
    qos: int
    packet_id: int = 0


class _Watched(Queued, frozen=True, array_like=True):
    """One whose acknowledgement somebody wants to hear of."""

    acked: Callable[[], None] | None = None


class Outgoing:
    """The sending half of a session. `write` gets packets, `cut` is called when too much waits, `settled` when the
    publications that were restored have all been acknowledged, `unsendable(topic, bytes)` for what is longer than the
    client takes.
    """

    __slots__ = (
        "_acked",
        "_cut",
        "_in_flight",
        "_last_id",
        "_max_in_flight",
        "_max_packet",
        "_max_waiting",
        "_properties",
        "_restored",
        "_restored_waiting",
        "_settled",
        "_unsendable",
        "_waiting",
        "_waiting_bytes",
        "_writable",
        "_write",
        "subscriptions",
    )

    def __init__(
        self,
        write: Callable[[bytes], None],
        cut: Callable[[], None],
        settled: Callable[[], None],
        unsendable: Callable[[str, int], None],
        *,
        max_in_flight: int,
        max_waiting: int,
    ) -> None:
        self.subscriptions = Subscriptions()
        self._write = write
        self._cut = cut
        self._settled = settled
        self._unsendable = unsendable
        self._max_in_flight = max_in_flight
        self._max_packet = 0
        self._properties = b""
        self._max_waiting = max_waiting
        self._in_flight: dict[int, Queued] = {}
        self._acked: dict[int, Callable[[], None]] = {}
        self._waiting: deque[Queued] = deque()
        self._waiting_bytes = 0
        self._restored: set[int] = set()
        self._restored_waiting = 0
        self._last_id = 0
        self._writable = True

    def agree(self, terms: Terms) -> None:
        """Keep to what the client says of itself, before anything is sent."""
        self._max_in_flight = min(self._max_in_flight, terms.in_flight)
        self._max_packet = terms.packet_bytes
        self._properties = NO_PROPERTIES if terms.level == 5 else b""

    @property
    def waiting_bytes(self) -> int:
        """Payload bytes that wait."""
        return self._waiting_bytes

    def send(
        self, topic: str, payload: bytes, qos: int, acked: Callable[[], None] | None = None, *, asked: bool = False
    ) -> bool:
        """Send if a subscription takes the topic and the client the packet; whether so. At most 1 of `qos` counts.

        What the client has `asked` for needs no subscription.

        `acked` is called once the client has acknowledged it, at QoS 0 once it is sent; never, if the connection ends
        before or the client wants none of it.
        """
        granted = self.subscriptions.qos_for(topic)
        if granted < 0 and asked:
            granted = 1
        if granted < 0 or (self._max_packet and not self._fits(topic, payload)):
            return False
        qos = min(qos, granted, 1)
        self._put(Queued(topic, payload, qos) if acked is None else _Watched(topic, payload, qos, acked=acked))
        return True

    def acknowledged(self, packet_id: int, *, taken: bool = True) -> None:
        """The client has this one, or wants none of it; an id that is not in flight means nothing."""
        if self._in_flight.pop(packet_id, None) is None:
            return
        acked = self._acked.pop(packet_id, None)
        if acked is not None and taken:
            acked()
        if packet_id in self._restored:
            self._restored.remove(packet_id)
            if not self._restored and not self._restored_waiting:
                self._settled()
        self._pump()

    def pause(self) -> None:
        """The client does not read: hold everything."""
        self._writable = False

    def resume(self) -> None:
        """The client reads again."""
        self._writable = True
        self._pump()

    def restore(self, queue: Sequence[Queued]) -> None:
        """Take up what a persistent session left: what was in flight is sent again with DUP, then what waited."""
        kept = [item for item in queue if not self._max_packet or self._fits(item.topic, item.payload)]
        if queue and not kept:
            self._settled()
        self._restored_waiting = len(kept)
        self._waiting.extend(kept)
        self._waiting_bytes = sum(len(item.payload) for item in kept)
        self._last_id = max((item.packet_id for item in kept), default=0)
        self._pump()

    def remaining(self) -> list[Queued]:
        """What the client has not acknowledged, in the order it was to be sent; QoS 0 is not kept."""
        waiting = (Queued(item.topic, item.payload, item.qos, item.packet_id) for item in self._waiting if item.qos)
        return [*self._in_flight.values(), *waiting]

    def _put(self, item: Queued) -> None:
        if not self._waiting and self._writable and (not item.qos or len(self._in_flight) < self._max_in_flight):
            self._emit(item)
            return
        self._waiting.append(item)
        self._waiting_bytes += len(item.payload)
        if len(self._waiting) > self._max_waiting or (
            self._waiting_bytes > MAX_WAITING_BYTES and len(self._waiting) > 1
        ):
            self._cut()

    def _pump(self) -> None:
        waiting = self._waiting
        while waiting and self._writable and (not waiting[0].qos or len(self._in_flight) < self._max_in_flight):
            item = waiting.popleft()
            self._waiting_bytes -= len(item.payload)
            self._emit(item)

    def _fits(self, topic: str, payload: bytes) -> bool:
        size = len(encode_publish(topic, payload, 1, 1, properties=self._properties))
        if size <= self._max_packet:
            return True
        self._unsendable(topic, size)
        return False

    def _emit(self, item: Queued) -> None:
        packet_id = item.packet_id
        if item.qos:
            if not packet_id:
                packet_id = self._last_id
                while True:
                    packet_id = packet_id % 65_535 + 1
                    if packet_id not in self._in_flight:
                        break
                self._last_id = packet_id
            if self._restored_waiting:
                # What was restored went to the front of the queue.
                self._restored_waiting -= 1
                self._restored.add(packet_id)
            self._in_flight[packet_id] = Queued(item.topic, item.payload, 1, packet_id)
        acked = item.acked if type(item) is _Watched else None
        if acked is not None and item.qos:
            self._acked[packet_id] = acked
        again = item.packet_id != 0
        self._write(
            encode_publish(item.topic, item.payload, item.qos, packet_id, dup=again, properties=self._properties)
        )
        if acked is not None and not item.qos:
            acked()
