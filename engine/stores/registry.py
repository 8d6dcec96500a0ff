"""Tenants, products, devices and their credentials in Redis: who may speak, and for whom.

Everything lies under the hash tag `{reg}`, so that one MULTI may touch it all. Credentials are kept as SHA-256 only.
Every change takes the next number of `rm:{reg}:seq` and tells it on `rm:registry`, so that caches notice a gap. It is
one script (`register.lua`): of two that want one name, or change one record, exactly one comes first.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid
from collections.abc import Mapping, Sequence
from typing import Final, cast

import msgspec
import redis.asyncio as redis

from engine.errors import BadInput, Conflict, NotFound
from engine.message import now_ms
from engine.node import Product
from engine.stores import claims, handouts, links, rollouts
from engine.stores.certificates import X509_CERTIFICATE, fingerprint_of
from engine.stores.register import CHANNEL as CHANNEL
from engine.stores.register import SEQUENCE as SEQUENCE
from engine.stores.register import Line, Name, Record, Register, undisturbed
from engine.stores.register import P as P

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")
_THING_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")
RESERVED_TENANTS: Final = frozenset({"www", "api", "app", "ws", "wss", "m", "mqtt"})
RESERVED_IDS: Final = frozenset({"devices", "gateway"})
ACCESS_TOKEN, MQTT_BASIC, CT_TOKEN, THING_TOKEN = "ACCESS_TOKEN", "MQTT_BASIC", "CT_TOKEN", "THING_TOKEN"
KINDS: Final = (ACCESS_TOKEN, MQTT_BASIC, CT_TOKEN, THING_TOKEN, X509_CERTIFICATE)
UNANNOUNCED: Final = P + "unannounced"
"""Set of devices that no chain was told of yet: whoever made one died before."""


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
    owner: str = ""
    """The user who has claimed it; empty: nobody. Only `set_owner` changes it."""
    leaving: bool = False
    """Its deletion has begun; it is disabled then."""
    type: str = ""
    """What its gateway calls it, where that is no product. Kept where a change does not say."""
    credentials: list[str] = []
    """Kinds of credentials it has, each with the digest it is found by: `KIND:hex`."""

    @property
    def shown_type(self) -> str:
        """What chains and apps know as the type of the device."""
        return self.type or self.product or "default"


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """Something a device proves itself with. ACCESS_TOKEN: `value`. CT_TOKEN: `value`, with the device's external id.

    MQTT_BASIC: `username` and/or `client_id`, with `value` the password (may be empty). X509_CERTIFICATE: `value` the
    certificate or its fingerprint (see `certificates`).
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
    if kind == THING_TOKEN:
        if not _THING_TOKEN.fullmatch(value):
            raise BadInput("a thing token has 16 to 64 letters, digits, _ -", "/value")
        return digest(kind, value)
    if kind == CT_TOKEN:
        if not value or not device.external_id:
            raise BadInput("a CT_TOKEN needs a value, and a device with an external_id", "/value")
        return digest(kind, device.external_id, value)
    if kind == MQTT_BASIC:
        if not (credential.username or credential.client_id):
            raise BadInput("MQTT_BASIC needs a username or a client_id", "/username")
        return digest(kind, credential.client_id, credential.username, value)
    if kind == X509_CERTIFICATE:
        return fingerprint_of(value)
    raise BadInput(f"unknown kind {kind!r}; there are {', '.join(KINDS)}", "/kind")


_device = msgspec.json.Decoder(Device).decode
_tenant = msgspec.json.Decoder(Tenant).decode
_product = msgspec.json.Decoder(Product).decode
_credential = msgspec.json.Decoder(Credential).decode


