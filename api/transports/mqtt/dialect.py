"""What the MQTT endpoint asks of a dialect, and what a dialect may ask of the endpoint. Holds no behaviour."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec

from api.transports.mqtt.packets import Connect
from api.transports.mqtt.reasons import Reason
from engine.message import Message

Submit = Callable[[Sequence[Message]], asyncio.Future[None]]
"""Stores messages in order. The future, shared by all that one flush takes, fails with `engine.errors.Refused`."""


class Peer(NamedTuple):
    """The other end of a connection: its address, the listener it came by, its TLS certificate (DER) if it gave one."""

    address: str
    listener: str
    tls: bool = False
    certificate: bytes | None = None


class Refusal(NamedTuple):
    """A login that failed, with the CONNACK code of 3.1.1, or a `Reason` that only level 5 has.

    `unknown`: the name is nobody's here, so the next one is asked.
    """

    code: int
    reason: str
    unknown: bool = False


class Drop(msgspec.Struct, frozen=True, gc=False):
    """Nothing is stored, the publication is acknowledged, the connection goes on. A level 5 client is told why."""

    reason: str
    code: int = Reason.PAYLOAD_FORMAT_INVALID


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """Messages to be stored before the publication is acknowledged; `after` runs once they are.

    No messages: the dialect dealt with the publication itself. `refused` says which part of it is not stored, and a
    level 5 client is told so.

    `first` is what takes a wait: it gives the messages to be stored in this publication's place, before `messages`, or
    an `Accepted` of them. Nothing that the client publishes later overtakes it, so it should be short. It may raise
    Refused, and is called again while the client waits, or BadInput, which closes the connection.
    """

    messages: Sequence[Message] = ()
    after: Callable[[], None] | None = None
    first: Callable[[], Awaitable[Sequence[Message] | Accepted]] | None = None
    refused: Drop | None = None


class Close(msgspec.Struct, frozen=True, gc=False):
    """Nothing is stored, nothing acknowledged, the connection is closed. A level 5 client is told why."""

    reason: str
    code: int = Reason.NOT_AUTHORISED


class CloseReason(StrEnum):
    """Why a connection ended."""

    DISCONNECT = "client disconnected"
    LOST = "connection lost"
    KEEP_ALIVE = "keep-alive ran out"
    TAKEN_OVER = "taken over by another connection of the same client id"
    PROTOCOL = "protocol error"
    FORBIDDEN = "not allowed"
    SLOW_READER = "reads too slowly"
    LOGIN = "login refused"
    KICKED = "logged out by the server"
    STOPPING = "server stops"
    FAULT = "server fault"


class Session(Protocol):
    """A connected client, as its dialect sees it."""

    client_id: str
    away_since_ms: int
    """Since when the client of a resumed session was away; 0 for a new session."""

    @property
    def unsent_bytes(self) -> int:
        """What was given to `send` and has not left yet: whoever sends much waits until it has."""

    def send(
        self, topic: str, payload: bytes, qos: int = 1, acked: Callable[[], None] | None = None, *, asked: bool = False
    ) -> bool:
        """Publish to the client if one of its subscriptions takes `topic`; whether one did.

        Sent once, at the lower of `qos` and the highest QoS granted. A client with too much waiting is cut. `acked` is
        called when this connection's client has acknowledged it, at QoS 0 when it is sent. `asked`: it is the answer to
        what the client asked for just now, and needs no subscription (clients of some vendors count on that).
        """

    def close(self, reason: CloseReason, detail: str = "") -> None:
        """End the connection."""


class Login(Protocol):
    """Somebody who logged in. Every method is called in the event loop and must neither block nor wait."""

    scope: str
    """Who it is: client ids of one scope are exclusive, those of different scopes never meet (`G-29`)."""
    max_payload: int
    """Bytes; a longer PUBLISH closes the connection (`G-12`)."""
    may_persist: bool
    """Whether a client that asks for it gets a persistent session."""
    honours_wills: bool
    """Whether the will of a lost client goes through `publish` (`G-11`)."""

    def connected(self, session: Session) -> None:
        """The client has its CONNACK. Called once, before any publish."""

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> Accepted | Drop | Close:
        """What to do with a publication. The hot path: a few microseconds at most."""

    def may_subscribe(self, topic_filter: str) -> int:
        """The highest QoS this filter may have, or `SUBSCRIPTION_REFUSED`."""

    def subscribed(self, topic_filter: str, qos: int) -> None:
        """A filter was granted and its SUBACK sent; also called for each filter of a session that was resumed."""

    def unsubscribed(self, topic_filter: str) -> None:
        """A filter was given up."""

    def closed(self, reason: CloseReason) -> None:
        """The connection ended. Called once, if `connected` was."""


class MqttDialect(Protocol):
    """One way of logging in, with the topics that go with it."""

    async def login(self, connect: Connect, peer: Peer) -> Login | Refusal:
        """Tell who this is. May wait; a login that takes too long is refused as unavailable."""


Choose = Callable[[Connect, Peer], Sequence[MqttDialect]]
"""The dialects a CONNECT may belong to, likeliest first.

The next is asked only where one says `unknown`; the code of the first refusal is the one that is sent (`G-9`).
"""
