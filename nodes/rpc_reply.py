"""Kind `rpc_reply`: answers the caller that waits for the message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from nodes import FAILURE, SUCCESS, Context, Example, Message, Node, NodeSpec, Outcomes, Relation, Reply, caller_of


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """No settings."""


class RpcReply(Node):
    """Makes the message's data the answer."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="rpc_reply",
        category="action",
        summary="Answers the waiting caller with the message's data.",
        description=(
            "For calls of devices (type TO_SERVER_RPC_REQUEST), events and every other message whose sender waits. "
            "The first answer counts; one that comes after the caller's timeout is dropped. Another message answers a "
            "call of a ThingsBoard device later if its metadata has the call's serviceId, sessionId and requestId."
        ),
        config=Config,
        relations=(
            Relation(SUCCESS, "The answer is on its way."),
            Relation(FAILURE, "Nobody waits for this message, or it has no data."),
        ),
        examples=(Example("Answer with the data", {}),),
    )

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        """Reply to each."""
        for i, message in enumerate(batch):
            if not caller_of(message):
                out.fail(i, "nobody waits for an answer to this message")
            elif message.data is None:
                out.fail(i, "the message has no data to answer with")
            else:
                out.effect(i, Reply(message.data))
                out.emit(i, SUCCESS, message)
