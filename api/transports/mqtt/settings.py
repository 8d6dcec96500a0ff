"""Limits of the MQTT endpoint, and what it counts."""

from __future__ import annotations

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits; each holds for one connection unless it says otherwise."""

    max_connections: int = 100_000
    """Of the whole process; one more is closed at once."""
    handshake_s: float = 15.0
    """How long a client may take for TLS, over which slow networks take several round trips."""
    connect_s: float = 5.0
    """How long it may then take to send its CONNECT."""
    login_s: float = 10.0
    """How long its login may take us; longer is answered as unavailable."""
    max_connect_payload: int = 65_536
    """Bytes of a CONNECT beyond one field of 65 535."""
    max_unconfirmed: int = 1000
    """Publications received and not yet stored, over which the socket is not read."""
    max_unconfirmed_bytes: int = 1024 * 1024
    max_in_flight: int = 100
    """Publications sent at QoS 1 and not yet acknowledged."""
    max_waiting: int = 256
    """Publications held for a client that reads slowly; one more cuts it off (`G-24`)."""
    max_subscriptions: int = 256
    max_filter: int = 4096
    """Characters of a topic filter."""
    write_buffer: int = 64 * 1024
    """Bytes in the write buffer over which the client counts as not reading."""
    write_stall_s: float = 30.0
    """How long a client may not read before it is cut off."""
    write_min_rate: int = 1024
    """Bytes a second of what is buffered that count as reading: a large packet may take long."""
    close_s: float = 5.0
    """How long a closed connection may take to send what is still buffered."""


class Counters:
    """Plain integers that only grow, except `connections`: the clients connected now."""

    __slots__ = (
        "acked",
        "bytes_received",
        "bytes_sent",
        "connections",
        "dropped",
        "malformed",
        "opened",
        "received",
        "refused",
        "sent",
        "taken_over",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.opened = 0
        """Connections whose login was accepted."""
        self.received = 0
        """Publications received."""
        self.acked = 0
        """Packets answered after what came before them was stored."""
        self.refused = 0
        """Batches the store did not take; each is submitted again."""
        self.dropped = 0
        """Publications no one will store or deliver any more."""
        self.malformed = 0
        """Connections closed for a protocol error."""
        self.taken_over = 0
        self.sent = 0
        """Publications sent, repeats included."""
        self.bytes_received = 0
        self.bytes_sent = 0

    def read(self) -> dict[str, int]:
        """All of them by name."""
        return {name: getattr(self, name) for name in self.__slots__}
