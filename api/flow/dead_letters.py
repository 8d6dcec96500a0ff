"""Dead letters: messages that ended in failure."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from api.flow.operation import BASE, Answer, Call, Operation, Parts
from api.flow.tailing import shown_data
from engine.effects import DeadLetter


class LetterShown(msgspec.Struct, frozen=True, kw_only=True):
    """A message that ended in failure: where, why, and as what."""

    id: str
    at_ms: int
    node: Annotated[str, Meta(description="Path of the node it failed at; empty: no node has seen it.")]
    chain: str
    chain_version: int
    deployment: int
    reason: str
    message_id: str
    type: str
    originator: str
    ts_ms: int
    data: Annotated[Any, Meta(description="Bytes are shown as `{raw_b64}`.")]
    metadata: dict[str, str]


class LetterList(msgspec.Struct, frozen=True):
    """Dead letters, the newest first; `cursor` continues the list, empty at its end."""

    dead_letters: list[LetterShown]
    cursor: str


class LetterQuery(msgspec.Struct):
    """Which part of the list."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    cursor: str = ""


class RedriveBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to run it again."""

    from_start: Annotated[
        bool, Meta(description="From the start of the root chain in place of the node it failed at.")
    ] = False


async def list_dead_letters(parts: Parts, call: Call) -> Answer:
    """A part of the tenant's dead letters."""
    letters, cursor = await parts.dead_letters.page(call.tenant, limit=call.query.limit, cursor=call.query.cursor)
    return Answer(200, LetterList([_shown(letter) for letter in letters], cursor))


async def get_dead_letter(parts: Parts, call: Call) -> Answer:
    """One dead letter."""
    return Answer(200, _shown(await parts.dead_letters.get(call.tenant, call.path["letter"])))


async def redrive_dead_letter(parts: Parts, call: Call) -> Answer:
    """Run its message again on what is deployed now."""
    from_start = call.body is not None and call.body.from_start
    await parts.dead_letters.redrive(call.tenant, call.path["letter"], from_start=from_start)
    return Answer(204)


async def drop_dead_letter(parts: Parts, call: Call) -> Answer:
    """Forget it."""
    await parts.dead_letters.drop(call.tenant, call.path["letter"])
    return Answer(204)


def _shown(letter: DeadLetter) -> LetterShown:
    message = letter.message
    return LetterShown(
        id=letter.id, at_ms=letter.at_ms, node=letter.node, chain=letter.chain, chain_version=letter.chain_version,
        deployment=message.deployment, reason=letter.reason, message_id=message.id, type=message.type,
        originator=message.originator, ts_ms=message.ts_ms, data=shown_data(message.data), metadata=message.metadata,
    )  # fmt: skip


_ALL: Final = BASE + "/tenants/{tenant}/dead-letters"

OPERATIONS: Final = (
    Operation(
        method="GET", path=_ALL, id="list_dead_letters", summary="List a tenant's dead letters",
        handler=list_dead_letters, answers={200: LetterList}, query=LetterQuery,
    ),
    Operation(
        method="GET", path=_ALL + "/{letter}", id="get_dead_letter", summary="Show a dead letter",
        handler=get_dead_letter, answers={200: LetterShown},
    ),
    Operation(
        method="POST", path=_ALL + "/{letter}/redrive", id="redrive_dead_letter",
        summary="Run a dead letter's message again", handler=redrive_dead_letter, answers={204: None},
        body=RedriveBody, body_optional=True,
    ),
    Operation(
        method="DELETE", path=_ALL + "/{letter}", id="drop_dead_letter", summary="Forget a dead letter",
        handler=drop_dead_letter, answers={204: None},
    ),
)  # fmt: skip
