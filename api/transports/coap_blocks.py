"""Bodies that come in blocks (RFC 7959), put together within a bound of memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

from api.transports.coap import INCOMPLETE, TOO_LARGE, CoapError

KEEP_S: Final = 93.0
"""How long an unfinished body waits for its next block: MAX_TRANSMIT_WAIT of RFC 7252."""
MOST_BYTES: Final = 32 * 1024 * 1024
"""Of all unfinished bodies; over it the one that waits longest goes, and its sender starts anew (4.08)."""


class Assemblies:
    """Unfinished bodies by sender and path."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._held = 0
        self._parts: OrderedDict[Hashable, tuple[bytearray, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._parts)

    def add(self, key: Hashable, start: int, block: bytes, more: bool, limit: int) -> bytes | None:
        """Take the block at byte `start`; the whole body once it was the last, else None.

        Raises CoapError: 4.08 when the blocks before are missing, 4.13 when the body is over `limit` bytes.
        """
        self._expire()
        known, _ = self._parts.pop(key, (bytearray(), 0.0))
        self._held -= len(known)
        if start == 0:
            known = bytearray()
        if start != len(known):
            raise CoapError(INCOMPLETE, f"{len(known)} bytes are here, the block begins at {start}")
        if len(known) + len(block) > limit:
            raise CoapError(TOO_LARGE, f"a body has at most {limit} bytes")
        known += block
        if not more:
            return bytes(known)
        self._parts[key] = (known, time.monotonic())
        self._held += len(known)
        while self._held > self._most and len(self._parts) > 1:
            self._drop()
        return None

    def _expire(self) -> None:
        latest = time.monotonic() - KEEP_S
        while self._parts and next(iter(self._parts.values()))[1] < latest:
            self._drop()

    def _drop(self) -> None:
        _, (known, _) = self._parts.popitem(last=False)
        self._held -= len(known)
