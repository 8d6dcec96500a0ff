"""Devices in bootstrap files."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from chains.model import pointer
from engine.errors import BadInput, NotFound
from engine.stores.apps.apps import Apps
from engine.stores.links import all_normalized
from engine.stores.registry import Credential, Device, fingerprint
from engine.stores.registry_store import Registry


class CredentialEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a device proves itself with."""

    kind: Annotated[str, Meta(description="ACCESS_TOKEN, MQTT_BASIC, CT_TOKEN or X509_CERTIFICATE.")]
    value: Annotated[
        str, Meta(description="Its secret; of X509_CERTIFICATE the certificate as PEM, or its SHA-256 fingerprint.")
    ] = ""
    username: str = ""
    client_id: str = ""


class DeviceEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A device. Without an id it is known by its external id, or else by its name."""

    tenant: str
    name: str
    id: str = ""
    external_id: str = ""
    product: str = ""
    enabled: bool = True
    parent: str = ""
    is_gateway: bool = False
    links: Annotated[
        dict[str, str],
        Meta(description="Its ids in radio networks, unique in its product: `sigfox`, and `lorawan`, the DevEUI."),
    ] = {}
    credentials: Annotated[
        list[CredentialEntry] | None, Meta(description="All that it shall have; left out: they stay as they are.")
    ] = None


async def put_device(registry: Registry, apps: Apps | None, entry: DeviceEntry) -> bool:
    """Make a device as it is asked for; whether it was not so before. BadInput, Conflict, NotFound for its product."""
    known = await _known(registry, entry)
    wanted = Device(
        id=entry.id or (known.id if known else ""), tenant=entry.tenant, name=entry.name,
        external_id=entry.external_id, product=entry.product, enabled=entry.enabled, parent=entry.parent,
        is_gateway=entry.is_gateway, links=all_normalized(entry.links),
    )  # fmt: skip
    credentials = None
    prints = known.credentials if known else []
    if entry.credentials is not None:
        credentials = [Credential(**msgspec.structs.asdict(each)) for each in entry.credentials]
        prints = _prints(wanted, credentials)
    if known is not None:
        same = replace(
            wanted, credentials=prints, created_ms=known.created_ms, activated_ms=known.activated_ms,
            owner=known.owner, type=known.type,
        )  # fmt: skip
        if same == known:
            return False
    await registry.put_device(wanted, credentials)
    if known is not None and known.product != wanted.product and apps is not None:
        await apps.forget_thing(known.tenant, known.id)
    return True


async def _known(registry: Registry, entry: DeviceEntry) -> Device | None:
    if entry.id:
        return await registry.find_device(entry.id)
    try:
        return await registry.device(entry.tenant, entry.external_id or entry.name)
    except NotFound:
        return None


def _prints(device: Device, credentials: list[Credential]) -> list[str]:
    """Credentials as the registry keeps them; BadInput names the one that does not hold."""
    prints = []
    for i, each in enumerate(credentials):
        try:
            prints.append(f"{each.kind}:{fingerprint(device, each)}")
        except BadInput as error:
            raise BadInput(error.reason, pointer("credentials", i) + error.pointer) from error
    return prints
