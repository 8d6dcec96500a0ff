"""Provisioning (`TB-55`, `TB-S30`…`TB-S33`): a device asks for its credential with its product's key and secret.

`provision` is for every transport. What the chain is told holds no secret, and none of the credentials asked for.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import secrets
import string
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from api.device_record import device_record
from api.dialects.thingsboard.parts import Parts
from api.dialects.thingsboard.provision_request import Asked
from api.dialects.thingsboard.settings import DIALECT
from api.networks import resolved
from api.provision_facet import Provision, provision_of
from engine.errors import BadInput, Conflict, NotFound, Refused
from engine.failpoints import failpoint
from engine.message import Message, now_ms
from engine.node import Product
from engine.stores.activity import LAST_ACTIVITY
from engine.stores.registry import ACCESS_TOKEN, MQTT_BASIC, Credential, Device, fingerprint

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

_ALPHANUMERIC: Final = string.ascii_letters + string.digits


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
    answer = await (work.make() if facet.strategy == "allow_new" else work.check())
    failpoint("before-answer")
    return answer


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
            return await self._again(await self._known(name)) or await self._fail(name, str(error))
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
        if asked.name is not None:
            # Without a name it could not ask again.
            await self._parts.tellings.note(device, credential, self._wanted)
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
        waiting = await parts.tellings.waiting(device.id)
        state = (await parts.attributes.read(device.tenant, device.id))["SERVER"].get(STATE)
        # A request that provisioned it long ago, and has not come to its end, must have died.
        if state is not None and (waiting is None or now_ms() - state.ts_ms < LEFT_BEHIND_MS):
            return await self._again(device) or await self._fail(name, ALREADY)
        # If none waits, its own was told already, or set before the product told any: only a new one can be told.
        credential = waiting or Credential(kind=ACCESS_TOKEN, value=_random())
        await parts.tellings.note(device, credential, self._wanted)
        first = await parts.attributes.add(device.tenant, device.id, "SERVER", STATE, PROVISIONED)
        if state is None and not first:
            return await self._fail(name, ALREADY)
        try:
            await parts.intake.submit([self._message(device, "PROVISION_SUCCESS", asked.shown)])
        except Refused:
            await parts.attributes.delete(device.tenant, device.id, "SERVER", [STATE])
            raise
        if waiting is None:
            await self._give(device, credential)
            return _success(credential)
        taken = await parts.registry.take_handout(device.id)
        return _success(taken) if taken is not None else await self._fail(name, ALREADY)

    async def _give(self, device: Device, credential: Credential) -> None:
        """Set the device's token in place of the one it had."""
        kinds = {each.partition(":")[0] for each in device.credentials}
        await self._parts.registry.put_device(device, [credential], keep=sorted(kinds - {ACCESS_TOKEN}))

    @property
    def _wanted(self) -> bytes:
        """What a device that asks again has to want, besides the name."""
        return msgspec.json.encode((self._product.id, self._asked.credential, self._asked.gateway))

    async def _again(self, device: Device | None) -> Answer | None:
        """The answer that the device was given before, if it seems to be lost: it asks for the same as then.

        None for a device that has said something since, and for one whose credentials somebody has changed.
        """
        telling = await self._parts.tellings.find(device.id) if device is not None else None
        if device is None or telling is None or not telling.answers(self._wanted):
            return None
        server = (await self._parts.attributes.read(device.tenant, device.id))["SERVER"]
        heard_ms = server[LAST_ACTIVITY].value if LAST_ACTIVITY in server else 0
        if isinstance(heard_ms, int) and heard_ms >= telling.told_ms:
            await self._parts.tellings.forget(device.id)
            return None
        credential = telling.credential
        is_set = f"{credential.kind}:{fingerprint(device, credential)}" in device.credentials
        if not (is_set or device.credentials == telling.had) or not await self._parts.tellings.again(device.id):
            return None
        if not is_set:
            # Whether the chain was told is not known.
            await self._parts.intake.submit([self._message(device, "PROVISION_SUCCESS", self._asked.shown)])
            await self._give(device, credential)
        log.info("device %s asks for its credential again, and is told it again", device.id)
        return _success(credential)

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


def _random() -> str:
    """20 letters and digits (`G-17`)."""
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(20))
