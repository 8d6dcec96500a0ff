"""Who a credential belongs to, from memory: known devices, unknown credentials, and the products of devices.

None of it is ever stale for more than a second.

The registry tells every change, numbered, on a channel. A gap in the numbers, a lost connection, or a second without a
look at the number itself, and everything remembered is forgotten.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError

from engine.node import Product
from engine.service import Loop
from engine.stores.register import CHANNEL, SEQUENCE
from engine.stores.registry import Device, digest
from engine.stores.registry_store import Registry
from engine.wire import Subscriber, Wire

log = logging.getLogger("rulemill.auth")

MOST: Final = 100_000
"""Credentials kept, and as many unknown ones."""
BEAT_S: Final = 0.5
SILENCE_S: Final = 1.0
LOOKUPS: Final = 64
"""Look-ups in Redis at a time: each takes a connection of its own."""


class Unknown:
    """Nothing is remembered: Redis has to be asked."""


UNKNOWN: Final = Unknown()

Changed = Callable[[str], None]
"""Called with the id of a device that was changed or deleted; "" when any may have been."""


def token_print(kind: str, *parts: str) -> str:
    """What the registry finds a credential by: `KIND:hex`."""
    return f"{kind}:{digest(kind, *parts)}"


class DeviceAuth:
    """Finds devices by credential. `known` asks memory alone and is for the hot path; `find` asks Redis where need be.

    A device that is found may be disabled: that is the caller's to refuse.
    """

    def __init__(self, registry: Registry, redis_url: str, *, most: int = MOST) -> None:
        self._registry = registry
        self._most = most
        self._devices: OrderedDict[str, Device] = OrderedDict()
        self._strangers: OrderedDict[str, None] = OrderedDict()
        self._by_id: OrderedDict[str, Device] = OrderedDict()
        self._by_name: dict[tuple[str, str], Device] = {}
        """By tenant and name; everything here is also found by its id."""
        self._products: OrderedDict[str, Product | None] = OrderedDict()
        """By id: that is unique over the server."""
        self._epoch = 0
        """Grows with everything that is forgotten: what was read before must not be remembered after."""
        self._heard = -1
        self._told = -1
        self._beat_at = 0.0
        self._wire = Wire(redis_url, "auth")
        self._subscriber = Subscriber(redis_url, "auth-changes", [CHANNEL], self._change, self._lost)
        self._beats = Loop("auth-beat", BEAT_S, self._beat)
        self._lookups = asyncio.Semaphore(LOOKUPS)
        self._watchers: list[Changed] = []

    async def start(self) -> None:
        """Listen for changes; raises redis ConnectionError when Redis is away."""
        await self._subscriber.start()
        await self._beat()
        await self._beats.start()

    async def stop(self) -> None:
        """Forget everything."""
        await self._beats.stop()
        await self._subscriber.stop()
        await self._wire.close()
        self._forget_all()

    def on_change(self, callback: Changed) -> Callable[[], None]:
        """Be told of changed devices; gives what ends that."""
        self._watchers.append(callback)
        return lambda: self._watchers.remove(callback)

    def known(self, print_: str) -> Device | Unknown | None:
        """The device of a credential, None for a credential that is nobody's, UNKNOWN if memory cannot tell."""
        if time.monotonic() - self._beat_at > SILENCE_S:
            self._forget_all()
            return UNKNOWN
        device = self._devices.get(print_)
        if device is not None:
            return device
        return None if print_ in self._strangers else UNKNOWN

    async def find(self, print_: str) -> Device | None:
        """The device of a credential. Raises redis errors when Redis is away."""
        known = self.known(print_)
        if not isinstance(known, Unknown):
            return known
        async with self._lookups:
            epoch = self._epoch
            device = await self._registry.find_credential(print_)
        if epoch == self._epoch:
            if device is None:
                self._keep(self._strangers, print_, None)
            else:
                self._keep_device(device)
                self._keep(self._devices, print_, device)
        return device

    async def by_id(self, id: str) -> Device | None:
        """A device by its id. Raises redis errors when Redis is away."""
        if time.monotonic() - self._beat_at > SILENCE_S:
            self._forget_all()
        device = self._by_id.get(id)
        if device is None:
            async with self._lookups:
                epoch = self._epoch
                device = await self._registry.find_device(id)
            if device is not None and epoch == self._epoch:
                self._keep_device(device)
        return device

    def known_name(self, tenant: str, name: str) -> Device | Unknown:
        """A tenant's device by its name, UNKNOWN if memory cannot tell."""
        if time.monotonic() - self._beat_at > SILENCE_S:
            self._forget_all()
        return self._by_name.get((tenant, name), UNKNOWN)

    async def find_names(self, tenant: str, names: Sequence[str]) -> dict[str, Device]:
        """Those of the names that are devices of the tenant, asked of Redis. Raises redis errors when it is away."""
        async with self._lookups:
            epoch = self._epoch
            found = await self._registry.find_names(tenant, names)
        if epoch == self._epoch:
            for name, device in found.items():
                self._keep_device(device)
                self._by_name[tenant, name] = device
        return found

    def known_product(self, tenant: str, id: str) -> Product | Unknown | None:
        """A tenant's product, None if there is none, UNKNOWN if memory cannot tell."""
        if time.monotonic() - self._beat_at > SILENCE_S:
            self._forget_all()
        product = self._products.get(id, UNKNOWN)
        return product if isinstance(product, Unknown) or product is None or product.tenant == tenant else None

    async def find_product(self, tenant: str, id: str) -> Product | None:
        """The same, asked of Redis where need be. Raises redis errors when it is away."""
        known = self.known_product(tenant, id)
        if not isinstance(known, Unknown):
            return known
        async with self._lookups:
            epoch = self._epoch
            product = await self._registry.find_product(id)
        if epoch == self._epoch:
            self._keep(self._products, id, product)
        return product if product is None or product.tenant == tenant else None

    def _keep(self, where: OrderedDict[str, Any], key: str, value: Any) -> Any:
        """Remember a value; what had to go for it, if anything."""
        where[key] = value
        return where.popitem(last=False)[1] if len(where) > self._most else None

    def _keep_device(self, device: Device) -> None:
        # A change names the device alone: without it, nobody would know which credentials and name to forget. So it
        # goes with all it was known by, also when it was changed and nobody has told of that yet.
        if (known := self._by_id.get(device.id)) != device:
            self._forget_device(known)
        self._forget_device(self._keep(self._by_id, device.id, device))

    def _forget_device(self, device: Device | None) -> None:
        if device is not None:
            self._by_name.pop((device.tenant, device.name), None)
            for print_ in device.credentials:
                self._devices.pop(print_, None)

    # What the registry tells

    def _change(self, _: str, payload: bytes) -> None:
        number, what, id = payload.decode().split(" ", 2)
        sequence = int(number)
        if sequence > self._heard + 1:
            self._forget_all()
            self._tell("")
        self._heard = max(self._heard, sequence)
        if what == "device":
            self._forget(id)
            self._tell(id)
        elif what == "product":
            self._epoch += 1
            self._products.pop(id, None)

    async def _beat(self) -> None:
        """Look at the number of changes: one that was not heard of by the next look is lost."""
        try:
            reply = (await self._wire.execute([("GET", SEQUENCE)], timeout_s=SILENCE_S))[0]
        except RedisConnectionError as error:
            log.warning("devices are looked up one by one until Redis answers: %s", error)
            return
        if self._heard < self._told:
            self._heard = self._told
            self._forget_all()
            self._tell("")
        self._told = int(reply or 0)
        if self._beat_at == 0.0 or self._heard > self._told:
            # At the start, or on a Redis that begins anew.
            self._heard = self._told
        self._beat_at = time.monotonic()

    def _lost(self) -> None:
        self._forget_all()
        self._tell("")

    def _forget(self, id: str) -> None:
        self._epoch += 1
        # A change may have given an unknown credential to somebody.
        self._strangers.clear()
        self._forget_device(self._by_id.pop(id, None))

    def _forget_all(self) -> None:
        self._epoch += 1
        self._devices.clear()
        self._strangers.clear()
        self._by_id.clear()
        self._by_name.clear()
        self._products.clear()

    def _tell(self, id: str) -> None:
        for callback in list(self._watchers):
            try:
                callback(id)
            except Exception:
                log.exception("a watcher of devices failed")
