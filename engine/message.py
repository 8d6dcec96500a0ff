"""The message: what every inbound call becomes. Imports nothing of the project."""

from __future__ import annotations

import os
import time
from typing import Any, Final

import msgspec

WIRE_VERSION: Final = 1
"""Version of the stream entry format; an entry of a newer version is refused, never guessed at."""

MAX_HOPS: Final = 1000
"""How often a message may come back from parking before it is taken for a loop."""


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    """One typed message about one originator. Never changed: nodes make changed copies (`msgspec.structs.replace`).

    `data` is a JSON value or bytes; `metadata` maps strings to strings. Nobody may change either in place.
    """

    id: str
    ts_ms: int
    tenant: str
    type: str
    originator: str
    data: Any = None
    metadata: dict[str, str] = {}
    originator_type: str = "DEVICE"
    deployment: int = 0
    """Which deployment runs it; 0 until its first batch."""
    node: str = ""
    """Where it goes on; empty: at the plan's start."""
    copy: str = ""
    """Which copy of the message this is: "" for the first, ".1", ".1.2" for what fan-outs made."""
    hops: int = 0
    reply_to: str = ""
    """Where a waiting caller listens, `<process>/<call>`; empty when nobody waits.

    With a name behind it, `<process>/<call>/<name>`, the answer is also kept for the originator (stores/answers.py).
    """
    awaited: bool = False
    """The caller also wants to be told when every copy has ended."""
    trace: str = ""


class Point(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One time-series value: `value` is a bool, int (64 bits), finite float, str, or a dict/list kept as JSON."""

    tenant: str
    device: str
    key: str
    ts_ms: int
    value: Any
    lat: float | None = None
    lon: float | None = None


def now_ms() -> int:
    """Wall clock in milliseconds."""
    return time.time_ns() // 1_000_000


_random = int.from_bytes(os.urandom(8), "big")


def new_id() -> str:
    """A UUID of version 7 as text: 48 bits of time, then bits that never repeat within a process."""
    global _random
    _random = (_random + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    head = (time.time_ns() // 1_000_000) << 16 | 0x7000 | _random >> 52
    tail = _random & 0x3FFFFFFFFFFFFFFF | 0x8000000000000000
    text = (head << 64 | tail).to_bytes(16, "big").hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
