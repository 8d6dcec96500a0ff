"""How messages end, for the time being or for good: what the runner writes down of each into the Effects."""

from __future__ import annotations

from msgspec.structs import replace

from engine.effects import DEAD, PARKED, DeadLetter, Effects, ParkRequest, Step
from engine.entries import LaneItem
from engine.message import Message
from engine.node import CallNode, Resumed
from engine.outcomes import Park
from engine.plan import PlanNode


class Ends:
    """Notes parked, retried and failed messages of one run, and steps if it is traced."""

    def __init__(self, effects: Effects, trace: bool, now_ms: int) -> None:
        self.effects, self._trace, self._now_ms = effects, trace, now_ms

    def park(self, position: int, message: Message, plan_node: PlanNode, park: Park) -> None:
        """The message waits durably at this node."""
        kind = "call" if isinstance(plan_node.node, CallNode) else "answer" if park.command else "timer"
        waiting = replace(message, node=plan_node.name, hops=message.hops + 1)
        self.effects.parked.append((position, ParkRequest(waiting, kind, park.until_ms, park.command)))
        self.effects.unfinished.add(position)
        self.step(position, message, plan_node, PARKED, "")

    def lane(self, position: int, item: LaneItem, reason: str) -> None:
        """The message goes into its originator's lane; `reason` when it opens it."""
        self.effects.lanes.append((position, item, reason))
        self.effects.unfinished.add(position)

    def dead(
        self, position: int, message: Message, plan_node: PlanNode, reason: str, resumed: Resumed | None = None
    ) -> None:
        """The message ended in failure."""
        letter = DeadLetter(
            f"{message.id}{message.copy}:{message.hops}",
            replace(message, node=plan_node.name),
            plan_node.name,
            plan_node.chain,
            plan_node.chain_version,
            reason,
            self._now_ms,
            resumed,
        )
        self.effects.dead.append((position, letter))
        self.effects.failures.setdefault(position, f"{plan_node.name}: {reason}")
        self.step(position, message, plan_node, DEAD, reason)

    def step(self, position: int, message: Message, plan_node: PlanNode, relation: str, error: str) -> None:
        """One step of the trace."""
        if self._trace:
            kind = plan_node.node.spec.kind if plan_node.node is not None else ""
            self.effects.steps.append((position, Step(message, plan_node.name, kind, relation, error)))
