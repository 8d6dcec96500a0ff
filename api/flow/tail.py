"""A live look into a tenant's chains: lines of JSON for as long as somebody reads."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from api.flow.operation import BASE, Call, Lines, Operation, Parts

MEDIA: Final = "application/x-ndjson"


class TailQuery(msgspec.Struct):
    """What to watch."""

    device: Annotated[str, Meta(description="Id, name or external id of a device; empty: all.")] = ""


async def tail(parts: Parts, call: Call) -> Lines:
    """Every step of every message of the tenant, from now on."""
    device = (await parts.registry.device(call.tenant, call.query.device)).id if call.query.device else ""
    return Lines(await parts.tail.watch(call.tenant, device))


OPERATIONS: Final = (
    Operation(
        method="GET", path=BASE + "/tenants/{tenant}/tail", id="tail",
        summary="Watch messages and what nodes do with them, as lines of JSON", handler=tail, answers={200: Any},
        query=TailQuery, media=MEDIA,
    ),
)  # fmt: skip
