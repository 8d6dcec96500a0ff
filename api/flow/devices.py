"""Devices and what they prove themselves with."""

from __future__ import annotations

import logging
import time
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from api.device_record import device_record
from api.flow.operation import BASE, Answer, Call, Operation, Parts
from engine.errors import BadInput, Conflict, NotFound, Unsupported
from engine.stores.certificates import X509_CERTIFICATE
from engine.stores.registry import ACCESS_TOKEN, CT_TOKEN, MQTT_BASIC, Credential, Device, new_token
from engine.stores.tenant_data import forget_device

log = logging.getLogger("rulemill.flow")

LAST_WORDS_S: Final = 5.0
"""How long a deletion waits for the chain to be done with the device."""

Kind = Literal["ACCESS_TOKEN", "MQTT_BASIC", "CT_TOKEN", "X509_CERTIFICATE"]
LENGTHS: Final = {ACCESS_TOKEN: 20, MQTT_BASIC: 20, CT_TOKEN: 32}
"""Characters of secrets that are made up (G-17)."""
MAX_SECRET: Final = 255


class CredentialBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A credential to be set."""

    kind: Kind
    value: Annotated[
        str,
        Meta(
            max_length=16_384,
            description="The secret; empty: one is made up. Of X509_CERTIFICATE the certificate as PEM, or its "
            "SHA-256 fingerprint in hex; it cannot be made up.",
        ),
    ] = ""
    username: Annotated[str, Meta(max_length=255, description="MQTT_BASIC only.")] = ""
    client_id: Annotated[str, Meta(max_length=255, description="MQTT_BASIC only.")] = ""


class DeviceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be set of a device. What is left out is set to its default, but credentials stay as they are."""

    name: Annotated[str, Meta(min_length=1, max_length=255, description="Unique within the tenant.")]
    external_id: Annotated[str, Meta(description="Unique over the server; empty: none.")] = ""
    product: str = ""
    type: Annotated[
        str, Meta(max_length=255, description="What chains and apps know as its type; empty: it stays, or the product.")
    ] = ""
    enabled: bool = True
    parent: str = ""
    is_gateway: bool = False
    links: Annotated[
        dict[str, str], Meta(description="Its ids in radio networks, `sigfox` and `lorawan`: unique in its product.")
    ] = {}
    credentials: list[CredentialBody] | None = None


class DeviceShown(msgspec.Struct, frozen=True, kw_only=True):
    """A device."""

    id: str
    tenant: str
    name: str
    external_id: str
    product: str
    type: str
    enabled: bool
    created_ms: int
    activated_ms: Annotated[int, Meta(description="When its first message was accepted; 0: none was yet.")]
    parent: str
    is_gateway: bool
    links: Annotated[dict[str, str], Meta(description="Its ids in radio networks.")]
    owner: Annotated[str, Meta(description="The user who has claimed it; empty: nobody.")]
    credentials: Annotated[list[str], Meta(description="Kinds of the credentials it has.")]
    secrets: Annotated[
        list[CredentialBody], Meta(description="Credentials that this very call has set; never given out again.")
    ] = []


class DeviceList(msgspec.Struct, frozen=True):
    """Devices by name; `after` continues the list, empty at its end."""

    devices: list[DeviceShown]
    after: str


class DeviceQuery(msgspec.Struct):
    """Which part of the list."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    after: Annotated[str, Meta(description="Devices behind this name.")] = ""


class CredentialsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All credentials of a device."""

    credentials: Annotated[list[CredentialBody], Meta(max_length=20)]


def shown(device: Device, secrets: list[CredentialBody] | None = None) -> DeviceShown:
    """A device as the API gives it: no digests, and secrets only when they were just set."""
    values: dict[str, Any] = msgspec.structs.asdict(device)
    del values["leaving"]
    values["credentials"] = [each.partition(":")[0] for each in device.credentials]
    return DeviceShown(**values, secrets=secrets or [])


async def list_devices(parts: Parts, call: Call) -> Answer:
    """A part of the tenant's devices."""
    query: DeviceQuery = call.query
    found = await parts.registry.devices(call.tenant, limit=query.limit + 1, after=query.after)
    page = found[: query.limit]
    after = page[-1].name if len(found) > query.limit else ""
    return Answer(200, DeviceList([shown(device) for device in page], after))


async def get_device(parts: Parts, call: Call) -> Answer:
    """One device, by id, name or external id."""
    return Answer(200, shown(await find(parts, call)))


async def find(parts: Parts, call: Call) -> Device:
    """The device that the path names; NotFound for those of other tenants too."""
    return await parts.registry.device(call.tenant, call.path["device"])


async def put_device(parts: Parts, call: Call) -> Answer:
    """Create or change the device of the path's id."""
    id, body = call.path["device"], call.body
    known = await parts.registry.find_device(id)
    moved = known is not None and body.credentials is None and known.external_id != body.external_id
    if known is not None and moved and any(each.startswith(f"{CT_TOKEN}:") for each in known.credentials):
        raise Conflict("its CT_TOKEN holds for its external_id: to change that, give its credentials anew")
    answer = await _put(parts, call.tenant, id, body, 200 if known is not None else 201)
    if known is not None and known.product != body.product:
        await parts.apps.forget_thing(call.tenant, id)
    return answer


async def post_device(parts: Parts, call: Call) -> Answer:
    """Create a device; its id is made up."""
    return await _put(parts, call.tenant, "", call.body, 201)


