"""Kind `rpc_request`: has the device do something and waits for its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from nodes import (
    FAILURE,
    SUCCESS,
    BadInput,
    Command,
    Context,
    Example,
    Message,
    Node,
    NodeSpec,
    Outcomes,
    Park,
    Relation,
    Reply,
    Resumed,
)

TIMEOUT: Final = "Timeout"
MAX_WAIT_MS: Final = 86_400_000
"""A command is kept for a day at most,"""
MAX_KEPT_MS: Final = 30 * MAX_WAIT_MS
"""one of a kept call for a month."""


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """How long the device has."""

    timeout_s: Annotated[
        float, Meta(description="Seconds to wait when the message does not say.", gt=0, le=MAX_WAIT_MS / 1000)
    ] = 60.0


class RpcRequest(Node):
    """Sends the method and its parameters to the originator."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="rpc_request",
        category="action",
        summary="Sends a command to the originator and goes on with its answer.",
        description=(
            'The data is `{"method": text, "params": anything}`. The command waits for the device, connected or '
            "not, and the message waits, durably, for the answer, which becomes its data and the answer to whoever "
            "waits for the message. Metadata: `oneway` = `true` goes on at once without an answer; `expirationTime` "
            "(Unix time in milliseconds) or `timeout` (milliseconds) say how long to wait, a day at most. With "
            "`persistent` = `true` the command is that of the call `requestUUID`, whose way can be followed, and waits "
            "a month at most."
        ),
        config=Config,
        relations=(
            Relation(SUCCESS, "The device has answered, or the command was one-way."),
            Relation(TIMEOUT, "No answer came in time; the waiting caller is told."),
            Relation(FAILURE, "The data is no command, or the device answered with an error."),
        ),
        parks=True,
        examples=(Example("Wait a minute", {}), Example("Wait for a sleeping device", {"timeout_s": 3600})),
    )
    config: Config

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        """Send each command; park what waits for an answer."""
        for i, message in enumerate(batch):
            try:
                method, params = _call(message)
                until_ms = self._until_ms(message, ctx.now_ms)
            except BadInput as error:
                out.fail(i, error.reason)
                continue
            oneway = message.metadata.get("oneway") == "true"
            if until_ms <= ctx.now_ms:
                _time_out(i, message, out)
            elif oneway:
                out.effect(i, Command(method, params, until_ms, oneway=True, call=_kept(message)))
                out.emit(i, SUCCESS, message)
            else:
                out.park(i, Park(until_ms, Command(method, params, until_ms, call=_kept(message))))

    async def resume(self, i: int, message: Message, resumed: Resumed, out: Outcomes, ctx: Context) -> None:
        """Go on with the answer, or without one."""
        if resumed.event == "timer":
            _time_out(i, message, out)
        elif resumed.event != "answer":
            out.fail(i, f"a command cannot come back as {resumed.event!r}")
        elif resumed.error:
            # An effect of a failed message is dropped: the caller hears of it when the Failure branch replies.
            out.fail(i, f"the device answered with an error: {resumed.error}")
        else:
            if message.reply_to:
                out.effect(i, Reply(resumed.body))
            out.emit(i, SUCCESS, replace(message, data=resumed.body))

    def _until_ms(self, message: Message, now_ms: int) -> int:
        expires = _number(message, "expirationTime")
        if expires is None:
            wait_ms = _number(message, "timeout")
            expires = now_ms + (int(self.config.timeout_s * 1000) if wait_ms is None else wait_ms)
        return min(expires, now_ms + (MAX_KEPT_MS if _kept(message) else MAX_WAIT_MS))


def _call(message: Message) -> tuple[str, object]:
    data = message.data
    if not isinstance(data, dict):
        raise BadInput("a command is an object with method and params")
    method = data.get("method")
    if not isinstance(method, str) or not method:
        raise BadInput("the command has no method, or it is no text")
    if "params" not in data:
        raise BadInput("the command has no params")
    return method, data["params"]


def _kept(message: Message) -> str:
    """The id of the kept call that the message is of; empty for most."""
    metadata = message.metadata
    return metadata.get("requestUUID", "") if metadata.get("persistent") == "true" else ""


def _number(message: Message, name: str) -> int | None:
    text = message.metadata.get(name)
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise BadInput(f"metadata {name} is not a whole number of milliseconds: {text[:40]!r}") from None


def _time_out(i: int, message: Message, out: Outcomes) -> None:
    if message.reply_to:
        out.effect(i, Reply(None, "timeout"))
    out.emit(i, TIMEOUT, message)
