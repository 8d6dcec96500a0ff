"""A catalogue of toy kinds: what the compiler must know of kinds, without any that do something."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from engine.errors import BadInput, Finding, ScriptError
from engine.node import Build, CallNode, Node, NodeSpec, Relation
from engine.outcomes import FAILURE, SUCCESS
from nodes.chain import Chain
from nodes.output import Output

DONE = (Relation(SUCCESS, "It is done."), Relation(FAILURE, "It is not."))


class Nothing(msgspec.Struct, frozen=True):
    pass


class Limits(msgspec.Struct, frozen=True):
    low: float = 0
    high: float = 1


class StepConfig(msgspec.Struct, frozen=True):
    key: Annotated[str, msgspec.Meta(min_length=1, max_length=10)] = "k"
    times: Annotated[int, msgspec.Meta(ge=1, le=10)] | None = None
    limits: Limits | Literal["none"] = "none"
    rows: list[Limits] = []
    by_name: dict[str, int] = {}
    secret: str = ""
    file: str = ""


class Step(Node):
    """Does one thing."""

    spec = NodeSpec(
        kind="step", category="action", summary="A step.", description="", config=StepConfig, relations=DONE
    )

    def __init__(self, config: StepConfig, build: Build) -> None:
        super().__init__(config, build)
        self.build = build
        self.secret = build.secret(config.secret) if config.secret else ""
        self.file = build.file(config.file) if config.file else ""

    @classmethod
    def check(cls, config: StepConfig, build: Build) -> list[Finding]:
        if isinstance(config.limits, Limits) and config.limits.low > config.limits.high:
            return [
                Finding("/limits/low", "is above the high limit"),
                Finding("/limits/high", "is below the low limit"),
            ]
        return []


class ScriptConfig(msgspec.Struct, frozen=True):
    source: str
    relations: list[str] | None = None


class Script(Node):
    """Pretends to compile a script."""

    spec = NodeSpec(
        kind="script",
        category="transform",
        summary="A script.",
        description="",
        config=ScriptConfig,
        relations=DONE,
        open_relations=True,
    )

    def __init__(self, config: ScriptConfig, build: Build) -> None:
        super().__init__(config, build)
        if "syntax" in config.source:
            raise ScriptError("unexpected symbol near 'syntax'", 3)
        if config.source == "broken kind":
            raise KeyError("oops")
        if config.source == "value":
            raise ValueError("refused")
        if config.source == "input":
            raise BadInput("is refused here", "/source")

    def relations(self) -> frozenset[str] | None:
        return None if self.config.relations is None else frozenset(self.config.relations)


class StateConfig(msgspec.Struct, frozen=True):
    reads: list[str] = []
    writes: list[str] = []


class State(Node):
    """Reads and writes state."""

    spec = NodeSpec(
        kind="state", category="action", summary="State.", description="", config=StateConfig, relations=DONE
    )

    def reads(self) -> frozenset[str]:
        return frozenset(self.config.reads)

    def writes(self) -> frozenset[str]:
        return frozenset(self.config.writes)


class Delay(Node):
    """Parks."""

    spec = NodeSpec(
        kind="delay", category="flow", summary="Waits.", description="", config=Nothing, relations=DONE, parks=True
    )


class Call(CallNode):
    """Calls the world."""

    spec = NodeSpec(kind="call", category="external", summary="Calls.", description="", config=Nothing, relations=DONE)


class Kinds:
    def __init__(self, *kinds: type[Node]) -> None:
        self.kinds = {kind.spec.kind: kind for kind in kinds}


CATALOGUE = Kinds(Step, Script, State, Delay, Call, Chain, Output)
