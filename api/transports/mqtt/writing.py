"""What leaves a connection, and whether its peer takes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from api.transports.mqtt.settings import Counters, Settings


class Writing:
    """The writing half of a connection; `stalled` is called when the peer has taken too little for too long.

    Nothing of it is used before `begin`.
    """

    __slots__ = ("_counters", "_loop", "_settings", "_stalled", "_timer", "_transport")

    def __init__(self, settings: Settings, counters: Counters, stalled: Callable[[], None]) -> None:
        self._settings = settings
        self._counters = counters
        self._stalled = stalled
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, transport: asyncio.Transport) -> None:
        """Write to this one."""
        self._transport = transport
        transport.set_write_buffer_limits(high=self._settings.write_buffer)

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._counters.bytes_sent += len(data)
        self._transport.write(data)

    @property
    def buffered(self) -> int:
        """Bytes that have not left yet."""
        return self._transport.get_write_buffer_size()

    def full(self) -> None:
        """The buffer is full: the peer has to read, as fast as may be asked of it."""
        buffered, settings = self.buffered, self._settings

        def look() -> None:
            if buffered - self.buffered < settings.write_stall_s * settings.write_min_rate:
                self._stalled()
            else:
                self.full()

        self._timer = self._loop.call_later(settings.write_stall_s, look)

    def end(self) -> None:
        """It reads again, or never will."""
        if self._timer is not None:
            self._timer.cancel()
