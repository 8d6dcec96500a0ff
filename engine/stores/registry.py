"""Tenants, products, devices and their credentials in Redis: who may speak, and for whom.

Everything lies under the hash tag `{reg}`, so that one MULTI may touch it all. Credentials are kept as SHA-256 only.
Every change takes the next number of `rm:{reg}:seq` and tells it on `rm:registry`, so that caches notice a gap.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import redis.asyncio as redis

from engine.errors import BadInput, Conflict, NotFound
from engine.message import now_ms
from engine.node import Product
from engine.stores import links

P: Final = "rm:{reg}:"
CHANNEL: Final = "rm:registry"
SEQUENCE: Final = P + "seq"

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")
RESERVED_TENANTS: Final = frozenset({"www", "api", "app", "ws", "wss", "m", "mqtt"})
RESERVED_IDS: Final = frozenset({"devices", "gateway"})
ACCESS_TOKEN, MQTT_BASIC, CT_TOKEN = "ACCESS_TOKEN", "MQTT_BASIC", "CT_TOKEN"
KINDS: Final = (ACCESS_TOKEN, MQTT_BASIC, CT_TOKEN)


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """Whose data it is. `name` is also the host label and the key of everything the tenant has."""

    name: str
    root_chain: str = "root"
    created_ms: int = 0


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A thing that speaks. `id` is unique over the server, `name` within the tenant, `external_id` over the server."""

    id: str
    tenant: str
    name: str
    external_id: str = ""
    product: str = ""
    enabled: bool = True
    created_ms: int = 0
    activated_ms: int = 0
    parent: str = ""
    is_gateway: bool = False
    links: dict[str, str] = {}
    """Its ids in radio networks, `sigfox` and `lorawan` (the DevEUI): unique within its product."""
    credentials: list[str] = []
    """Kinds of credentials it has, each with the digest it is found by: `KIND:hex`."""


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """Something a device proves itself with. ACCESS_TOKEN: `value`. CT_TOKEN: `value`, with the device's external id.

    MQTT_BASIC: `username` and/or `client_id`, with `value` the password (may be empty).
    """

    kind: str
    value: str = ""
    username: str = ""
    client_id: str = ""


def digest(kind: str, *parts: str) -> str:
    """What a credential is found by."""
    return hashlib.sha256("\0".join((kind, *parts)).encode()).hexdigest()


def fingerprint(device: Device, credential: Credential) -> str:
    """The digest of a device's credential; BadInput for what no device can prove itself with."""
    kind, value = credential.kind, credential.value
    if kind == ACCESS_TOKEN:
        # G-6: the word has a path of its own. A slash would end the path segment that the token is.
        if not value or value == "provision" or any(c in value for c in "/?#+\0") or len(value) > 64:
            raise BadInput("an access token has 1 to 64 characters without / ? # +, and is not `provision`", "/value")
        return digest(kind, value)
    if kind == CT_TOKEN:
        if not value or not device.external_id:
            raise BadInput("a CT_TOKEN needs a value, and a device with an external_id", "/value")
        return digest(kind, device.external_id, value)
    if kind == MQTT_BASIC:
        if not (credential.username or credential.client_id):
            raise BadInput("MQTT_BASIC needs a username or a client_id", "/username")
        return digest(kind, credential.client_id, credential.username, value)
    raise BadInput(f"unknown kind {kind!r}; there are {', '.join(KINDS)}", "/kind")


_device = msgspec.json.Decoder(Device).decode
_tenant = msgspec.json.Decoder(Tenant).decode
_product = msgspec.json.Decoder(Product).decode


