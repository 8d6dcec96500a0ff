"""Whether a connection is read, what it said and nobody has dealt with yet, and for how long it is silent."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from api.transports.mqtt.dialect import Peer

LOGIN, REFUSED, FULL, WRITE, STOPPING = 1, 2, 4, 8, 16
"""Reasons not to read; any number of them at a time."""

KERNEL_ALIVE_S: Final = 120
"""After so much silence the kernel asks for the peer: a client may have switched MQTT's own keep-alive off."""


class Reading:
    """The bytes of a connection on their way to `deal`, which puts back what is not whole with `keep`.

    Nothing of it is used before `begin`.
    """

    __slots__ = (
        "_alive_s",
        "_deal",
        "_ended",
        "_heard_at",
        "_loop",
        "_needed",
        "_rest",
        "_timer",
        "_transport",
        "paused",
    )

    def __init__(self, deal: Callable[[bytes], None]) -> None:
        self._deal = deal
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._rest = bytearray()
        self._needed = 2
        self.paused = 0
        """The reasons there are now."""
        self._heard_at = 0.0
        self._alive_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    def begin(self, transport: asyncio.Transport) -> None:
        """Read from this one."""
        self._transport = transport
        self._heard_at = self._loop.time()

    def came(self, data: bytes) -> None:
        """Bytes came: have them dealt with, unless they are to wait or too few."""
        self._heard_at = self._loop.time()
        if self._rest or self.paused:
            self._rest += data
            self._go_on()
        else:
            self._deal(data)

    def keep(self, rest: bytes, needed: int) -> None:
        """Put back what `deal` cannot use before there are `needed` bytes of it."""
        self._rest += rest
        self._needed = needed

    def pause(self, why: int) -> None:
        """Read nothing more."""
        if not self.paused and not self._ended:
            self._transport.pause_reading()
        self.paused |= why

    def resume(self, why: int) -> None:
        """Read on, unless there are other reasons not to."""
        if not self.paused & why:
            return
        self.paused &= ~why
        if not self.paused and not self._ended:
            self._heard_at = self._loop.time()
            self._transport.resume_reading()
            if self._rest:
                self._loop.call_soon(self._go_on)

    def within(self, wait_s: float, late: Callable[[], None]) -> None:
        """Call `late` after so much time, unless `in_time` or `end` comes before."""
        self._timer = self._loop.call_later(wait_s, late)

    def in_time(self) -> None:
        """What `within` waits for is there."""
        if self._timer is not None:
            self._timer.cancel()

    def watch(self, alive_s: float, silent: Callable[[], None]) -> None:
        """From now on, call `silent` when nothing came for so long (0: never)."""
        self._heard_at = self._loop.time()
        self._alive_s = alive_s
        if alive_s:
            self._timer = self._loop.call_later(alive_s, self._look, silent)

    def end(self) -> None:
        """Nothing is read or waited for any more."""
        self._ended = True
        self.in_time()

    def _go_on(self) -> None:
        if not self.paused and len(self._rest) >= self._needed:
            data = bytes(self._rest)
            self._rest = bytearray()
            self._deal(data)

    def _look(self, silent: Callable[[], None]) -> None:
        silent_s = self._loop.time() - self._heard_at
        if self.paused & ~WRITE:
            # Nobody can be heard who is not listened to.
            silent_s = 0.0
        if silent_s >= self._alive_s:
            silent()
        else:
            self._timer = self._loop.call_later(self._alive_s - silent_s, self._look, silent)


def peer_of(transport: asyncio.Transport, listener: str) -> Peer:
    """Who is at the other end; the kernel looks after it from now on."""
    tls = transport.get_extra_info("ssl_object")
    address = transport.get_extra_info("peername") or ""
    _keep_alive(transport.get_extra_info("socket"))
    return Peer(
        f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address),
        listener,
        tls is not None,
        tls.getpeercert(binary_form=True) if tls is not None else None,
    )


def _keep_alive(sock: socket.socket | None) -> None:
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KERNEL_ALIVE_S)
