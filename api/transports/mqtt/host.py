"""What lies between a connection and its server: the questions the one asks, and what the other keeps about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from api.transports.mqtt.dialect import Login, Refusal, Submit
from api.transports.mqtt.packets import Connect
from api.transports.mqtt.sessions import Holder, Opened
from api.transports.mqtt.settings import Counters, Settings

if TYPE_CHECKING:
    from api.transports.mqtt.connection import Connection


class Admitted(NamedTuple):
    """A login that was accepted, with the session that goes with it."""

    login: Login
    client_id: str
    opened: Opened
    expiry_s: int
    """How long the session outlives the connection; 0 for one that is kept nowhere."""


class Owner:
    """That a connection holds a client id; `number` is the order of its take-over, 0 until that is known."""

    __slots__ = ("connection", "holder", "number", "persistent", "superseded")

    def __init__(self, connection: Connection, holder: Holder) -> None:
        self.connection = connection
        self.holder = holder
        self.persistent = holder.expiry_s > 0
        """Whether its session is in the store, even if it is to go with the connection in the end."""
        self.number = 0
        self.superseded = 0
        """The highest number heard of another connection with this client id."""


class Host(Protocol):
    """What a connection needs of its server."""

    settings: Settings
    counters: Counters
    submit: Submit

    def attached(self, connection: Connection) -> bool:
        """A connection was made; False when there are too many."""

    async def admit(self, connection: Connection, connect: Connect) -> Admitted | Refusal:
        """Log the client in, end the connection it takes over, open its session."""

    def established(self, connection: Connection) -> None:
        """The client has its CONNACK."""

    async def record(self, connection: Connection, changes: Any) -> bool:
        """Write fields of the persistent session."""

    def keep(self, connection: Connection, expiry_s: int) -> None:
        """Let the session, if it is to outlive the connection, do so for another time; 0 ends it with it."""

    def settled(self, connection: Connection) -> None:
        """What the persistent session had kept was delivered."""

    def gone(self, connection: Connection) -> None:
        """The connection is lost; the server lets go of it once `ended` returned."""
