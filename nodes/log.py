"""Kind `log`: one line per message in the server's log."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
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
    Relation,
)
from nodes.templates import Template

log: Final = logging.getLogger("rulemill.log")

MAX_CHARACTERS: Final = 2_000

# C0 and C1 controls, line and paragraph separators, and what turns the direction of text: none may forge a line.
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """What is written."""

    text: Annotated[
        str, Meta(description="The line, a template; empty: type, originator, data and metadata of the message.")
    ] = ""


class Log(Node):
    """Writes a line and passes the message on."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="log",
        category="action",
        summary="Writes one line per message to the server's log.",
        description=(
            "Level INFO, logger `rulemill.log`, with tenant, chain and node in front. Control characters are escaped "
            f"and a line ends after {MAX_CHARACTERS} characters. Secrets cannot be logged."
        ),
        config=Config,
        relations=(
            Relation(SUCCESS, "The line is written."),
            Relation(FAILURE, "The template asks for a key that is missing."),
        ),
        examples=(
            Example("The whole message", {}),
            Example("A line of your own", {"text": "${deviceName} is at $[temperature]"}),
        ),
    )
    config: Config

    def __init__(self, config: Config, build: Build) -> None:
        super().__init__(config, build)
        self._place = f"{build.tenant} {build.chain}/{build.node}"
        self._template = Template(config.text) if config.text else None

    @classmethod
    def check(cls, config: Config, build: Build) -> list[Finding]:
        """A template that does not compile."""
        try:
            Template(config.text)
        except BadInput as error:
            return [Finding("/text", error.reason)]
        return []

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        """Write a line for each."""
        wanted = log.isEnabledFor(logging.INFO)
        for i, message in enumerate(batch):
            try:
                # Rendered even when nobody reads it: whether a message fails may not depend on the log level.
                text = _whole(message) if self._template is None else self._template.render(message)
            except BadInput as error:
                out.fail(i, error.reason)
                continue
            if wanted:
                log.info("%s: %s", escaped(self._place), escaped(text))
            out.emit(i, SUCCESS, message)


def escaped(text: str) -> str:
    """`text` on one line, cut to its limit, with everything that could pass for another line made visible."""
    left_out = len(text) - MAX_CHARACTERS
    shown = _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text[:MAX_CHARACTERS])
    return f"{shown}… ({left_out} characters more)" if left_out > 0 else shown


def _whole(message: Message) -> str:
    parts = {"type": message.type, "originator": message.originator, "data": message.data, "metadata": message.metadata}
    try:
        return msgspec.json.encode(parts).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"the message has no text: {error}") from error