class Registry:
    """All reads and writes of the registry."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._register = Register(client)

    # Tenants

    async def put_tenant(self, tenant: Tenant) -> Tenant:
        """Create or change a tenant."""
        if not NAME.fullmatch(tenant.name) or tenant.name in RESERVED_TENANTS:
            raise BadInput("a tenant's name has 1 to 64 letters, digits, _ . -, and is not a reserved word", "/name")

        async def put() -> Tenant:
            blob = cast(bytes | None, await self._client.hget(P + "tenants", tenant.name))
            made = msgspec.structs.replace(tenant, created_ms=_tenant(blob).created_ms if blob else now_ms())
            lines = [("HSET", P + "tenants", made.name, msgspec.json.encode(made))]
            await self._register.change("tenant", made.name, lines, record=Record(P + "tenants", made.name, blob))
            return made

        return await undisturbed(put)

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
        return await undisturbed(lambda: self._put_product(product))

    async def _put_product(self, product: Product) -> Product:
        blob = cast(bytes | None, await self._client.hget(P + "products", product.id))
        known = None if blob is None else _product(blob)
        if known is not None and known.tenant != product.tenant:
            raise Conflict(f"product {product.id!r} exists already")
        product = msgspec.structs.replace(product, revision=known.revision + 1 if known else 1)
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
        device = msgspec.structs.replace(
            device, id=device.id or str(uuid.uuid4()), links=links.all_normalized(device.links)
        )
        product = await self.product(device.tenant, device.product) if device.product else None
        hands_out = handouts.hands_out(product)
        extra = [("SADD", UNANNOUNCED, device.id)] if unannounced else []
        return await undisturbed(lambda: self._put_device(device, credentials, keep, hands_out, extra))

    async def _put_device(
        self,
        device: Device,
        credentials: Sequence[Credential] | None,
        keep: Sequence[str],
        hands_out: bool,
        extra: Sequence[Line],
    ) -> Device:
        blob, known = await self._read_device(device.id)
        _check(device, known)
        prints = known.credentials if known else []
        if credentials is not None:
            kept = [each for each in prints if each.partition(":")[0] in keep]
            made = [f"{credential.kind}:{fingerprint(device, credential)}" for credential in credentials]
            prints = list(dict.fromkeys([*kept, *made]))
        device = msgspec.structs.replace(
            device, credentials=prints, created_ms=known.created_ms if known else now_ms(),
            activated_ms=known.activated_ms if known else 0, owner=known.owner if known else "",
            type=device.type or (known.type if known else ""),
        )  # fmt: skip
        names = _names(device)
        lines = [] if known is None else _unlist(known)
        if hands_out and credentials and (known is None or await self._client.hexists(handouts.HANDOUTS, device.id)):
            lines.append(("HSET", handouts.HANDOUTS, device.id, msgspec.json.encode(credentials[0])))
        elif not hands_out and known is not None:
            lines.append(("HDEL", handouts.HANDOUTS, device.id))
        lines.append(("SET", f"{P}device:{device.id}", msgspec.json.encode(device)))
        lines += [("HSET", name.key, name.field, device.id) for name in names]
        lines += _among_children("SADD", device)
        lines += rollouts.due_when_moved(device.id, device.product, known.product if known else "")
        lines += extra
        await self._change_device(device.id, blob, lines, names)
        return device

    async def find_device(self, id: str) -> Device | None:
        """A device of any tenant by its id."""
        return (await self._read_device(id))[1]

    async def of_ids(self, ids: Sequence[str]) -> list[Device]:
        """Those of the ids that are devices, of any tenant."""
        blobs = await self._client.mget([f"{P}device:{id}" for id in ids]) if ids else []
        return [_device(blob) for blob in blobs if blob]

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
        return await self.of_ids(ids)

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

        async def note() -> None:
            blob, known = await self._read_device(device.id)
            if known is not None and not known.activated_ms:
                await self._replace(blob, msgspec.structs.replace(known, activated_ms=now_ms()))

        await undisturbed(note)

    async def set_owner(self, tenant: str, id: str, owner: str, *, was: str | None = None) -> Device:
        """Give a device to a user, or (empty) take it from its owner; raises NotFound.

        With `was` given, only if that is the owner now, and else Conflict: of two who claim it, one gets it.
        """

        async def give() -> Device:
            blob, known = await self._read_device(id)
            if known is None or known.tenant != tenant:
                raise NotFound("device", id)
            if was is not None and known.owner != was:
                raise Conflict(f"device {known.name!r} has another owner")
            made = msgspec.structs.replace(known, owner=owner)
            if made != known:
                await self._replace(blob, made)
            return made

        return await undisturbed(give)

    async def set_parent(self, tenant: str, id: str, parent: str) -> Device:
        """Put a device under a gateway; raises NotFound."""

        async def move() -> Device:
            blob, known = await self._read_device(id)
            if known is None or known.tenant != tenant:
                raise NotFound("device", id)
            made = msgspec.structs.replace(known, parent=parent)
            lines = [*_among_children("SREM", known), *_among_children("SADD", made)]
            lines.append(("SET", f"{P}device:{id}", msgspec.json.encode(made)))
            await self._change_device(id, blob, lines)
            return made

        return await undisturbed(move)

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

        async def delete() -> Device:
            blob, device = await self._read_device((await self.device(tenant, id)).id)
            if device is None:
                raise NotFound("device", id)
            await self._change_device(
                device.id,
                blob,
                [
                    *_unlist(device),
                    ("DEL", f"{P}device:{device.id}", f"{P}children:{device.id}", claims.key(device.id)),
                    ("HDEL", handouts.HANDOUTS, device.id),
                    ("SREM", UNANNOUNCED, device.id),
                    *rollouts.gone(device.id),
                ],
            )
            return device

        return await undisturbed(delete)

    async def _read_device(self, id: str) -> tuple[bytes | None, Device | None]:
        """A device as it stands, and what that says."""
        blob = cast(bytes | None, await self._client.get(f"{P}device:{id}"))
        return blob, None if blob is None else _device(blob)

    async def _replace(self, blob: bytes | None, device: Device) -> None:
        """Write a device again whose names and credentials stay as they are."""
        await self._change_device(device.id, blob, [("SET", f"{P}device:{device.id}", msgspec.json.encode(device))])

    async def _change_device(
        self, id: str, blob: bytes | None, lines: Sequence[Line], names: Sequence[Name] = ()
    ) -> None:
        await self._register.change("device", id, lines, record=Record(f"{P}device:{id}", "", blob), names=names)

    async def has_handout(self, device: str) -> bool:
        """Whether there is a credential that the device shall be told."""
        return bool(await self._client.hexists(handouts.HANDOUTS, device))

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


def _tokens(print_: str) -> str:
    """One of 256 hashes: small hashes take a third of the memory of keys."""
    return f"{P}tokens:{print_.partition(':')[2][:2]}"


def _names(device: Device) -> list[Name]:
    """What no other device may have."""
    names = [Name(f"{P}names:{device.tenant}", device.name, "name")]
    if device.external_id:
        names.append(Name(P + "external", device.external_id, "external id"))
    names += [
        Name(P + "links", links.field(device.product, network, id), f"{network} id")
        for network, id in device.links.items()
    ]
    return names + [Name(_tokens(each), each, "credential", secret=True) for each in device.credentials]


def _unlist(device: Device) -> list[Line]:
    return [("HDEL", name.key, name.field) for name in _names(device)] + _among_children("SREM", device)


def _among_children(command: str, device: Device) -> list[Line]:
    return [(command, f"{P}children:{device.parent}", device.id)] if device.parent else []


def _check(device: Device, known: Device | None) -> None:
    if known is not None and known.tenant != device.tenant:
        raise Conflict(f"device {device.id!r} exists already")
    if not re.fullmatch(r"[A-Za-z0-9_\-]{1,64}", device.id):
        raise BadInput("a device's id has 1 to 64 letters, digits, _ -", "/id")
    check_name(device.name)
    if device.links and not device.product:
        raise BadInput("links are ids among the devices of a product, and the device has none", "/links")
    external = device.external_id
    if external and (external in RESERVED_IDS or not re.fullmatch(r"[A-Za-z0-9_.\-]{1,64}", external)):
        raise BadInput(
            "an external id has 1 to 64 letters, digits, _ . -, and is not `devices` or `gateway`", "/external_id"
        )


def check_name(name: str) -> None:
    """Raises BadInput for what no device can be called."""
    if not 1 <= len(name) <= 255 or any(ord(c) < 32 for c in name):
        raise BadInput("a device's name has 1 to 255 characters, none of them a control character", "/name")


def new_token(characters: int = 32) -> str:
    """A fresh secret of URL-safe characters."""
    return secrets.token_urlsafe(characters)[:characters].replace("-", "x").replace("_", "y")
