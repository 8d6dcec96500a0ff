"""Lanes: a device's messages behind one that is to be retried. What is here is the state of a lane, and when it runs.

A lane is a list `lane:<originator>` of LaneItem; the hash `lanes` names the open ones. The partition's owner is the
only writer. Other devices go on; the lane never goes back through the stream, whose end lies behind newer messages.
"""

from __future__ import annotations

import random
from typing import Final

import msgspec

from engine.entries import LaneItem

MAX_WAITING: Final = 1000
"""How many may wait behind a head; beyond them the head fails."""
RUN_AT_ONCE: Final = 100
"""How many of a lane are run in one batch."""
MAX_CRASHES: Final = 2
"""A lane's head that took the process with it so often, running alone, is dead-lettered unrun."""

_FIRST_S, _MOST_S = 0.5, 30.0


class Lane(msgspec.Struct, array_like=True):
    """An open lane, as the hash `lanes` holds it and as its owner knows it."""

    tenant: str
    due_ms: int
    crashes: int = 0
    length: int = 0
    """Messages in the list, as far as the owner has counted; read again at take-over."""
    alone: int = 0
    """So many from the head on are run one by one, since one of them took the process with it."""

    def blame(self) -> None:
        """The process died while this lane was run: suspect all that were run, then the one that ran alone."""
        if self.alone:
            self.crashes += 1
        else:
            self.alone = RUN_AT_ONCE


def backoff_s(attempts: int, after_s: float | None = None) -> float:
    """Seconds until the next try: what the node asked for, else doubling from 0.5 s to 30 s with ±25 % of jitter."""
    if after_s is not None:
        return max(after_s, 0.0)
    base: float = min(_MOST_S, _FIRST_S * 2 ** (attempts - 1))
    return base * random.uniform(0.75, 1.25)


decode_lane: Final = msgspec.msgpack.Decoder(Lane).decode
decode_item: Final = msgspec.msgpack.Decoder(LaneItem).decode
