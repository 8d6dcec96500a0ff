"""What running a batch would do: collected by the runner, made into commands by `commit`, looked at by chain tests."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from engine.entries import LaneItem
from engine.message import Message, Point
from engine.node import Resumed
from engine.outcomes import Command, Effect


class DeadLetter(msgspec.Struct, frozen=True, array_like=True):
    """A message that ended in failure: where, why, and as what."""

    id: str
    message: Message
    node: str
    chain: str
    chain_version: int
    reason: str
    at_ms: int
    resumed: Resumed | None = None


class Step(msgspec.Struct, frozen=True, array_like=True):
    """One node's dealing with one message. `relation` is the label taken, or one of the ends below in capitals."""

    message: Message
    node: str
    kind: str
    relation: str
    error: str = ""


ENDED = "END"
PARKED, RETRIED, DISCARDED, DEAD = "PARKED", "RETRY", "DISCARD", "DEAD"


@dataclass(slots=True)
class ParkRequest:
    """A message to be parked: the commit gives it its place in the order."""

    message: Message
    kind: str
    due_ms: int
    command: Command | None = None


@dataclass(slots=True)
class Effects:
    """Everything a batch did, each with the position of the batch item that it came from."""

    points: list[tuple[int, Point]] = field(default_factory=list)
    effects: list[tuple[int, Message, Effect]] = field(default_factory=list)
    parked: list[tuple[int, ParkRequest]] = field(default_factory=list)
    dead: list[tuple[int, DeadLetter]] = field(default_factory=list)
    lanes: list[tuple[int, LaneItem, str]] = field(default_factory=list)
    """Messages that go into their originator's lane, in order; with the reason when the item opens the lane."""
    retry_after_s: dict[str, float | None] = field(default_factory=dict)
    """Originators whose lane this batch opened or kept closed: when to try again, None for the usual back-off."""
    unfinished: set[int] = field(default_factory=set)
    """Positions with a copy that was parked or went into a lane: their callers are told later."""
    failures: dict[int, str] = field(default_factory=dict)
    """Positions with a copy that became a dead letter: the first reason."""
    steps: list[tuple[int, Step]] = field(default_factory=list)
    """Filled only when the run is traced."""
