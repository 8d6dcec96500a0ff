"""Hypercorn's connections, which end when their client has left.

By itself Hypercorn keeps what a client has closed for as long as it would wait for the next request (`KEEP_ALIVE_S`),
its socket too: clients that connect for each request would use up all there are. What it upgrades to HTTP/2 without TLS
never ends at all, nor is it answered.
"""

from __future__ import annotations

import h11
from hypercorn import protocol
from hypercorn.asyncio import run
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Event, Updated
from hypercorn.protocol.h11 import H11Protocol


class EndingServer(TCPServer):
    """Hypercorn's connection, which waits for no request once there is nothing more to read."""

    _over = False

    async def _read_data(self) -> None:
        await super()._read_data()
        self._over = True
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        """Do what the protocol asks for."""
        if not (self._over and isinstance(event, Updated)):
            await super().protocol_send(event)


class StayingProtocol(H11Protocol):
    """Hypercorn's HTTP/1.1, which ignores a wish for HTTP/2 (RFC 9113 has no such upgrade); who knows may begin it."""

    async def _check_protocol(self, event: h11.Request) -> None:
        if event.method == b"PRI":
            await super()._check_protocol(event)


def install() -> None:
    """Have Hypercorn serve its connections so, in all of this process; may be called twice.

    Fails when Hypercorn keeps them elsewhere than known, so that no server starts that would use up its sockets.
    """
    for module, name, theirs, ours in (
        (run, "TCPServer", TCPServer, EndingServer),
        (protocol, "H11Protocol", H11Protocol, StayingProtocol),
    ):
        names = vars(module)
        if names.get(name) not in (theirs, ours):
            raise RuntimeError(f"Hypercorn's {name} is not where it was")
        names[name] = ours
