"""Kind `delay`: holds messages for a time."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import Meta

from nodes import (
    FAILURE,
    SUCCESS,
    BadInput,
    Build,
    Context,
    Example,
    Finding,
    Message,
    Node,
    NodeSpec,
    Outcomes,
    Park,
    Relation,
    Resumed,
)
from nodes.templates import Template

MAX_DELAY_S: Final = 366 * 86_400


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """How long."""

    delay_s: Annotated[
        float | str,
        Meta(description="Seconds, a number or a template that gives one, such as `${delay}`; a year at most."),
    ] = 60.0


class Delay(Node):
    """Lets a message go on after a time."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="delay",
        category="flow",
        summary="Holds each message for a time, then lets it go on unchanged.",
        description=(
            "The wait survives restarts. Each message waits by itself: later messages of the same device with a "
            "shorter delay overtake it. The time counts from when the message reaches this node."
        ),
        config=Config,
        relations=(
            Relation(SUCCESS, "The time is over."),
            Relation(FAILURE, "The template gives no number from 0 to a year, or asks for a key that is missing."),
        ),
        parks=True,
        examples=(
            Example("Ten minutes", {"delay_s": 600}),
            Example("As long as the message says", {"delay_s": "${delay}"}),
        ),
    )
    config: Config

    def __init__(self, config: Config, build: Build) -> None:
        super().__init__(config, build)
        self._template = Template(config.delay_s) if isinstance(config.delay_s, str) else None

    @classmethod
    def check(cls, config: Config, build: Build) -> list[Finding]:
        """A delay out of bounds, or a template that does not compile."""
        try:
            if not isinstance(config.delay_s, str):
                _in_bounds(config.delay_s)
            elif (template := Template(config.delay_s)).constant:
                _seconds(template.text)
        except BadInput as error:
            return [Finding("/delay_s", error.reason)]
        return []

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        """Park each."""
        for i, message in enumerate(batch):
            try:
                out.park(i, Park(ctx.now_ms + int(self._delay_s(message) * 1000)))
            except BadInput as error:
                out.fail(i, error.reason)

    async def resume(self, i: int, message: Message, resumed: Resumed, out: Outcomes, ctx: Context) -> None:
        """Let it go on."""
        if resumed.event == "timer":
            out.emit(i, SUCCESS, message)
        else:
            out.fail(i, f"a delayed message cannot come back as {resumed.event!r}")

    def _delay_s(self, message: Message) -> float:
        if self._template is not None:
            return _seconds(self._template.render(message))
        assert not isinstance(self.config.delay_s, str)
        return self.config.delay_s


def _seconds(text: str) -> float:
    try:
        return _in_bounds(float(text))
    except ValueError:
        raise BadInput(f"the delay is not a number of seconds: {text[:40]!r}") from None


def _in_bounds(delay_s: float) -> float:
    if not isfinite(delay_s) or not 0 <= delay_s <= MAX_DELAY_S:
        raise BadInput(f"a delay is 0 to {MAX_DELAY_S} seconds, not {delay_s}")
    return delay_s
