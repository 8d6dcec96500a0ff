"""Tenants, products, devices and their credentials in Redis: who may speak, and for whom.

Everything lies under the hash tag `{reg}`, so that one MULTI may touch it all. Credentials are kept as SHA-256 only.
Every change takes the next number of `rm:{reg}:seq` and tells it on `rm:registry`, so that caches notice a gap. It is
one script (`register.lua`): of two that want one name, or change one record, exactly one comes first.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec
import redis.asyncio as redis
from msgspec.structs import replace

from engine.errors import BadInput, Conflict, NotFound
from engine.message import now_ms
from engine.node import Product
from engine.stores import handouts, links
from engine.stores.device_writes import UNANNOUNCED, DeviceWrites
from engine.stores.register import Line, P, Record, Register, undisturbed
from engine.stores.registry import (
    NAME,
    RESERVED_TENANTS,
    Credential,
    Device,
    Tenant,
    decode_device,
    device_key,
    tokens_key,
)

_tenant = msgspec.json.Decoder(Tenant).decode
_product = msgspec.json.Decoder(Product).decode
_credential = msgspec.json.Decoder(Credential).decode


class Registry:
    """All reads and writes of the registry."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._register = Register(client)
        self._writes = DeviceWrites(client, self._register)

    # Tenants

    async def put_tenant(self, tenant: Tenant) -> Tenant:
        """Create or change a tenant."""
        if not NAME.fullmatch(tenant.name) or tenant.name in RESERVED_TENANTS:
            raise BadInput("a tenant's name has 1 to 64 letters, digits, _ . -, and is not a reserved word", "/name")

        async def put() -> Tenant:
            blob = cast(bytes | None, await self._client.hget(P + "tenants", tenant.name))
            made = replace(tenant, created_ms=_tenant(blob).created_ms if blob else now_ms())
            lines = [("HSET", P + "tenants", made.name, msgspec.json.encode(made))]
            await self._register.change("tenant", made.name, lines, record=Record(P + "tenants", made.name, blob))
            return made

        return await undisturbed(put)

    async def tenant(self, name: str) -> Tenant:
        """A tenant; NotFound."""
        blob = await self._client.hget(P + "tenants", name)
        if blob is None:
            raise NotFound("tenant", name)
        return _tenant(blob)

    async def tenants(self) -> list[Tenant]:
        """All tenants by name."""
        blobs = await self._client.hvals(P + "tenants")
        return sorted((_tenant(blob) for blob in blobs), key=lambda tenant: tenant.name)

    # Products

    async def put_product(self, product: Product) -> Product:
        """Create or change a product; its revision grows."""
        await self.tenant(product.tenant)
        if not NAME.fullmatch(product.id):
            raise BadInput("a product's id has 1 to 64 letters, digits, _ . -", "/id")
        return await undisturbed(lambda: self._put_product(product))

    async def _put_product(self, product: Product) -> Product:
        blob = cast(bytes | None, await self._client.hget(P + "products", product.id))
        known = None if blob is None else _product(blob)
        if known is not None and known.tenant != product.tenant:
            raise Conflict(f"product {product.id!r} exists already")
        product = replace(product, revision=known.revision + 1 if known else 1)
        names = handouts.key_names(product)
        lines: list[Line] = [("HDEL", name.key, name.field) for name in handouts.key_names(known)]
        lines += [("HSET", name.key, name.field, product.id) for name in names]
        lines += [
            ("HSET", P + "products", product.id, msgspec.json.encode(product)),
            ("SADD", f"{P}products:{product.tenant}", product.id),
        ]
        record = Record(P + "products", product.id, blob)
        await self._register.change("product", product.id, lines, record=record, names=names)
        return product

    async def find_product(self, id: str) -> Product | None:
        """A product of any tenant by its id."""
        blob = await self._client.hget(P + "products", id)
        return None if blob is None else _product(blob)

    async def find_provision_key(self, key: str) -> Product | None:
        """The product of any tenant that has this provisioning key."""
        id = await self._client.hget(handouts.KEYS, key)
        product = None if id is None else await self.find_product(_text(id))
        # It may have been given another key between the two reads.
        return product if product is not None and handouts.facet(product, "key") == key else None

    async def product(self, tenant: str, id: str) -> Product:
        """A product of the tenant; NotFound."""
        found = await self.find_product(id)
        if found is None or found.tenant != tenant:
            raise NotFound("product", id)
        return found

    async def products(self, tenant: str) -> list[Product]:
        """A tenant's products by id."""
        ids = sorted(_text(id) for id in await self._client.smembers(f"{P}products:{tenant}"))
        return [_product(blob) for blob in await self._client.hmget(P + "products", ids) if blob] if ids else []

    # Devices

    async def put_device(
        self,
        device: Device,
        credentials: Sequence[Credential] | None = None,
        *,
        keep: Sequence[str] = (),
        unannounced: bool = False,
    ) -> Device:
        """Create or change a device; with `credentials` given, they replace the ones it has, but those of kinds `keep`.

        An empty id is made up. Conflict for a name, external id or credential that another device has. `unannounced`:
        note that no chain was told of it yet.
        """
        await self.tenant(device.tenant)
        device = replace(device, id=device.id or str(uuid.uuid4()), links=links.all_normalized(device.links))
        product = await self.product(device.tenant, device.product) if device.product else None
        hands_out = handouts.hands_out(product)
        return await self._writes.put(device, credentials, keep, hands_out=hands_out, unannounced=unannounced)

    async def find_device(self, id: str) -> Device | None:
        """A device of any tenant by its id."""
        blob = await self._client.get(device_key(id))
        return None if blob is None else decode_device(blob)

    async def of_ids(self, ids: Sequence[str]) -> list[Device]:
        """Those of the ids that are devices, of any tenant."""
        blobs = await self._client.mget([device_key(id) for id in ids]) if ids else []
        return [decode_device(blob) for blob in blobs if blob]

    async def device(self, tenant: str, id: str) -> Device:
        """A device of the tenant, by id, name or external id; NotFound."""
        found = await self.find_devices(tenant, [id])
        if not found:
            raise NotFound("device", id)
        return found[id]

    async def find_devices(self, tenant: str, names: Sequence[str]) -> dict[str, Device]:
        """Devices of the tenant by what they are called in `names`: id, name or external id. Others are left out."""
        wanted = list(dict.fromkeys(names))
        found = await self._of_ids(tenant, dict(zip(wanted, wanted, strict=True)))
        rest = [name for name in wanted if name not in found]
        if rest:
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.hmget(f"{P}names:{tenant}", rest)
                pipe.hmget(P + "external", rest)
                by_name, external = await pipe.execute()
            ids = {name: _text(a or b) for name, a, b in zip(rest, by_name, external, strict=True) if a or b}
            found |= await self._of_ids(tenant, ids)
        return found

    async def _of_ids(self, tenant: str, ids: Mapping[str, str]) -> dict[str, Device]:
        """Devices of the tenant under the names that stand for their ids."""
        blobs = await self._client.mget([device_key(id) for id in ids.values()]) if ids else []
        devices = {name: decode_device(blob) for name, blob in zip(ids, blobs, strict=True) if blob}
        return {name: device for name, device in devices.items() if device.tenant == tenant}

    async def devices(self, tenant: str, *, limit: int = 100, after: str = "") -> list[Device]:
        """A tenant's devices by name, those after the name `after`."""
        names = sorted((_text(name), id) for name, id in (await self._client.hgetall(f"{P}names:{tenant}")).items())
        ids = [_text(id) for name, id in names if name > after][:limit]
        return await self.of_ids(ids)

    async def find_credential(self, print_: str) -> Device | None:
        """The device that a credential `KIND:hex` belongs to."""
        id = await self._client.hget(tokens_key(print_), print_)
        device = None if id is None else await self.find_device(_text(id))
        # The credential may have been taken from the device between the two reads.
        return device if device is not None and print_ in device.credentials else None

    async def find_external(self, external_id: str) -> Device | None:
        """The device of an external id."""
        id = await self._client.hget(P + "external", external_id)
        return None if id is None else await self.find_device(_text(id))

    async def find_names(self, tenant: str, names: Sequence[str]) -> dict[str, Device]:
        """Those of the names that are devices of the tenant."""
        if not names:
            return {}
        ids = await self._client.hmget(f"{P}names:{tenant}", list(names))
        found = await self.of_ids([_text(id) for id in ids if id is not None])
        return {device.name: device for device in found if device.tenant == tenant}

    async def find_link(self, product: str, network: str, id: str) -> Device | None:
        """The device of a product that has this id, normalized, in a radio network."""
        found = await self._client.hget(P + "links", links.field(product, network, id))
        return None if found is None else await self.find_device(_text(found))

    async def activate(self, device: Device) -> None:
        """Note the first accepted message of a device (CT-S14). What is changed of it meanwhile stays."""
        with contextlib.suppress(NotFound):
            await self._writes.amend(
                device.tenant, device.id,
                lambda known: known if known.activated_ms else replace(known, activated_ms=now_ms()),
            )  # fmt: skip

    async def set_owner(self, tenant: str, id: str, owner: str, *, was: str | None = None) -> Device:
        """Give a device to a user, or (empty) take it from its owner; raises NotFound.

        With `was` given, only if that is the owner now, and else Conflict: of two who claim it, one gets it.
        """

        def given(known: Device) -> Device:
            if was is not None and known.owner != was:
                raise Conflict(f"device {known.name!r} has another owner")
            return replace(known, owner=owner)

        return await self._writes.amend(tenant, id, given)

    async def set_parent(self, tenant: str, id: str, parent: str) -> Device:
        """Put a device under a gateway; raises NotFound."""
        return await self._writes.amend(tenant, id, lambda known: replace(known, parent=parent))

    async def count_children(self, gateway: str) -> int:
        """How many devices are under a gateway."""
        return int(await self._client.scard(f"{P}children:{gateway}"))

    async def unannounced(self, ids: Sequence[str]) -> set[str]:
        """Those of the devices that no chain was told of yet."""
        if not ids:
            return set()
        flags = await self._client.smismember(UNANNOUNCED, list(ids))
        return {id for id, flag in zip(ids, flags, strict=True) if flag}

    async def announced(self, ids: Sequence[str]) -> int:
        """Note that it is durable what a chain is told of new devices; how many of them nobody had noted before."""
        return int(await self._client.srem(UNANNOUNCED, *ids))

    async def delete_device(self, tenant: str, id: str) -> Device:
        """Forget a device and its credentials; NotFound. What it has stored elsewhere is the caller's to delete."""
        return await self._writes.delete(tenant, (await self.device(tenant, id)).id)

    async def take_handout(self, device: str) -> Credential | None:
        """The credential that a device shall be told; it is forgotten here. None if there is none."""
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.hget(handouts.HANDOUTS, device)
            pipe.hdel(handouts.HANDOUTS, device)
            blob = (await pipe.execute())[0]
        return None if blob is None else _credential(blob)

    # Secrets

    async def put_secret(self, tenant: str, name: str, value: str | None) -> None:
        """Set or (None) remove a secret that chains name as ${secret:NAME}."""
        key = f"{P}secrets:{tenant}"
        await self._register.change(
            "secret", tenant, [("HDEL", key, name) if value is None else ("HSET", key, name, value)]
        )

    async def secrets(self, tenant: str) -> dict[str, str]:
        """A tenant's secrets."""
        found = await self._client.hgetall(f"{P}secrets:{tenant}")
        return {_text(name): _text(value) for name, value in found.items()}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
