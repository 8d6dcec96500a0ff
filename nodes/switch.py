"""Kind `switch`: sends a message along the relations that a Lua or JavaScript function names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from nodes import FAILURE, BadInput, Build, Context, Example, Finding, Message, Node, NodeSpec, Outcomes, Relation
from nodes.scripting import CALLING, ScriptConfig, check_config, kind_of, run_batch, script_of, settled


class Config(ScriptConfig, forbid_unknown_fields=True):
    """The choosing script."""


class Switch(Node):
    """Sends each message along the relations that its script returned."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="switch",
        category="filter",
        summary="Asks a Lua or JavaScript function along which relations a message goes on.",
        description=(
            "The script returns a list of relation names, or one name. A name that comes twice counts once; a name "
            "without a connection ends that copy; an empty list ends the message. "
        )
        + CALLING,
        config=Config,
        relations=(Relation(FAILURE, "The script failed, broke a limit, or returned something else."),),
        open_relations=True,
        examples=(
            Example(
                "By temperature",
                {"source": ["if msg.temperature > 40 then return 'hot' end", "return {'normal', 'archive'}"]},
            ),
            Example("By the device's model, in JavaScript", {"lang": "js", "source": "return [metadata.model];"}),
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
        """Run the function for the batch."""
        for i, value in enumerate(run_batch(self._script, batch, ctx)):
            if type(value) is str and value:
                out.emit(i, value, batch[i])
                continue
            if settled(i, value, out):
                continue
            try:
                names = _names(value)
            except BadInput as error:
                out.fail(i, error.reason)
                continue
            for name in names:
                out.emit(i, name, batch[i])
            if not names:
                out.discard(i, "the script named no relation")


def _names(value: Any) -> list[str]:
    """Relation names without repeats. Lua's `{}` is an empty list here."""
    listed = [value] if isinstance(value, str) else [] if value == {} else value
    if not isinstance(listed, list):
        raise BadInput(f"the script returned {kind_of(value)}: a switch returns relation names")
    for name in listed:
        if not isinstance(name, str) or not name:
            what = "an empty text" if name == "" else kind_of(name)
            raise BadInput(f"the script returned {what} among the relation names")
    return list(dict.fromkeys(listed))
