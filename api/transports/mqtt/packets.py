"""MQTT 3.1, 3.1.1 and 5 packets as values. `decoding` makes them of bytes, `encoding` bytes of them.

Reason codes and properties are level 5's: below it they have their defaults.
"""

from __future__ import annotations

from typing import Final

import msgspec

from api.transports.mqtt.reasons import Reason

LEVELS: Final = {3: "MQIsdp", 4: "MQTT", 5: "MQTT"}
"""Protocol levels that are read in full, with the protocol name each must come with."""

MAX_REMAINING: Final = 268_435_455
ACCEPTED, BAD_LEVEL, BAD_CLIENT_ID, UNAVAILABLE, BAD_LOGIN, NOT_AUTHORISED = range(6)
"""CONNACK return codes of MQTT 3.1.1, which dialects refuse with whatever the level."""
SUBSCRIPTION_REFUSED: Final = 0x80

PUBACK_HEAD, PUBREC_HEAD, PUBCOMP_HEAD = 0x4002, 0x5002, 0x7002
"""What comes before the packet id in an acknowledgement without a reason code, which means success."""


class Malformed(Exception):
    """The bytes are not MQTT, or not what the protocol allows; the connection cannot go on.

    `code` is the reason that level 5 gives for it, `level` the client's if it is known from a bad CONNECT.
    """

    def __init__(self, reason: str, code: int = Reason.MALFORMED) -> None:
        super().__init__(reason)
        self.code = code
        self.level = 0


class Properties(msgspec.Struct, frozen=True, kw_only=True):
    """What a level 5 packet says besides its fields; None and () where it says nothing. See `properties`."""

    payload_is_text: bool | None = None
    message_expiry_s: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    subscription_ids: tuple[int, ...] = ()
    session_expiry_s: int | None = None
    assigned_client_id: str | None = None
    server_keep_alive_s: int | None = None
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    wants_problem_information: bool | None = None
    will_delay_s: int | None = None
    wants_response_information: bool | None = None
    response_information: str | None = None
    server_reference: str | None = None
    reason: str | None = None
    receive_maximum: int | None = None
    topic_alias_maximum: int | None = None
    topic_alias: int | None = None
    maximum_qos: bool | None = None
    retain_available: bool | None = None
    user: tuple[tuple[str, str], ...] = ()
    maximum_packet_bytes: int | None = None
    wildcards_available: bool | None = None
    subscription_ids_available: bool | None = None
    shared_available: bool | None = None


class Will(msgspec.Struct, frozen=True):
    """What the client wants to be published when it is lost."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties | None = None


class Connect(msgspec.Struct, frozen=True):
    """A client's first packet. Of a level not in `LEVELS` only `level` is filled."""

    level: int = 4
    clean: bool = True
    keep_alive_s: int = 0
    client_id: str = ""
    will: Will | None = None
    username: str | None = None
    password: bytes | None = None
    properties: Properties | None = None


class Connack(msgspec.Struct, frozen=True):
    """The answer to CONNECT."""

    session_present: bool
    code: int
    properties: Properties | None = None


class Publish(msgspec.Struct, frozen=True, gc=False):
    """A message in either direction; `packet_id` is 0 at QoS 0."""

    topic: str
    payload: bytes
    qos: int = 0
    packet_id: int = 0
    retain: bool = False
    dup: bool = False
    properties: Properties | None = None


class Puback(msgspec.Struct, frozen=True, gc=False):
    """QoS 1 is done."""

    packet_id: int
    reason: int = 0
    properties: Properties | None = None


class Pubrec(msgspec.Struct, frozen=True, gc=False):
    """QoS 2, second step: received."""

    packet_id: int
    reason: int = 0
    properties: Properties | None = None


class Pubrel(msgspec.Struct, frozen=True, gc=False):
    """QoS 2, third step: the id may be forgotten."""

    packet_id: int
    reason: int = 0
    properties: Properties | None = None


class Pubcomp(msgspec.Struct, frozen=True, gc=False):
    """QoS 2 is done."""

    packet_id: int
    reason: int = 0
    properties: Properties | None = None


class Subscribe(msgspec.Struct, frozen=True):
    """Filters with their options: in the two lowest bits the QoS asked for, the others are level 5's."""

    packet_id: int
    filters: tuple[tuple[str, int], ...]
    properties: Properties | None = None


class Suback(msgspec.Struct, frozen=True):
    """One code for each filter: the QoS granted, or `SUBSCRIPTION_REFUSED` (at level 5 also why)."""

    packet_id: int
    codes: bytes
    properties: Properties | None = None


class Unsubscribe(msgspec.Struct, frozen=True):
    """Filters to be given up."""

    packet_id: int
    filters: tuple[str, ...]
    properties: Properties | None = None


class Unsuback(msgspec.Struct, frozen=True):
    """The filters are gone; at level 5 with a code for each."""

    packet_id: int
    codes: bytes = b""
    properties: Properties | None = None


class Pingreq(msgspec.Struct, frozen=True):
    """The client is alive."""


class Pingresp(msgspec.Struct, frozen=True):
    """So is the server."""


class Disconnect(msgspec.Struct, frozen=True):
    """The client goes, and its will with it; at level 5 also the server's last word."""

    reason: int = 0
    properties: Properties | None = None


class Auth(msgspec.Struct, frozen=True):
    """A step of a login that takes more than a CONNECT; level 5 only."""

    reason: int = 0
    properties: Properties | None = None


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
    | Auth
)
