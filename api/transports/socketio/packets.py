"""Which packets of clients the library can be given: it fails on what is none, with a traceback and an open session."""

from __future__ import annotations

from typing import Any, Final

from socketio.packet import ACK, CONNECT_ERROR, EVENT, Packet

SEPARATOR: Final = "\x1e"
"""Between packets of a body."""
MOST_PACKETS: Final = 256
"""In one body."""
MAX_DEPTH: Final = 64
"""How many arrays and objects may stand inside each other."""
OPEN, CLOSE = "0", "1"
_MESSAGE: Final = "4"
_OTHERS: Final = frozenset({CLOSE, "3"})
_UPGRADE: Final = frozenset({"2probe", "5"})
_MESSAGES: Final = frozenset("012356")


def packets_of(body: bytes) -> list[str]:
    """The packets of a polling body, to the one that ends the session; ValueError for what is none, or has a fault."""
    text = body.decode()
    found = text.split(SEPARATOR)
    if len(found) > MOST_PACKETS:
        raise ValueError(f"more than {MOST_PACKETS} packets in one body")
    for packet in found:
        if reason := fault(packet):
            raise ValueError(reason)
    return found[: found.index(CLOSE) + 1] if CLOSE in found else found


def fault(packet: str | bytes, upgrade: bool = False) -> str:
    """Why a packet of Engine.IO (revision 4) is none, or not for us; empty when it is all right (`G-25`).

    `upgrade`: it came by a websocket, where it may be of an upgrade.
    """
    if isinstance(packet, bytes) or packet.startswith("b"):
        return "binary packets are not taken here"
    if packet.startswith(_MESSAGE):
        return _message_fault(packet[1:])
    if packet in _OTHERS or (upgrade and packet in _UPGRADE):
        return ""
    return f"no packet that a client sends: {packet[:20]!a}"


def _message_fault(text: str) -> str:
    """Why a packet of Socket.IO is none."""
    if text[:1] not in _MESSAGES:
        return f"no type of message: {text[:20]!a}"
    try:
        packet = Packet(encoded_packet=text)
    except (ValueError, RecursionError) as error:
        return f"a message that cannot be read: {str(error)[:60]!a}"
    kind, data = packet.packet_type, packet.data
    if kind > CONNECT_ERROR:
        # Their attachments would be kept until all are there, however many were announced.
        return "binary messages are not taken here"
    if kind == EVENT and not (isinstance(data, list) and data and isinstance(data[0], str)):
        return "an event without a name"
    if kind == ACK and not (isinstance(data, list) and packet.id is not None):
        return "an acknowledgement of nothing"
    return "a message that is nested too deeply" if _too_deep(data) else ""


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())
        ]
        if not level:
            return False
    return True
