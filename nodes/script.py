"""Kind `script`: transforms a message with a Lua or JavaScript function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
from msgspec.structs import replace

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
    Relation,
)
from nodes.scripting import CALLING, ScriptConfig, check_config, kind_of, run_batch, script_of, settled

PARTS = frozenset(("msg", "metadata", "msgType"))


class Config(ScriptConfig, forbid_unknown_fields=True):
    """The transforming script."""


class ScriptNode(Node):
    """Gives for each message what the script makes of it."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="script",
        category="transform",
        summary="Changes data, metadata and type of a message with a Lua or JavaScript function.",
        description=(
            "The script returns an object with any of `msg`, `metadata` and `msgType`; what it leaves out stays as it "
            "was. A list of such objects makes several messages, an empty list ends the message. Metadata holds texts: "
            "numbers and booleans become text, anything else is an error. "
        )
        + CALLING,
        config=Config,
        relations=(
            Relation(SUCCESS, "The script returned one or more messages."),
            Relation(FAILURE, "The script failed, broke a limit, or returned something else."),
        ),
        examples=(
            Example(
                "Degrees Celsius to Fahrenheit",
                {"source": ["msg.fahrenheit = msg.temperature * 9 / 5 + 32", "return {msg = msg}"]},
            ),
            Example(
                "Answer a request for the time, in JavaScript",
                {
                    "lang": "js",
                    "source": "return {msg: {time:String(new Date())}, metadata: metadata, msgType: msgType};",
                },
            ),
            Example(
                "One message per value",
                {
                    "source": [
                        "local out = list()",
                        "for key, value in pairs(msg) do",
                        "  out[#out + 1] = {msg = {[key] = value}}",
                        "end",
                        "return out",
                    ]
                },
            ),
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
        """Run the script for the batch and emit what it returned."""
        made: list[tuple[int, Message]] = []
        for i, value in enumerate(run_batch(self._script, batch, ctx)):
            try:
                if type(value) is dict:
                    made.append((i, _changed(batch[i], value)))
                elif type(value) is list and value:
                    made += [(i, new) for new in [_changed(batch[i], parts) for parts in value]]
                elif value == []:
                    out.discard(i, "the script returned no message")
                elif not settled(i, value, out):
                    raise _not_parts(value)
            except BadInput as error:
                out.fail(i, error.reason)
        if made:
            out.emit_all(SUCCESS, made)


def _changed(message: Message, parts: Any) -> Message:
    """The message with what the script returned in place of what it was."""
    if type(parts) is not dict:
        raise _not_parts(parts)
    if len(parts) == 1 and "msg" in parts:
        return replace(message, data=parts["msg"])
    if unknown := parts.keys() - PARTS:
        raise BadInput(f"the script returned {min(unknown)!r}: only msg, metadata and msgType are known")
    msg_type = parts.get("msgType", message.type)
    if not isinstance(msg_type, str) or not msg_type:
        raise BadInput(f"the script returned {kind_of(msg_type)} as msgType: it is a text, and not empty")
    return replace(
        message,
        data=parts.get("msg", message.data),
        type=msg_type,
        metadata=_metadata(parts["metadata"]) if "metadata" in parts else message.metadata,
    )


def _not_parts(value: Any) -> BadInput:
    return BadInput(f"the script returned {kind_of(value)}: return an object of msg, metadata and msgType")


def _metadata(given: Any) -> dict[str, str]:
    if not isinstance(given, dict):
        raise BadInput(f"the script returned {kind_of(given)} as metadata: it is an object")
    for value in given.values():
        if type(value) is not str:
            return {key: value if isinstance(value, str) else _text(key, value) for key, value in given.items()}
    return given


def _text(key: str, value: Any) -> str:
    if not isinstance(value, bool | int | float):
        raise BadInput(f"the script returned {kind_of(value)} as metadata.{key}: it is a text")
    return msgspec.json.encode(value).decode()
