"""A deployment compiled and linked: data that the runner walks. Made by `chains.compiler`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec

from engine.node import Node


class RetryPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long a node's `Retry` is believed: whichever limit is reached first makes it a failure."""

    attempts: Annotated[
        int, msgspec.Meta(ge=1, le=100, description="How often the node is tried with one message, the first included.")
    ] = 5
    within_s: Annotated[
        float, msgspec.Meta(ge=1, le=86_400, description="How many seconds after the first try the last may begin.")
    ] = 600.0

    def exhausted(self, attempts: int, for_ms: int) -> bool:
        """Whether a node that was tried so often, over so long, has failed for good."""
        return attempts >= self.attempts or for_ms > self.within_s * 1000


DEFAULT_RETRY: Final = RetryPolicy()


@dataclass(slots=True)
class PlanNode:
    """A node in its place. `name` is its path, unique in the plan: `chain/node`, `chain/call/node` when inlined."""

    name: str
    node: Node
    chain: str
    chain_version: int
    targets: dict[str, list[int]] = field(default_factory=dict)
    """Relation label to indexes of the nodes that the label leads to, in the order of the chain file."""
    retry: RetryPolicy = DEFAULT_RETRY


@dataclass(slots=True)
class Plan:
    """Nodes in topological order (parking nodes cut the cycles they stand on); index 0 need not be the start."""

    tenant: str
    deployment: int
    nodes: list[PlanNode]
    start: int
    rounds: bool = False
    """A node reads what another writes: at most one message per originator at a time."""
    index: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.index = {node.name: i for i, node in enumerate(self.nodes)}
