"""Provisioning (`TB-55`, `TB-S30`…`TB-S33`): a device asks for its credential with its product's key and secret.

`provision` is for every transport. What the chain is told holds no secret, and none of the credentials asked for.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import secrets
import string
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from api.device_record import device_record
from api.dialects.thingsboard.parts import Parts
from api.dialects.thingsboard.settings import DIALECT
from api.networks import resolved
from api.provision_facet import Provision, provision_of
from engine.errors import BadInput, Conflict, NotFound, Refused
from engine.message import Message, now_ms
from engine.node import Product
from engine.stores.certificates import X509_CERTIFICATE
from engine.stores.registry import ACCESS_TOKEN, MQTT_BASIC, Credential, Device
from nodes.codecs.lenient_json import decode_lenient

log = logging.getLogger("rulemill.thingsboard")

Answer = dict[str, Any]

STATE: Final = "provisionState"
"""Server attribute that says whether a device has provisioned itself."""
PROVISIONED: Final = "provisioned"
LEFT_BEHIND_MS: Final = 10_000
"""A request that has not ended for so long died with its process: the device may ask anew."""
ALREADY: Final = "the device has provisioned itself already"

NOT_FOUND: Final[Answer] = {"errorMsg": "Provision data was not found!", "status": "NOT_FOUND"}
FAILURE: Final[Answer] = {"errorMsg": "Failed to provision device!", "status": "FAILURE"}

_SECRETS: Final = frozenset({"provisionDeviceSecret", "token", "password"})
_ALPHANUMERIC: Final = string.ascii_letters + string.digits


class Asked(NamedTuple):
    """A request: `name` is None where the device leaves it to the server, `credential` where it takes any."""

    key: str
    secret: str
    name: str | None
    credential: Credential | None
    gateway: bool
    shown: dict[str, Any]
    """The request as the chain may see it."""


def read_request(body: bytes) -> Asked:
    """The request in a body. Raises BadInput."""
    value = decode_lenient(body)
    if type(value) is not dict:
        raise BadInput("a provision request is an object")
    gateway = value.get("gateway")
    if gateway is not None and type(gateway) is not bool:
        raise BadInput("gateway is not a boolean", "/gateway")
    return Asked(
        key=_needed(value, "provisionDeviceKey"),
        secret=_needed(value, "provisionDeviceSecret"),
        name=None if value.get("deviceName") is None else _text(value, "deviceName").strip(),
        credential=_credential(value),
        gateway=gateway or False,
        shown={name: each for name, each in value.items() if name not in _SECRETS},
    )


async def provision(parts: Parts, asked: Asked, transport: str) -> Answer:
    """Give a device its credential; the answer for it.

    When this returns, what it tells is durable, and so are the messages to the chain. Raises Refused with nothing
    done, and redis errors.
    """
    if asked.name == "":
        return FAILURE
    product = await parts.registry.find_provision_key(asked.key)
    facet = None if product is None else provision_of(product.facets)
    if product is None or facet is None or facet.strategy == "disabled":
        return NOT_FOUND
    if not await _is_secret(parts, product, facet, asked.secret):
        return NOT_FOUND
    work = _Work(parts, asked, product, transport)
    return await (work.make() if facet.strategy == "allow_new" else work.check())


async def _is_secret(parts: Parts, product: Product, facet: Provision, secret: str) -> bool:
    known = await resolved(facet.secret, lambda: parts.registry.secrets(product.tenant))
    return known is not None and hmac.compare_digest(known.encode(), secret.encode())


class _Work:
    """One request whose key and secret are right."""

    def __init__(self, parts: Parts, asked: Asked, product: Product, transport: str) -> None:
        self._parts, self._asked, self._product, self._transport = parts, asked, product, transport

    async def make(self) -> Answer:
        """Make a device of a name that nobody has."""
        asked = self._asked
        name = _random() if asked.name is None else asked.name
        credential = asked.credential or Credential(kind=ACCESS_TOKEN, value=_random())
        device = Device(
            id="", tenant=self._product.tenant, name=name, product=self._product.id, is_gateway=asked.gateway
        )
        try:
            device = await self._put(device, credential)
        except (BadInput, Conflict, NotFound) as error:
            return await self._fail(name, str(error))
        try:
            await self._parts.attributes.write(device.tenant, device.id, "SERVER", {STATE: PROVISIONED})
            await self._parts.intake.submit(
                [
                    self._message(device, "ENTITY_CREATED", device_record(device)),
                    self._message(device, "PROVISION_SUCCESS", {**asked.shown, "deviceName": name}),
                ]
            )
        except Refused:
            # As if it had never been: the device asks again.
            await self._unmake(device)
            raise
        if not await self._parts.registry.announced([device.id]):
            return await self._fail(name, "this took so long that another request began anew")
        return _success(credential)

    async def _put(self, device: Device, credential: Credential) -> Device:
        """Make the device, in place of one that its maker left behind. Raises as `Registry.put_device`."""
        registry = self._parts.registry
        try:
            return await registry.put_device(device, [credential], unannounced=True)
        except Conflict:
            left = await self._known(device.name)
            if left is None or not await self._is_left_behind(left):
                raise
        log.info("device %s was left behind unprovisioned, and is made anew", left.id)
        await self._unmake(left)
        return await registry.put_device(device, [credential], unannounced=True)

    async def _unmake(self, device: Device) -> None:
        with contextlib.suppress(NotFound):
            await self._parts.registry.delete_device(device.tenant, device.id)
        await self._parts.attributes.delete(device.tenant, device.id, "SERVER", [STATE])

    async def _is_left_behind(self, device: Device) -> bool:
        """Whether the device is of a request whose process died: no device was told its credential, and none will be.

        Whoever takes the device's mark may tell a credential or make it anew: of two, one does.
        """
        if device.product != self._product.id or device.parent or now_ms() - device.created_ms < LEFT_BEHIND_MS:
            return False
        return bool(await self._parts.registry.announced([device.id]))

    async def check(self) -> Answer:
        """Tell a device that was made before what it was given; once.

        The credential that waits for it is taken last: while it is there, no request has come to its end.
        """
        parts, asked = self._parts, self._asked
        name = asked.name or ""
        device = await self._known(name)
        if device is None or device.product != self._product.id:
            return await self._fail(name, "no device of that name was made for this product")
        waits = await parts.registry.has_handout(device.id)
        first = await parts.attributes.add(device.tenant, device.id, "SERVER", STATE, PROVISIONED)
        if not first and not (waits and await self._is_overdue(device)):
            return await self._fail(name, ALREADY)
        try:
            await parts.intake.submit([self._message(device, "PROVISION_SUCCESS", asked.shown)])
        except Refused:
            await parts.attributes.delete(device.tenant, device.id, "SERVER", [STATE])
            raise
        credential = await parts.registry.take_handout(device.id)
        if credential is None and waits:
            return await self._fail(name, ALREADY)
        if credential is None:
            # Its own was told already, or set before the product told any: only a new one can be told.
            credential = Credential(kind=ACCESS_TOKEN, value=_random())
            kinds = {each.partition(":")[0] for each in device.credentials}
            await parts.registry.put_device(device, [credential], keep=sorted(kinds - {ACCESS_TOKEN}))
        return _success(credential)

    async def _is_overdue(self, device: Device) -> bool:
        """Whether the request that provisioned the device must have died before its end."""
        server = (await self._parts.attributes.read(device.tenant, device.id))["SERVER"]
        return STATE in server and now_ms() - server[STATE].ts_ms >= LEFT_BEHIND_MS

    async def _known(self, name: str) -> Device | None:
        return (await self._parts.registry.find_names(self._product.tenant, [name])).get(name)

    async def _fail(self, name: str, reason: str) -> Answer:
        """Tell the chain; about the product where there is no such device."""
        device = await self._known(name)
        data, more = self._asked.shown, {"error": reason}
        if device is not None:
            message = self._message(device, "PROVISION_FAILURE", data, more)
        else:
            product = Device(id=self._product.id, tenant=self._product.tenant, name=name, product=self._product.id)
            message = replace(self._message(product, "PROVISION_FAILURE", data, more), originator_type="PRODUCT")
        await self._parts.intake.submit([message])
        return FAILURE

    def _message(
        self, device: Device, type: str, data: dict[str, Any], metadata: dict[str, str] | None = None
    ) -> Message:
        return self._parts.intake.message(
            device, type, data, dialect=DIALECT, transport=self._transport,
            ts_ms=self._parts.intake.stamp(device.id), metadata=metadata,
        )  # fmt: skip


def _success(credential: Credential) -> Answer:
    value: Any = credential.value
    if credential.kind == MQTT_BASIC:
        value = {"clientId": credential.client_id, "userName": credential.username, "password": credential.value}
    return {"credentialsValue": value, "credentialsType": credential.kind, "status": "SUCCESS"}


def _credential(value: dict[str, Any]) -> Credential | None:
    """The credential that a device asks for; None where any will do."""
    kind = value.get("credentialsType")
    if kind is None or kind == ACCESS_TOKEN:
        token = _text(value, "token")
        return Credential(kind=ACCESS_TOKEN, value=token) if token else None
    if kind == MQTT_BASIC:
        password, username, client_id = (_text(value, each) for each in ("password", "username", "clientId"))
        return Credential(kind=MQTT_BASIC, value=password, username=username, client_id=client_id)
    if kind == X509_CERTIFICATE:
        return Credential(kind=X509_CERTIFICATE, value=_needed(value, "hash"))
    raise BadInput(f"unknown credentialsType {str(kind)[:40]!r}", "/credentialsType")


def _needed(value: dict[str, Any], name: str) -> str:
    found = _text(value, name)
    if not found:
        raise BadInput("must be a text that is not empty", f"/{name}")
    return found


def _text(value: dict[str, Any], name: str) -> str:
    """A member that is a text; empty where it is missing. A word without quotes may look like a number."""
    found = value.get(name)
    if type(found) is int:
        return str(found)
    if found is not None and type(found) is not str:
        raise BadInput("must be a text", f"/{name}")
    return found or ""


def _random() -> str:
    """20 letters and digits (`G-17`)."""
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(20))
