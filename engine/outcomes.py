"""What a node call gives: the closed vocabulary of outcomes and effects, each naming the message it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from engine.message import Message, Point

SUCCESS, FAILURE = "Success", "Failure"


class Write(msgspec.Struct, frozen=True, array_like=True):
    """Set (with None: delete) a field of a state table of the message's originator. Tables: `attr`, `alarm`, `node`."""

    table: str
    field: str
    value: bytes | None


class Index(msgspec.Struct, frozen=True, array_like=True):
    """Put a member into (with None as score: take it out of) a tenant-wide index of the partition, e.g. `alarms`."""

    table: str
    member: str
    score: float | None


class Hint(msgspec.Struct, frozen=True, array_like=True):
    """Tell every API process of something about the originator: lost if nobody listens, so never the only copy."""

    kind: str
    body: Any


class Broadcast(msgspec.Struct, frozen=True, array_like=True):
    """Tell whoever listens to the tenant's live values what the originator has measured; never the only copy."""

    ts_ms: int
    values: dict[str, Any]


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """Answer the caller that waits for this message, or for the call its metadata names; dropped when nobody does."""

    data: Any
    error: str = ""


class Command(msgspec.Struct, frozen=True, array_like=True):
    """Something for the originator to do: queued under the device until `expires_ms`, at most 100 a device."""

    name: str
    payload: Any
    expires_ms: int
    oneway: bool = False
    call: str = ""
    """Id of the kept call (stores/kept_calls.py) that follows its way; empty: nobody does."""


class Park(msgspec.Struct, frozen=True, array_like=True):
    """Hold the message at this node until `until_ms` (a timer), or until its `command` is answered, whatever is first.

    The message then comes back through the node's `resume`.
    """

    until_ms: int
    command: Command | None = None


Effect = Write | Index | Hint | Broadcast | Reply | Command


class Retry(Exception):
    """Raised (or recorded) when what failed may pass: try the message again, keeping its device's order."""

    def __init__(self, reason: str = "", after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after_s = after_s


class Discard(Exception):
    """Raised when the message shall end here without being a failure."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class Outcomes:
    """What one node call made of its batch. `i` is always the message's index in that batch.

    Every message of the batch needs an outcome: at least one emission, or exactly one of fail, retry, discard, park.
    A message without any is failed by the runner. Emissions and effects of a message that fails are dropped.
    """

    __slots__ = ("discarded", "effects", "emitted", "failed", "parked", "points", "retried", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.emitted: dict[str, list[tuple[int, Message]]] = {}
        self.effects: list[tuple[int, Effect]] = []
        self.points: list[tuple[int, Point]] = []
        self.failed: dict[int, str] = {}
        self.retried: dict[int, Retry] = {}
        self.discarded: dict[int, str] = {}
        self.parked: dict[int, Park] = {}

    def emit(self, i: int, relation: str, message: Message) -> None:
        """Send `message`, made from message `i`, along every connection of `relation`."""
        found = self.emitted.get(relation)
        if found is None:
            self.emitted[relation] = [(i, message)]
        else:
            found.append((i, message))

    def emit_all(self, relation: str, messages: Iterable[tuple[int, Message]]) -> None:
        """Send many at once; they must come in ascending order of their index."""
        self.emitted.setdefault(relation, []).extend(messages)

    def fail(self, i: int, reason: str) -> None:
        """End message `i` as a failure, finally: the same input would fail again."""
        self.failed[i] = reason

    def retry(self, i: int, reason: str, after_s: float | None = None) -> None:
        """Try message `i` again later, its device's later messages waiting behind it."""
        self.retried[i] = Retry(reason, after_s)

    def discard(self, i: int, reason: str = "") -> None:
        """End message `i` here; not a failure."""
        self.discarded[i] = reason

    def park(self, i: int, park: Park) -> None:
        """Hold message `i` durably; it comes back through `resume`."""
        self.parked[i] = park

    def save(self, i: int, points: Sequence[Point]) -> None:
        """Store points with the commit of message `i`."""
        self.points.extend([(i, point) for point in points])

    def effect(self, i: int, effect: Effect) -> None:
        """Make `effect` happen with the commit of message `i`, or not at all."""
        self.effects.append((i, effect))