class Registry:
    """All reads and writes of the registry."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    # Tenants

    async def put_tenant(self, tenant: Tenant) -> Tenant:
        """Create or change a tenant."""
        if not NAME.fullmatch(tenant.name) or tenant.name in RESERVED_TENANTS:
            raise BadInput("a tenant's name has 1 to 64 letters, digits, _ . -, and is not a reserved word", "/name")
        known = await self._find_tenant(tenant.name)
        tenant = msgspec.structs.replace(tenant, created_ms=known.created_ms if known else now_ms())
        await self._change("tenant", tenant.name, [("HSET", P + "tenants", tenant.name, msgspec.json.encode(tenant))])
        return tenant

    async def _find_tenant(self, name: str) -> Tenant | None:
        blob = await self._client.hget(P + "tenants", name)
        return None if blob is None else _tenant(blob)

    async def tenant(self, name: str) -> Tenant:
        """A tenant; NotFound."""
        found = await self._find_tenant(name)
        if found is None:
            raise NotFound("tenant", name)
        return found

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
        known = await self.find_product(product.id)
        if known is not None and known.tenant != product.tenant:
            raise Conflict(f"product {product.id!r} exists already")
        product = msgspec.structs.replace(product, revision=known.revision + 1 if known else 1)
        await self._change(
            "product", product.id,
            [
                ("HSET", P + "products", product.id, msgspec.json.encode(product)),
                ("SADD", f"{P}products:{product.tenant}", product.id),
            ],
        )  # fmt: skip
        return product

    async def find_product(self, id: str) -> Product | None:
        """A product of any tenant by its id."""
        blob = await self._client.hget(P + "products", id)
        return None if blob is None else _product(blob)

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
        self, device: Device, credentials: Sequence[Credential] | None = None, *, keep: Sequence[str] = ()
    ) -> Device:
        """Create or change a device; with `credentials` given, they replace the ones it has, but those of kinds `keep`.

        An empty id is made up. Conflict for a name, external id or credential that another device has.
        """
        await self.tenant(device.tenant)
        device = msgspec.structs.replace(
            device, id=device.id or str(uuid.uuid4()), links=links.all_normalized(device.links)
        )
        known = await self.find_device(device.id)
        _check(device, known)
        if device.product:
            await self.product(device.tenant, device.product)
        prints = known.credentials if known else []
        if credentials is not None:
            kept = [each for each in prints if each.partition(":")[0] in keep]
            made = [f"{credential.kind}:{fingerprint(device, credential)}" for credential in credentials]
            prints = list(dict.fromkeys([*kept, *made]))
        device = msgspec.structs.replace(
            device, credentials=prints, created_ms=known.created_ms if known else now_ms(),
            activated_ms=known.activated_ms if known else 0,
        )  # fmt: skip
        names = f"{P}names:{device.tenant}"
        await self._free(names, device.name, device.id, "name")
        if device.external_id:
            await self._free(P + "external", device.external_id, device.id, "external id")
        for network, field in _link_fields(device):
            await self._free(P + "links", field, device.id, f"{network} id")
        for each in prints:
            await self._free(_tokens(each), each, device.id, "credential")
        commands: list[tuple[Any, ...]] = []
        if known is not None:
            commands += _unlist(known)
        commands += [
            ("SET", f"{P}device:{device.id}", msgspec.json.encode(device)),
            ("HSET", names, device.name, device.id),
            *[("HSET", _tokens(each), each, device.id) for each in prints],
            *[("HSET", P + "links", field, device.id) for _, field in _link_fields(device)],
        ]
        if device.external_id:
            commands.append(("HSET", P + "external", device.external_id, device.id))
        await self._change("device", device.id, commands)
        return device

    async def _free(self, key: str, field: str, id: str, what: str) -> None:
        holder = await self._client.hget(key, field)
        if holder is not None and _text(holder) != id:
            shown = "" if what == "credential" else f" {field!r}"
            raise Conflict(f"another device has the {what}{shown}")

    async def find_device(self, id: str) -> Device | None:
        """A device of any tenant by its id."""
        blob = await self._client.get(f"{P}device:{id}")
        return None if blob is None else _device(blob)

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
        blobs = await self._client.mget([f"{P}device:{id}" for id in ids.values()]) if ids else []
        devices = {name: _device(blob) for name, blob in zip(ids, blobs, strict=True) if blob}
        return {name: device for name, device in devices.items() if device.tenant == tenant}

    async def devices(self, tenant: str, *, limit: int = 100, after: str = "") -> list[Device]:
        """A tenant's devices by name, those after the name `after`."""
        names = sorted((_text(name), id) for name, id in (await self._client.hgetall(f"{P}names:{tenant}")).items())
        ids = [_text(id) for name, id in names if name > after][:limit]
        blobs = await self._client.mget([f"{P}device:{id}" for id in ids]) if ids else []
        return [_device(blob) for blob in blobs if blob]

    async def find_credential(self, print_: str) -> Device | None:
        """The device that a credential `KIND:hex` belongs to."""
        id = await self._client.hget(_tokens(print_), print_)
        device = None if id is None else await self.find_device(_text(id))
        # The credential may have been taken from the device between the two reads.
        return device if device is not None and print_ in device.credentials else None

    async def find_external(self, external_id: str) -> Device | None:
        """The device of an external id."""
        id = await self._client.hget(P + "external", external_id)
        return None if id is None else await self.find_device(_text(id))

    async def find_link(self, product: str, network: str, id: str) -> Device | None:
        """The device of a product that has this id, normalized, in a radio network."""
        found = await self._client.hget(P + "links", links.field(product, network, id))
        return None if found is None else await self.find_device(_text(found))

    async def activate(self, device: Device) -> None:
        """Note the first accepted message of a device (CT-S14). What is changed of it meanwhile stays."""
        key = f"{P}device:{device.id}"
        async with self._client.pipeline(transaction=True) as pipe:
            while True:
                await pipe.watch(key)
                blob = await pipe.get(key)  # at once, as the key is watched
                known = None if blob is None else _device(blob)
                if known is None or known.activated_ms:
                    return
                pipe.multi()  # type: ignore[no-untyped-call]
                pipe.set(key, msgspec.json.encode(msgspec.structs.replace(known, activated_ms=now_ms())))
                pipe.incr(SEQUENCE)
                try:
                    sequence = (await pipe.execute())[-1]
                    break
                except redis.WatchError:
                    continue
        await self._client.publish(CHANNEL, f"{sequence} device {device.id}")

    async def delete_device(self, tenant: str, id: str) -> Device:
        """Forget a device and its credentials; NotFound. What it has stored elsewhere is the caller's to delete."""
        device = await self.device(tenant, id)
        await self._change("device", device.id, [*_unlist(device), ("DEL", f"{P}device:{device.id}")])
        return device

    # Secrets

    async def put_secret(self, tenant: str, name: str, value: str | None) -> None:
        """Set or (None) remove a secret that chains name as ${secret:NAME}."""
        key = f"{P}secrets:{tenant}"
        await self._change("secret", tenant, [("HDEL", key, name) if value is None else ("HSET", key, name, value)])

    async def secrets(self, tenant: str) -> dict[str, str]:
        """A tenant's secrets."""
        found = await self._client.hgetall(f"{P}secrets:{tenant}")
        return {_text(name): _text(value) for name, value in found.items()}

    async def _change(self, what: str, id: str, commands: Sequence[tuple[Any, ...]]) -> None:
        """Write, and tell every cache: `<sequence> <what> <id>`."""
        async with self._client.pipeline(transaction=True) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            pipe.incr(SEQUENCE)
            sequence = (await pipe.execute())[-1]
        await self._client.publish(CHANNEL, f"{sequence} {what} {id}")


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _tokens(print_: str) -> str:
    """One of 256 hashes: small hashes take a third of the memory of keys."""
    return f"{P}tokens:{print_.partition(':')[2][:2]}"


