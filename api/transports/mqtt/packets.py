"""MQTT 3.1 and 3.1.1 packets as values. `decoding` makes them of bytes, `encoding` bytes of them."""

from __future__ import annotations

from typing import Final

import msgspec

LEVELS: Final = {3: "MQIsdp", 4: "MQTT"}
"""Protocol levels that are read in full, with the protocol name each must come with."""

MAX_REMAINING: Final = 268_435_455
ACCEPTED, BAD_LEVEL, BAD_CLIENT_ID, UNAVAILABLE, BAD_LOGIN, NOT_AUTHORISED = range(6)
"""CONNACK return codes of MQTT 3.1.1."""
SUBSCRIPTION_REFUSED: Final = 0x80

PUBACK_HEAD, PUBREC_HEAD, PUBCOMP_HEAD = b"\x40\x02", b"\x50\x02", b"\x70\x02"
"""What comes before the packet id in an acknowledgement."""


class Malformed(Exception):
    """The bytes are not MQTT, or not what the protocol allows; the connection cannot go on."""


class Will(msgspec.Struct, frozen=True):
    """What the client wants to be published when it is lost."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


class Connect(msgspec.Struct, frozen=True):
    """A client's first packet. Of a level not in `LEVELS` only `level` is filled."""

    level: int = 4
    clean: bool = True
    keep_alive_s: int = 0
    client_id: str = ""
    will: Will | None = None
    username: str | None = None
    password: bytes | None = None


class Connack(msgspec.Struct, frozen=True):
    """The answer to CONNECT."""

    session_present: bool
    code: int


class Publish(msgspec.Struct, frozen=True, gc=False):
    """A message in either direction; `packet_id` is 0 at QoS 0."""

    topic: str
    payload: bytes
    qos: int = 0
    packet_id: int = 0
    retain: bool = False
    dup: bool = False


class Puback(msgspec.Struct, frozen=True, gc=False):
    """QoS 1 is done."""

    packet_id: int


class Pubrec(msgspec.Struct, frozen=True, gc=False):
    """QoS 2, second step: received."""

    packet_id: int


class Pubrel(msgspec.Struct, frozen=True, gc=False):
    """QoS 2, third step: the id may be forgotten."""

    packet_id: int


class Pubcomp(msgspec.Struct, frozen=True, gc=False):
    """QoS 2 is done."""

    packet_id: int


class Subscribe(msgspec.Struct, frozen=True):
    """Filters with the QoS asked for."""

    packet_id: int
    filters: tuple[tuple[str, int], ...]


class Suback(msgspec.Struct, frozen=True):
    """One code for each filter: the QoS granted, or `SUBSCRIPTION_REFUSED`."""

    packet_id: int
    codes: bytes


class Unsubscribe(msgspec.Struct, frozen=True):
    """Filters to be given up."""

    packet_id: int
    filters: tuple[str, ...]


class Unsuback(msgspec.Struct, frozen=True):
    """The filters are gone."""

    packet_id: int


class Pingreq(msgspec.Struct, frozen=True):
    """The client is alive."""


class Pingresp(msgspec.Struct, frozen=True):
    """So is the server."""


class Disconnect(msgspec.Struct, frozen=True):
    """The client goes, and its will with it."""


Packet = (
    Connect
    | Connack
    | Publish
    | Puback
    | Pubrec
    | Pubrel
    | Pubcomp
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
)
