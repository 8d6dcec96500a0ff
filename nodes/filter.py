"""Kind `filter`: sends a message one way or the other, as a Lua or JavaScript condition says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from nodes import FAILURE, Build, Context, Example, Finding, Message, Node, NodeSpec, Outcomes, Relation
from nodes.scripting import CALLING, ScriptConfig, check_config, kind_of, run_batch, script_of, settled


class Config(ScriptConfig, forbid_unknown_fields=True):
    """The script of the condition."""


class Filter(Node):
    """Sends each message to True or False."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="filter",
        category="filter",
        summary="Asks a Lua or JavaScript condition about a message and sends it on by True or False.",
        description="The script returns a boolean; anything else fails the message. " + CALLING,
        config=Config,
        relations=(
            Relation("True", "The script returned true."),
            Relation("False", "The script returned false."),
            Relation(FAILURE, "The script failed, broke a limit, or returned something else."),
        ),
        examples=(
            Example("Too hot", {"source": "return msg.temperature > 40"}),
            Example("Only what has a position, in JavaScript", {"lang": "js", "source": "return 'lat' in msg;"}),
        ),
    )

    def __init__(self, config: Config, build: Build) -> None:
        super().__init__(config, build)
        self._script = script_of(config, build)

    @classmethod
    def check(cls, config: Config, build: Build) -> list[Finding]:
        """Whether there is a script and it compiles."""
        return check_config(config, build)

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        """Run the condition for the batch."""
        for i, value in enumerate(run_batch(self._script, batch, ctx)):
            if value is True:
                out.emit(i, "True", batch[i])
            elif value is False:
                out.emit(i, "False", batch[i])
            elif not settled(i, value, out):
                out.fail(i, f"the script returned {kind_of(value)}: a filter returns true or false")
