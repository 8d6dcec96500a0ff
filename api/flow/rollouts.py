"""Which firmware and software devices shall have, and how far they are with it."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from api.flow.devices import ONE as DEVICE
from api.flow.devices import find
from api.flow.firmware import product_of
from api.flow.operation import BASE, Answer, Call, Operation, Parts
from engine.errors import BadInput, NotFound
from engine.stores.firmware import KINDS, PREFIXES, Kind
from engine.stores.registry import Device
from engine.stores.rollouts import Rollout


class AssignBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An assignment."""

    firmware: Annotated[str, Meta(description="Id of an image of the product, of the kind in the path.")]


class RolloutList(msgspec.Struct, frozen=True):
    """The last rollout of each kind."""

    rollouts: list[Rollout]


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of package on one device; what nobody has said yet is empty."""

    device: str
    device_name: str
    kind: Kind
    firmware: Annotated[str, Meta(description="Id of the image that the device shall have.")]
    own: Annotated[bool, Meta(description="Assigned to the device itself, not by its product.")]
    state: Annotated[str, Meta(description="The last that was told: QUEUED, INITIATED, DOWNLOADING … UPDATED, FAILED.")]
    state_ms: int
    error: str
    current_title: str
    current_version: str
    target_title: str
    target_version: str


class UpdateList(msgspec.Struct, frozen=True):
    """Updates of devices by name; `after` continues the list, empty at its end."""

    updates: list[Update]
    after: str


class UpdatesQuery(msgspec.Struct):
    """Which part of the list."""

    limit: Annotated[int, Meta(ge=1, le=1000, description="Devices of the tenant that are looked at.")] = 100
    after: Annotated[str, Meta(description="Devices behind this name.")] = ""


async def list_rollouts(parts: Parts, call: Call) -> Answer:
    """How far the product's devices have been told of what is assigned."""
    return Answer(200, RolloutList(await parts.rollouts.of(await product_of(parts, call))))


async def assign_product(parts: Parts, call: Call) -> Answer:
    """Assign an image; devices are told in the background."""
    product, kind = await product_of(parts, call), _kind(call)
    await _image(parts, product, kind, call.body.firmware)
    return Answer(202, await parts.rollouts.assign_product(call.tenant, product, kind, call.body.firmware))


async def unassign_product(parts: Parts, call: Call) -> Answer:
    """Assign nothing any more; devices without an image of their own are told in the background."""
    product, kind = await product_of(parts, call), _kind(call)
    return Answer(202, await parts.rollouts.assign_product(call.tenant, product, kind, ""))


async def assign_device(parts: Parts, call: Call) -> Answer:
    """Assign an image to one device, whatever its product has."""
    device, kind = await find(parts, call), _kind(call)
    if not device.product:
        raise BadInput(f"device {device.name!r} has no product, and images are those of products")
    await _image(parts, device.product, kind, call.body.firmware)
    await parts.rollouts.assign_device(device.id, device.product, kind, call.body.firmware)
    return Answer(204)


async def unassign_device(parts: Parts, call: Call) -> Answer:
    """The device has what its product has."""
    device, kind = await find(parts, call), _kind(call)
    await parts.rollouts.assign_device(device.id, device.product, kind, "")
    return Answer(204)


async def get_updates(parts: Parts, call: Call) -> Answer:
    """What a device shall have, and what it has said of it."""
    return Answer(200, UpdateList(await _updates(parts, await find(parts, call)), ""))


async def list_updates(parts: Parts, call: Call) -> Answer:
    """The same of all devices of a product, some at a time."""
    product, query = await product_of(parts, call), call.query
    devices = await parts.registry.devices(call.tenant, limit=query.limit, after=query.after)
    updates: list[Update] = []
    for device in devices:
        if device.product == product:
            updates += await _updates(parts, device)
    return Answer(200, UpdateList(updates, devices[-1].name if len(devices) == query.limit else ""))


async def _updates(parts: Parts, device: Device) -> list[Update]:
    assigned = await parts.rollouts.of_device(device.id, device.product)
    if not assigned:
        return []
    names = ("{}_state", "{}_error", "current_{}_title", "current_{}_version", "target_{}_title", "target_{}_version")
    keys = [name.format(PREFIXES[kind]) for kind in assigned for name in names]
    points = {point.key: point for point in await parts.store.latest(device.tenant, [device.id], keys)}

    def told(name: str) -> Any:
        return points[name].value if name in points else ""

    found = []
    for kind, assignment in assigned.items():
        prefix = PREFIXES[kind]
        state = points.get(f"{prefix}_state")
        found.append(
            Update(
                device=device.id, device_name=device.name, kind=kind, firmware=assignment.image, own=assignment.own,
                state=str(told(f"{prefix}_state")), state_ms=state.ts_ms if state else 0,
                error=str(told(f"{prefix}_error")), current_title=str(told(f"current_{prefix}_title")),
                current_version=str(told(f"current_{prefix}_version")),
                target_title=str(told(f"target_{prefix}_title")),
                target_version=str(told(f"target_{prefix}_version")),
            )
        )  # fmt: skip
    return found


def _kind(call: Call) -> Kind:
    for kind in KINDS:
        if call.path["kind"].upper() == kind:
            return kind
    raise NotFound("kind of package", call.path["kind"])


async def _image(parts: Parts, product: str, kind: Kind, id: str) -> None:
    image = await parts.firmware.get(product, id)
    if image.kind != kind:
        raise BadInput(f"{id!r} is {image.kind}", "/firmware")


_PRODUCT: Final = BASE + "/tenants/{tenant}/products/{product}"
_OF_PRODUCT: Final = _PRODUCT + "/rollouts/{kind}"
_OF_DEVICE: Final = DEVICE + "/rollouts/{kind}"

OPERATIONS: Final = (
    Operation(
        method="GET", path=_PRODUCT + "/rollouts", id="list_rollouts",
        summary="Show how far a product's devices have been told of their firmware and software",
        handler=list_rollouts, answers={200: RolloutList},
    ),
    Operation(
        method="PUT", path=_OF_PRODUCT, id="assign_product", summary="Assign firmware or software to a product",
        handler=assign_product, answers={202: Rollout}, body=AssignBody,
    ),
    Operation(
        method="DELETE", path=_OF_PRODUCT, id="unassign_product", summary="Take what is assigned from a product",
        handler=unassign_product, answers={202: Rollout},
    ),
    Operation(
        method="GET", path=_PRODUCT + "/updates", id="list_updates",
        summary="Show what a product's devices say of their updates", handler=list_updates,
        answers={200: UpdateList}, query=UpdatesQuery,
    ),
    Operation(
        method="PUT", path=_OF_DEVICE, id="assign_device", summary="Assign firmware or software to a device",
        handler=assign_device, answers={204: None}, body=AssignBody,
    ),
    Operation(
        method="DELETE", path=_OF_DEVICE, id="unassign_device", summary="Let a device have what its product has",
        handler=unassign_device, answers={204: None},
    ),
    Operation(
        method="GET", path=DEVICE + "/updates", id="get_updates",
        summary="Show what a device shall have, and what it says of it", handler=get_updates,
        answers={200: UpdateList},
    ),
)  # fmt: skip
