"""How a connection ends: what is logged of it, and what a level 5 client is told."""

from __future__ import annotations

import logging
from typing import Final

from api.transports.mqtt.dialect import CloseReason
from api.transports.mqtt.encoding import encode
from api.transports.mqtt.handshake import Terms
from api.transports.mqtt.packets import Disconnect, Properties
from api.transports.mqtt.reasons import Reason

MAX_WORDS: Final = 256
"""Characters of a reason that a client is told in words."""

_CODES: Final = {
    CloseReason.KEEP_ALIVE: Reason.KEEP_ALIVE_TIMEOUT,
    CloseReason.TAKEN_OVER: Reason.TAKEN_OVER,
    CloseReason.PROTOCOL: Reason.PROTOCOL_ERROR,
    CloseReason.FORBIDDEN: Reason.NOT_AUTHORISED,
    CloseReason.SLOW_READER: Reason.QUOTA_EXCEEDED,
    CloseReason.KICKED: Reason.ADMINISTRATIVE_ACTION,
    CloseReason.STOPPING: Reason.SHUTTING_DOWN,
    CloseReason.FAULT: Reason.IMPLEMENTATION_SPECIFIC,
}
"""What the server says last. Of the others, the client went by itself, or has been told in a CONNACK."""
_IN_WORDS: Final = frozenset({CloseReason.PROTOCOL, CloseReason.FORBIDDEN})
"""What the client did, and may be told in words."""
_LOUD: Final = frozenset({CloseReason.PROTOCOL, CloseReason.FORBIDDEN, CloseReason.SLOW_READER, CloseReason.FAULT})


def loudness(reason: CloseReason) -> int:
    """The level that an ending is logged at."""
    return logging.WARNING if reason in _LOUD else logging.DEBUG


def last_word(terms: Terms, reason: CloseReason, detail: str, code: int = 0) -> bytes:
    """The DISCONNECT for the client, empty where there is none to send; `code` overrides the usual one."""
    if terms.level < 5 or reason not in _CODES:
        return b""
    words = Properties(reason=said(detail)) if detail and reason in _IN_WORDS else None
    return fitting(terms, Disconnect(code or _CODES[reason], words))


def said(detail: str) -> str:
    """A reason as it may be sent."""
    return detail.replace("\0", "")[:MAX_WORDS].encode(errors="replace").decode()


def fitting(terms: Terms, packet: Disconnect) -> bytes:
    """The packet, without words where they would make it longer than the client takes."""
    made = encode(packet, 5)
    if 0 < terms.packet_bytes < len(made):
        made = encode(Disconnect(packet.reason), 5)
    return made
