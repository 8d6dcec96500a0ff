"""What the registry holds: tenants, devices and their credentials; what they may be called, and where they stand.

Nothing here reads or writes: `registry_store` does.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final

import msgspec

from engine.errors import BadInput, Conflict
from engine.stores import links
from engine.stores.certificates import X509_CERTIFICATE, fingerprint_of
from engine.stores.register import Name, P

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")
_THING_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")
RESERVED_TENANTS: Final = frozenset({"www", "api", "app", "ws", "wss", "m", "mqtt"})
RESERVED_IDS: Final = frozenset({"devices", "gateway"})
ACCESS_TOKEN, MQTT_BASIC, CT_TOKEN, THING_TOKEN = "ACCESS_TOKEN", "MQTT_BASIC", "CT_TOKEN", "THING_TOKEN"
KINDS: Final = (ACCESS_TOKEN, MQTT_BASIC, CT_TOKEN, THING_TOKEN, X509_CERTIFICATE)


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


decode_device: Final = msgspec.json.Decoder(Device).decode


def device_key(id: str) -> str:
    """Where a device stands."""
    return f"{P}device:{id}"


def tokens_key(print_: str) -> str:
    """One of 256 hashes: small hashes take a third of the memory of keys."""
    return f"{P}tokens:{print_.partition(':')[2][:2]}"


def names_of(device: Device) -> list[Name]:
    """What a device is found by beside its id; no other may have it."""
    names = [Name(f"{P}names:{device.tenant}", device.name, "name")]
    if device.external_id:
        names.append(Name(P + "external", device.external_id, "external id"))
    names += [
        Name(P + "links", links.field(device.product, network, id), f"{network} id")
        for network, id in device.links.items()
    ]
    return names + [Name(tokens_key(each), each, "credential", secret=True) for each in device.credentials]


def check_device(device: Device, known: Device | None) -> None:
    """Raises BadInput for what no device can be, and Conflict for an id that another tenant has."""
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
