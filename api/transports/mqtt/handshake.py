"""What a CONNECT asks for, what it is granted, and the CONNACK that says so."""

from __future__ import annotations

from typing import Final, NamedTuple

from api.transports.mqtt.dialect import Refusal
from api.transports.mqtt.encoding import encode
from api.transports.mqtt.packets import (
    ACCEPTED,
    BAD_CLIENT_ID,
    BAD_LEVEL,
    BAD_LOGIN,
    LEVELS,
    NOT_AUTHORISED,
    UNAVAILABLE,
    Connack,
    Connect,
    Properties,
)
from api.transports.mqtt.properties import stated
from api.transports.mqtt.reasons import Reason
from api.transports.mqtt.settings import Settings

_REASONS: Final = {
    BAD_LEVEL: Reason.UNSUPPORTED_VERSION,
    BAD_CLIENT_ID: Reason.BAD_CLIENT_ID,
    UNAVAILABLE: Reason.UNAVAILABLE,
    BAD_LOGIN: Reason.BAD_LOGIN,
    NOT_AUTHORISED: Reason.NOT_AUTHORISED,
}
"""What the codes of 3.1.1, which dialects refuse with, are at level 5 (`G-10`)."""


class Terms(NamedTuple):
    """What a client said of itself that holds as long as its connection does."""

    level: int = 4
    in_flight: int = 65_535
    """How many publications it takes at QoS 1 before it acknowledges the first."""
    packet_bytes: int = 0
    """The longest packet it takes; 0 for any."""
    expiry_s: int = 0
    """How long it asked its session to outlive the connection."""
    reasons_in_words: bool = True
    """Whether it takes them in acknowledgements, where they cost it most."""


def terms(connect: Connect) -> Terms:
    """The terms that a client names; below level 5 there are none to name."""
    said = stated(connect.properties)
    return Terms(
        connect.level,
        said.receive_maximum or 65_535,
        said.maximum_packet_bytes or 0,
        said.session_expiry_s or 0,
        said.wants_problem_information is not False,
    )


def objection(connect: Connect) -> Refusal | None:
    """What no login can make good."""
    if connect.level not in LEVELS:
        return Refusal(BAD_LEVEL, f"protocol level {connect.level}")
    if connect.level < 5:
        if not connect.client_id and (connect.level == 3 or not connect.clean):
            return Refusal(BAD_CLIENT_ID, "an empty client id")
        return None
    if stated(connect.properties).authentication_method is not None:
        return Refusal(Reason.BAD_AUTHENTICATION_METHOD, "an authentication method")
    if connect.will is not None and connect.will.retain:
        return Refusal(Reason.RETAIN_NOT_SUPPORTED, "a will that is to be retained")
    return None


def wanted_expiry_s(connect: Connect, most_s: int) -> int:
    """How long its session is to outlive the connection: what a client asks for, up to `most_s`."""
    if connect.level < 5:
        return 0 if connect.clean else most_s
    return min(stated(connect.properties).session_expiry_s or 0, most_s)


def refused(level: int, code: int) -> bytes:
    """The CONNACK of a refusal, in the form that a client of this level, known or not, can read."""
    # Some bridges set the highest bit of level 3 or 4; what else is over 5 is younger than it.
    if 5 <= level < 0x80:
        return encode(Connack(False, _REASONS.get(code, code)), 5)
    return encode(Connack(False, min(code, NOT_AUTHORISED)))


def accepted(connect: Connect, client_id: str, present: bool, expiry_s: int, max_packet: int, own: Settings) -> bytes:
    """The CONNACK of a login: at level 5 with what is granted and what there is not.

    `max_packet` is announced for packets, and enforced for payloads: no client is cut by the difference.
    """
    if connect.level < 5:
        return encode(Connack(present, ACCEPTED))
    asked_s = stated(connect.properties).session_expiry_s or 0
    granted = Properties(
        session_expiry_s=None if expiry_s == asked_s else expiry_s,
        assigned_client_id=None if connect.client_id else client_id,
        receive_maximum=own.max_unconfirmed,
        maximum_packet_bytes=max_packet,
        retain_available=False,
        subscription_ids_available=False,
        shared_available=False,
    )
    return encode(Connack(present, Reason.SUCCESS, granted), 5)
