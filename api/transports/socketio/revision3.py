"""What differs between Engine.IO revisions 3 (socket.io 2) and 4, packet by packet and payload by payload (`G-25`)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

SEPARATOR: Final = "\x1e"
"""Between packets of a revision 4 payload."""
PING, PONG, CONNECT = "2", "3", "40"


class BadPayload(Exception):
    """A polling body that is not of its revision."""


def opened(packet: str, timeout_ms: int) -> str:
    """The first packet for a client of revision 3, which sends the pings itself."""
    told = json.loads(packet[1:])
    told.pop("maxPayload", None)
    told["pingTimeout"] = timeout_ms
    return "0" + json.dumps(told, separators=(",", ":"))


def down(packet: str) -> str:
    """A packet of the server as revision 3 has it."""
    if packet.startswith("40"):
        namespace, _ = _parted(packet[2:])
        return "40" + namespace
    if packet.startswith("44"):
        namespace, rest = _parted(packet[2:])
        try:
            told = json.loads(rest) if rest else "refused"
        except ValueError:
            return packet
        message = told.get("message", told) if isinstance(told, dict) else told
        return f"44{namespace}{json.dumps(message)}"
    return packet


def up(packet: str) -> str:
    """A packet of the client as revision 4 has it: a namespace ends with a comma, and has no query."""
    if packet[:2] in ("40", "41") and packet[2:3] == "/":
        namespace = packet[2:].partition(",")[0].partition("?")[0]
        return f"{packet[:2]}{namespace},"
    return packet


def _parted(text: str) -> tuple[str, str]:
    """`/ns,rest` as (`/ns,`, rest); without a namespace the first is empty."""
    if not text.startswith("/"):
        return "", text
    namespace, comma, rest = text.partition(",")
    return namespace + (comma or ","), rest


def payload(packets: Iterable[str]) -> str:
    """Packets as a polling body: each behind its length in UTF-16 units, as JavaScript counts."""
    return "".join(f"{len(packet.encode('utf-16-le')) // 2}:{packet}" for packet in packets)


def packets(body: str) -> list[str]:
    """The packets of a polling body; BadPayload."""
    units = body.encode("utf-16-le")
    found, at = [], 0
    while at < len(units):
        colon = units.find(b":\0", at, at + 16)
        while colon % 2 and colon != -1:
            colon = units.find(b":\0", colon + 1, at + 16)
        digits = units[at:colon].decode("utf-16-le") if colon > at else ""
        if not (digits.isascii() and digits.isdecimal()):
            raise BadPayload("a packet without its length")
        start = colon + 2
        end = start + 2 * int(digits)
        if end > len(units) or end == start:
            raise BadPayload("a packet shorter than its length")
        found.append(units[start:end].decode("utf-16-le", "surrogatepass"))
        at = end
    return found
