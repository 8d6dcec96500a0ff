"""Firmware and software in bootstrap files: images, and who they are assigned to."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from engine.errors import BadInput, Conflict
from engine.stores.firmware import About, Firmware
from engine.stores.registry_store import Registry
from engine.stores.rollouts import Rollouts
from nodes.codecs.formats import from_base64


class FirmwareEntry(About, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An image of a product. Its bytes are in `data_b64`, or at its `url`."""

    tenant: str
    product: str
    id: str
    data_b64: Annotated[str, Meta(description="The bytes as base64.")] = ""
    assigned: Annotated[bool, Meta(description="The product's devices shall have it; false changes nothing.")] = False
    devices: Annotated[
        list[str], Meta(description="Names of devices that shall have it, whatever their product has.")
    ] = msgspec.field(default_factory=list)


class Packages(NamedTuple):
    """Where images and assignments are kept."""

    firmware: Firmware
    rollouts: Rollouts


async def put_firmware(packages: Packages, registry: Registry, entry: FirmwareEntry) -> bool:
    """Make an image exist and be assigned; whether anything had to be done.

    Raises BadInput, Conflict and NotFound.
    """
    firmware, rollouts = packages
    product = (await registry.product(entry.tenant, entry.product)).id
    about = About(**{field.name: getattr(entry, field.name) for field in msgspec.structs.fields(About)})
    body = from_base64(entry.data_b64, "/data_b64")
    known = await firmware.find(product, entry.id)
    changed = known is None or not (await firmware.describe(product, entry.id, body, about)).same_as(known)
    if changed:
        if await rollouts.is_assigned(product, entry.id):
            raise Conflict(f"firmware {entry.id!r} is assigned, and another one than this")
        await firmware.put(product, entry.id, body, about)
    if entry.assigned and (await rollouts.of_product(product)).get(entry.kind) != entry.id:
        await rollouts.assign_product(entry.tenant, product, entry.kind, entry.id)
        changed = True
    for i, name in enumerate(entry.devices):
        device = await registry.device(entry.tenant, name)
        if device.product != product:
            raise BadInput(f"device {name!r} is not of product {product!r}", f"/devices/{i}")
        own = (await rollouts.of_device(device.id, product)).get(entry.kind)
        if own is None or own != (entry.id, True):
            await rollouts.assign_device(device.id, product, entry.kind, entry.id)
            changed = True
    return changed