async def _put(parts: Parts, tenant: str, id: str, body: DeviceBody, status: int) -> Answer:
    secrets = None if body.credentials is None else [_filled(each) for each in body.credentials]
    parts.messages.admit()
    made = await parts.registry.put_device(
        Device(
            id=id, tenant=tenant, name=body.name, external_id=body.external_id, product=body.product, type=body.type,
            enabled=body.enabled, parent=body.parent, is_gateway=body.is_gateway, links=body.links,
        ),
        None if secrets is None else [credential_of(each) for each in secrets],
    )  # fmt: skip
    await parts.messages.entity(made, "CREATED" if status == 201 else "UPDATED")
    headers = {"Location": f"{BASE}/tenants/{tenant}/devices/{made.id}"} if status == 201 else {}
    return Answer(status, shown(made, secrets), headers)


def _filled(given: CredentialBody) -> CredentialBody:
    if given.value:
        if given.kind != X509_CERTIFICATE and len(given.value) > MAX_SECRET:
            raise BadInput(f"a secret has at most {MAX_SECRET} characters", "/value")
        return given
    if given.kind not in LENGTHS:
        raise BadInput("a certificate is made where its key is, and cannot be made up here", "/value")
    return replace(given, value=new_token(LENGTHS[given.kind]))


def credential_of(given: CredentialBody) -> Credential:
    """What the registry takes."""
    return Credential(kind=given.kind, value=given.value, username=given.username, client_id=given.client_id)


async def set_credentials(parts: Parts, call: Call) -> Answer:
    """Replace all credentials of a device and tell them, this once."""
    device = await find(parts, call)
    secrets = [_filled(each) for each in call.body.credentials]
    made = await parts.registry.put_device(device, [credential_of(each) for each in secrets])
    return Answer(200, shown(made, secrets))


async def rotate_credential(parts: Parts, call: Call) -> Answer:
    """Give a device a fresh credential of one kind in place of those it has; the others stay."""
    device = await find(parts, call)
    secret = _filled(replace(call.body, value=""))
    had = {each.partition(":")[0] for each in device.credentials}
    if secret.kind not in had:
        raise NotFound("credential of kind", secret.kind)
    keep = sorted(had - {secret.kind})
    made = await parts.registry.put_device(device, [credential_of(secret)], keep=keep)
    return Answer(200, shown(made, [secret]))


class Deleted(msgspec.Struct, frozen=True):
    """What is left of a device that is gone."""

    left: Annotated[list[str], Meta(description="What could not be deleted, and why.")]


async def delete_device(parts: Parts, call: Call) -> Answer:
    """Forget a device and everything it has stored. Repeating it after an error finishes what was begun.

    Where the telemetry store cannot delete, its points stay (200 tells so); nothing finds them any more.
    """
    device = await find(parts, call)
    parts.messages.admit()
    if device.enabled:
        # First of all nothing new may come in, or it would be written behind the deletion's back.
        await parts.registry.put_device(replace(device, enabled=False, leaving=True))
    await _tell_deletion(parts, device)
    await forget_device(parts.wire, parts.partitions, device.tenant, device.id)
    left = []
    try:
        await parts.store.delete_device(device.tenant, device.id)
    except Unsupported as error:
        left.append(f"its points: {error.reason}")
    await parts.apps.forget_thing(device.tenant, device.id)
    await parts.registry.delete_device(device.tenant, device.id)
    return Answer(200, Deleted(left)) if left else Answer(204)


async def _tell_deletion(parts: Parts, device: Device) -> None:
    """Tell the chain, and wait until it is done with that and so with all that the device had sent before."""
    event = parts.messages.make(device, "ENTITY_DELETED", device_record(device))
    with parts.replies.wait() as waiting:
        await parts.messages.insist(replace(event, reply_to=waiting.to, awaited=True))
        deadline = time.monotonic() + LAST_WORDS_S
        while (answer := await waiting.next(max(deadline - time.monotonic(), 0.0))) is not None:
            if answer.kind == "end":
                return
    log.warning("device %s is deleted although its last messages are not run yet", device.id)


_ALL: Final = BASE + "/tenants/{tenant}/devices"
ONE: Final = _ALL + "/{device}"

OPERATIONS: Final = (
    Operation(
        method="GET", path=_ALL, id="list_devices", summary="List a tenant's devices", handler=list_devices,
        answers={200: DeviceList}, query=DeviceQuery,
    ),
    Operation(
        method="POST", path=_ALL, id="post_device", summary="Create a device with an id made up",
        handler=post_device, answers={201: DeviceShown}, body=DeviceBody, problems=(409,),
    ),
    Operation(
        method="GET", path=ONE, id="get_device", summary="Show a device", handler=get_device,
        answers={200: DeviceShown},
    ),
    Operation(
        method="PUT", path=ONE, id="put_device", summary="Create or change a device with an id of your choice",
        handler=put_device, answers={200: DeviceShown, 201: DeviceShown}, body=DeviceBody, problems=(409,),
    ),
    Operation(
        method="DELETE", path=ONE, id="delete_device", summary="Delete a device and everything it has stored",
        handler=delete_device, answers={200: Deleted, 204: None},
    ),
    Operation(
        method="PUT", path=ONE + "/credentials", id="set_credentials",
        summary="Replace all credentials of a device; secrets left out are made up and told once",
        handler=set_credentials, answers={200: DeviceShown}, body=CredentialsBody, problems=(409,),
    ),
    Operation(
        method="POST", path=ONE + "/credentials/rotate", id="rotate_credential",
        summary="Replace the credentials of one kind by a fresh one, told once",
        handler=rotate_credential, answers={200: DeviceShown}, body=CredentialBody, problems=(409,),
    ),
)  # fmt: skip
