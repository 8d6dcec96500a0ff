"""Injecting a message, as if the device had sent it."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from api.flow.operation import BASE, Answer, Call, Operation, Parts
from api.flow.tailing import shown_data
from api.flow.times import FAR_MS
from engine.errors import BadInput
from engine.message import Message


class MessageBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message."""

    device: Annotated[str, Meta(min_length=1, description="Id, name or external id of the device it is about.")]
    data: Any = None
    raw_b64: Annotated[str | None, Meta(description="The data as bytes, in place of `data`.")] = None
    type: Annotated[str, Meta(min_length=1, max_length=255)] = "POST_TELEMETRY_REQUEST"
    metadata: dict[str, str] = {}
    ts_ms: Annotated[int | None, Meta(description="Its time; the server's by default.")] = None


class MessageQuery(msgspec.Struct):
    """Whether to wait."""

    sync: Annotated[bool, Meta(description="Wait until every copy of the message has ended.")] = False
    timeout_ms: Annotated[int, Meta(ge=1, le=60_000, description="How long to wait.")] = 10_000


class Injected(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a message. It is stored durably, whatever else is said."""

    id: str
    ended: Annotated[bool, Meta(description="Every copy has ended; else it is still under way, or nobody waited.")]
    error: Annotated[str, Meta(description="Why a copy became a dead letter; empty: none is known.")] = ""
    replies: Annotated[list[Any], Meta(description="Answers that the chain gave while somebody waited.")] = []


async def inject(parts: Parts, call: Call) -> Answer:
    """Store a message, and wait for its end if asked."""
    body: MessageBody = call.body
    if body.ts_ms is not None and not -FAR_MS <= body.ts_ms <= FAR_MS:
        raise BadInput(f"must be -{FAR_MS} to {FAR_MS}", "/ts_ms")
    device = await parts.registry.device(call.tenant, body.device)
    data = data_of(body.data, body.raw_b64)
    message = parts.messages.make(device, body.type, data, body.metadata, ts_ms=body.ts_ms)
    if not call.query.sync:
        await parts.messages.submit([message])
        return Answer(202, Injected(id=message.id, ended=False))
    return await _until_ended(parts, message, call.query.timeout_ms / 1000)


async def _until_ended(parts: Parts, message: Message, timeout_s: float) -> Answer:
    loop = asyncio.get_running_loop()
    replies: list[Any] = []
    with parts.replies.wait() as waiting:
        await parts.messages.submit([msgspec.structs.replace(message, reply_to=waiting.to, awaited=True)])
        deadline = loop.time() + timeout_s
        while (answer := await waiting.next(deadline - loop.time())) is not None:
            if answer.kind == "end":
                return Answer(200, Injected(id=message.id, ended=True, error=answer.error, replies=replies))
            replies.append({"error": answer.error} if answer.error else {"data": shown_data(answer.data)})
    return Answer(202, Injected(id=message.id, ended=False, replies=replies))


def data_of(data: Any, raw_b64: str | None, pointer: str = "") -> Any:
    """The data that a body gives as JSON or as bytes; BadInput for both at once and for what is no base64."""
    if raw_b64 is None:
        return data
    if data is not None:
        raise BadInput("give either data or raw_b64, not both", pointer + "/raw_b64")
    try:
        return base64.b64decode(raw_b64, validate=True)
    except (binascii.Error, ValueError):
        raise BadInput("is not base64", pointer + "/raw_b64") from None


OPERATIONS: Final = (
    Operation(
        method="POST", path=BASE + "/tenants/{tenant}/messages", id="inject_message",
        summary="Inject a message into the tenant's chain", handler=inject,
        answers={200: Injected, 202: Injected}, query=MessageQuery, body=MessageBody,
    ),
)  # fmt: skip
