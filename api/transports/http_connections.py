"""Hypercorn's connections, which end when their client has left.

By itself Hypercorn keeps what a client has closed for as long as it would wait for the next request (`KEEP_ALIVE_S`),
its socket too: clients that connect for each request would use up all there are.
"""

from __future__ import annotations

from hypercorn.asyncio import run
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Event, Updated


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


def install() -> None:
    """Have Hypercorn serve its connections so, in all of this process; may be called twice.

    Fails when Hypercorn keeps them elsewhere than known, so that no server starts that would use up its sockets.
    """
    names = vars(run)
    if names.get("TCPServer") not in (TCPServer, EndingServer):
        raise RuntimeError("Hypercorn's connections are not where they were")
    names["TCPServer"] = EndingServer
