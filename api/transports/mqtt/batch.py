"""Packets of one client that are answered together, and what some of them wait for."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from api.transports.mqtt.dialect import Accepted, Drop
from engine.message import Message

USUAL_BYTES: Final = 4
"""Of the acknowledgement of a publication that has nothing to say but that it was stored."""

Call = Callable[[], Awaitable[Sequence[Message] | Accepted]]
Refuse = Callable[[Drop], bytes]


class First(NamedTuple):
    """What a publication waits for (`Accepted.first`), with what was in its batch before it.

    `refuse` gives the answer for a publication that is not stored as a whole, empty where none but the usual is known.
    """

    messages: int
    ack_bytes: int
    afters: int
    changes: int
    call: Call
    refuse: Refuse


class Batch:
    """Publications and other packets whose answers leave together, after everything in it is stored."""

    __slots__ = (
        "_more_ack_bytes",
        "_more_afters",
        "_more_messages",
        "acks",
        "afters",
        "bytes",
        "changes",
        "firsts",
        "messages",
        "packets",
        "pubacks",
        "unacknowledged",
    )

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.firsts: deque[First] = deque()
        """What is to be done before storing, in the order of its publications."""
        self.acks = bytearray()
        self.afters: list[Callable[[], None]] = []
        self.changes: list[tuple[str, bytes]] = []
        """Fields of the persistent session to be written before the answers leave, the last word on each counting."""
        self.packets = 0
        self.pubacks = 0
        """Publications of QoS 1 among the packets."""
        self.unacknowledged = 0
        """Publications of QoS 0 among the packets: nobody will send them again."""
        self.bytes = 0
        self._more_messages = self._more_ack_bytes = self._more_afters = 0
        """By how much the places of `firsts` have moved since they were noted."""

    def wait_for(self, call: Call, refuse: Refuse) -> None:
        """Have `call` done before the batch is stored, for the publication that comes next."""
        self.firsts.append(First(len(self.messages), len(self.acks), len(self.afters), len(self.changes), call, refuse))

    def fill(self, accepted: Accepted) -> None:
        """Put what the first of `firsts` came to in its place."""
        first = self.firsts.popleft()
        at = first.messages + self._more_messages
        self.messages[at:at] = accepted.messages
        self._more_messages += len(accepted.messages)
        if accepted.after is not None:
            self.afters.insert(first.afters + self._more_afters, accepted.after)
            self._more_afters += 1
        if accepted.refused is not None and (answer := first.refuse(accepted.refused)):
            at = first.ack_bytes + self._more_ack_bytes
            self.acks[at : at + USUAL_BYTES] = answer
            self._more_ack_bytes += len(answer) - USUAL_BYTES

    def cut(self) -> None:
        """Leave out the publication that waits for the first of `firsts`, and everything behind it."""
        first = self.firsts[0]
        del self.messages[first.messages + self._more_messages :]
        del self.acks[first.ack_bytes + self._more_ack_bytes :]
        del self.afters[first.afters + self._more_afters :]
        del self.changes[first.changes :]
        self.firsts.clear()

    def stored(self) -> None:
        """Its messages are: whatever becomes of the session, they are not submitted again, nor are any of them lost."""
        self.messages = []
        self.packets -= self.unacknowledged
        self.unacknowledged = 0
