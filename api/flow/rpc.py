"""Calls of the server to a device, through the tenant's chain, and the commands that wait for it."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from api.calls import GRACE_S, MOST_WAIT_MS, call_message
from api.flow.devices import ONE as DEVICE
from api.flow.devices import find
from api.flow.operation import Answer, Call, Operation, Parts
from api.flow.problems import Timeout
from engine.errors import BadInput, Conflict
from engine.message import new_id, now_ms
from engine.replies import Waiting

DAY_MS: Final = 86_400_000


class RpcBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call."""

    method: Annotated[str, Meta(min_length=1, max_length=255)]
    params: Any = {}
    oneway: Annotated[bool, Meta(description="Do not wait for an answer.")] = False
    timeout_ms: Annotated[
        int | None,
        Meta(description="How long to wait, 10,000 by default and at most 300,000; one-way: how long the command is "
        "kept for the device, a day by default and at most."),
    ] = None  # fmt: skip


class RpcAnswer(msgspec.Struct, frozen=True):
    """What the device, or the chain, answered."""

    id: Annotated[str, Meta(description="Id of the message that made the call.")]
    data: Any


class Accepted(msgspec.Struct, frozen=True):
    """The call is stored; the device gets it when it can."""

    id: str


class CommandShown(msgspec.Struct, frozen=True, kw_only=True):
    """A command that waits for the device, or for its answer."""

    id: int
    name: str
    payload: Any
    created_ms: int
    expires_ms: int
    oneway: bool
    delivered: bool


class CommandList(msgspec.Struct, frozen=True):
    """Open commands, oldest first."""

    commands: list[CommandShown]


async def call_device(parts: Parts, call: Call) -> Answer:
    """Send a call to the device through the tenant's chain."""
    device = await find(parts, call)
    body: RpcBody = call.body
    most = DAY_MS if body.oneway else MOST_WAIT_MS
    timeout_ms = body.timeout_ms if body.timeout_ms is not None else (DAY_MS if body.oneway else 10_000)
    if not 1 <= timeout_ms <= most:
        raise BadInput(f"must be 1 to {most} milliseconds", "/timeout_ms")
    call_it = partial(
        call_message, parts.messages, device, body.method, body.params,
        id=new_id(), oneway=body.oneway, timeout_ms=timeout_ms, expires_ms=now_ms() + timeout_ms,
    )  # fmt: skip
    if body.oneway:
        message = call_it()
        await parts.messages.submit([message])
        return Answer(202, Accepted(message.id))
    with parts.replies.wait() as waiting:
        message = call_it(reply_to=waiting.to, awaited=True)
        await parts.messages.submit([message])
        data = await _answer(waiting, timeout_ms / 1000 + GRACE_S)
    return Answer(200, RpcAnswer(message.id, data))


async def _answer(waiting: Waiting, timeout_s: float) -> Any:
    """The first reply; Timeout without one, Conflict when the chain ends without asking the device."""
    answer = await waiting.next(timeout_s)
    if answer is None or (answer.kind == "reply" and answer.error == "timeout"):
        raise Timeout("the device did not answer in time")
    if answer.kind == "reply" and not answer.error:
        return answer.data
    raise Conflict(answer.error or "the chain ended without an answer; does it have an rpc_request node?")


async def list_commands(parts: Parts, call: Call) -> Answer:
    """Commands that are not answered yet."""
    device = await find(parts, call)
    shown = [
        CommandShown(
            id=pending.id, name=pending.command.name, payload=pending.command.payload,
            created_ms=pending.command.created_ms, expires_ms=pending.command.expires_ms,
            oneway=pending.command.oneway, delivered=pending.command.delivered,
        )
        for pending in await parts.commands.open(device.tenant, device.id)
    ]  # fmt: skip
    return Answer(200, CommandList(shown))


OPERATIONS: Final = (
    Operation(
        method="POST", path=DEVICE + "/rpc", id="call_device", summary="Call a device, and wait for its answer or not",
        handler=call_device, answers={200: RpcAnswer, 202: Accepted}, body=RpcBody, problems=(409, 504),
    ),
    Operation(
        method="GET", path=DEVICE + "/commands", id="list_commands", summary="List a device's open commands",
        handler=list_commands, answers={200: CommandList},
    ),
)  # fmt: skip
