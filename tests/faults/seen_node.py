"""A plug-in node that writes down what it sees: `<device> <seq> <monotonic seconds>`, one line a message, at once."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from nodes import Build, Context, Message, Node, NodeSpec, Outcomes, Relation


class NoConfig(msgspec.Struct, forbid_unknown_fields=True):
    pass


class Seen(Node):
    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="seen", category="action", summary="Writes down what it sees.", description="For tests.",
        config=NoConfig, relations=(Relation("Success", "Always."),),
    )  # fmt: skip

    def __init__(self, config: Any, build: Build) -> None:
        self._log = os.open(os.environ["RULEMILL_TEST_SEEN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        now = time.monotonic()
        lines = [f"{m.originator} {m.data['seq']} {now:.3f}\n" for m in batch]
        os.write(self._log, "".join(lines).encode())
        for m in batch:
            if m.data.get("poison") == "abort":
                os.abort()
            while m.data.get("poison") == "hang":
                time.sleep(1)
        out.emit_all("Success", enumerate(batch))