def _unlist(device: Device) -> list[tuple[Any, ...]]:
    commands: list[tuple[Any, ...]] = [("HDEL", f"{P}names:{device.tenant}", device.name)]
    commands += [("HDEL", _tokens(each), each) for each in device.credentials]
    commands += [("HDEL", P + "links", field) for _, field in _link_fields(device)]
    if device.external_id:
        commands.append(("HDEL", P + "external", device.external_id))
    return commands


def _link_fields(device: Device) -> list[tuple[str, str]]:
    return [(network, links.field(device.product, network, id)) for network, id in device.links.items()]


def _check(device: Device, known: Device | None) -> None:
    if known is not None and known.tenant != device.tenant:
        raise Conflict(f"device {device.id!r} exists already")
    if not re.fullmatch(r"[A-Za-z0-9_\-]{1,64}", device.id):
        raise BadInput("a device's id has 1 to 64 letters, digits, _ -", "/id")
    if not 1 <= len(device.name) <= 255 or any(ord(c) < 32 for c in device.name):
        raise BadInput("a device's name has 1 to 255 characters, none of them a control character", "/name")
    if device.links and not device.product:
        raise BadInput("links are ids among the devices of a product, and the device has none", "/links")
    external = device.external_id
    if external and (external in RESERVED_IDS or not re.fullmatch(r"[A-Za-z0-9_.\-]{1,64}", external)):
        raise BadInput(
            "an external id has 1 to 64 letters, digits, _ . -, and is not `devices` or `gateway`", "/external_id"
        )


def new_token(characters: int = 32) -> str:
    """A fresh secret of URL-safe characters."""
    return secrets.token_urlsafe(characters)[:characters].replace("-", "x").replace("_", "y")
