"""Devices by the ids that radio networks know them by."""

from __future__ import annotations

import uuid
from typing import Final

from api.transports.http_exchange import HttpError
from engine.errors import Conflict
from engine.node import Product
from engine.stores.links import normalized
from engine.stores.registry import Device
from engine.stores.registry_store import Registry

RESERVED: Final = frozenset(
    {"broadcast", "ct", "deviceId", "deviceName", "deviceType", "dialect", "error", "geo", "productId", "scope",
     "store", "transport", "ts"}
)  # fmt: skip
"""Metadata that chains rely on: what a callback brings may not pass for it."""
IDS: Final = uuid.UUID("9f1c3a52-6f0d-4b8c-8a35-6d2f1f0b7e11")
"""The name space of ids that come of what a device or a message is."""


class NetworkDevices:
    """Finds them, and makes those that are not there."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def device(self, product: Product, network: str, id: str, *, create: bool, pointer: str) -> Device:
        """The device of an id in a network, made if there is none and that is wanted (CT-S11); 404 or 403 else."""
        id = normalized(network, id, pointer)
        registry = self._registry
        device = await registry.find_link(product.id, network, id)
        if device is None and create:
            device = await self._create(product, network, id)
        if device is None:
            raise HttpError(404, f"product {product.id!r} has no device with the {network} id {id}")
        if not device.enabled:
            raise HttpError(403, "the device is disabled")
        return device

    async def _create(self, product: Product, network: str, id: str) -> Device:
        """Two callbacks at a time make one device: its id comes of what it is."""
        registry = self._registry
        own = str(uuid.uuid5(IDS, f"{product.tenant}/{product.id}/{network}/{id}"))
        taken = await registry.find_device(own)
        if taken is not None and taken.links.get(network) != id:
            own = ""  # somebody gave that device another id since
        for name in (id, f"{product.id} {id}", f"{product.id} {network} {id}"):
            wanted = Device(id=own, tenant=product.tenant, name=name, product=product.id, links={network: id})
            try:
                return await registry.put_device(wanted)
            except Conflict as conflict:
                reason = conflict
                if (found := await registry.find_link(product.id, network, id)) is not None:
                    return found
        raise HttpError(503, f"the device cannot be made: {reason}")
