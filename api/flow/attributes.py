"""Attributes of a device, in each scope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from api.flow.devices import ONE as DEVICE
from api.flow.devices import find
from api.flow.operation import Answer, Call, Operation, Parts
from engine.errors import BadInput
from engine.stores.attributes import SCOPES, Scope, scope_named
from nodes.codecs.values import pointer_step


class AttributeShown(msgspec.Struct, frozen=True):
    """A value and when it was set."""

    value: Any
    ts_ms: int


class Attributes(msgspec.Struct, frozen=True):
    """Attributes by scope and key."""

    attributes: dict[Scope, dict[str, AttributeShown]]


class AttributeQuery(msgspec.Struct):
    """Which attributes."""

    scope: Annotated[list[Scope], Meta(description="Only these scopes; none: all.")] = []


class KeyQuery(msgspec.Struct):
    """Which keys."""

    key: Annotated[list[str], Meta(min_length=1, max_length=1000, description="A key to delete; may be repeated.")]


async def get_attributes(parts: Parts, call: Call) -> Answer:
    """All attributes of the scopes asked for."""
    device = await find(parts, call)
    found = await parts.attributes.read(device.tenant, device.id)
    return Answer(200, _shown(found, call.query.scope or SCOPES))


async def put_attributes(parts: Parts, call: Call) -> Answer:
    """Set keys of one scope; others stay. A device that waits for shared attributes is told."""
    device = await find(parts, call)
    scope = scope_named(call.path["scope"])
    for key, value in call.body.items():
        if value is None:
            raise BadInput("a value cannot be null; delete the key instead", pointer_step(key))
    if call.body:
        parts.messages.admit()
        await parts.attributes.write(device.tenant, device.id, scope, call.body)
        await parts.messages.attributes_updated(device, scope, call.body)
    return Answer(204)


async def delete_attributes(parts: Parts, call: Call) -> Answer:
    """Delete keys of one scope; those that are not there are no error."""
    device = await find(parts, call)
    scope = scope_named(call.path["scope"])
    parts.messages.admit()
    if await parts.attributes.delete(device.tenant, device.id, scope, call.query.key):
        await parts.messages.attributes_deleted(device, scope, call.query.key)
    return Answer(204)


def _shown(found: Mapping[Scope, Mapping[str, tuple[Any, int]]], scopes: list[Scope] | tuple[Scope, ...]) -> Attributes:
    return Attributes(
        {
            scope: {key: AttributeShown(value, ts_ms) for key, (value, ts_ms) in sorted(found.get(scope, {}).items())}
            for scope in scopes
        }
    )


_ALL: Final = DEVICE + "/attributes"

OPERATIONS: Final = (
    Operation(
        method="GET", path=_ALL, id="get_attributes", summary="Show a device's attributes",
        handler=get_attributes, answers={200: Attributes}, query=AttributeQuery,
    ),
    Operation(
        method="PUT", path=_ALL + "/{scope}", id="put_attributes", summary="Set attributes of one scope",
        handler=put_attributes, answers={204: None}, body=dict[str, Any],
    ),
    Operation(
        method="DELETE", path=_ALL + "/{scope}", id="delete_attributes", summary="Delete attributes of one scope",
        handler=delete_attributes, answers={204: None}, query=KeyQuery,
    ),
)  # fmt: skip
