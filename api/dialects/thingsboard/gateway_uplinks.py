"""What a gateway publishes (`TB-X2`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from api.dialects.thingsboard.claims import wanted_of
from api.dialects.thingsboard.gateway import ROOT, Gateway
from api.dialects.thingsboard.mqtt_claims import open_soon
from api.dialects.thingsboard.payload import attributes_message, telemetry_messages
from api.dialects.thingsboard.settings import MQTT
from api.dialects.thingsboard.topics import Verdict
from api.dialects.thingsboard.uplinks import PASSED
from engine.errors import BadInput
from engine.message import Message
from engine.stores.attributes import Scope
from engine.stores.registry import Device
from nodes.codecs.values import check_key

if TYPE_CHECKING:
    from api.dialects.thingsboard.session import DeviceLogin

T = TypeVar("T")

_INT32: Final = 2**31


def telemetry(session: DeviceLogin, body: bytes, _: tuple[int, ...]) -> Verdict:
    """`{device: [readings]}`; each array in the forms of a device's own."""
    entries, problems = _read(session, body, session.payloads.readings)
    intake = session.parts.intake
    return _gateway(session).say(
        entries, lambda device, readings: telemetry_messages(intake, device, readings, MQTT), problems
    )


def attributes(session: DeviceLogin, body: bytes, _: tuple[int, ...]) -> Verdict:
    """`{device: {key: value}}`."""
    entries, problems = _read(session, body, session.payloads.attribute_values)
    intake = session.parts.intake
    return _gateway(session).say(
        entries, lambda device, values: [attributes_message(intake, device, values, MQTT)] if values else [], problems
    )


def connect(session: DeviceLogin, body: bytes, _: tuple[int, ...]) -> Verdict:
    """`{"device", "type"}`: the gateway speaks for a device from now on."""
    name, said = session.payloads.of_device(body)
    type = said.get("type")
    if type is not None and not isinstance(type, str):
        raise BadInput("the type of the device is no text", "/type")
    return _gateway(session).do({name: None}, _nothing, {}, type or "")


def disconnect(session: DeviceLogin, body: bytes, _: tuple[int, ...]) -> Verdict:
    """`{"device"}`: it does no more."""
    _gateway(session).release(session.payloads.of_device(body)[0])
    return PASSED


def attributes_request(session: DeviceLogin, body: bytes, _: tuple[int, ...]) -> Verdict:
    """`{"id", "device", "client", "key"}`, or `"keys"`."""
    name, said = session.payloads.of_device(body)
    id, client = _id(said), said.get("client")
    if client not in (True, False, None):
        raise BadInput("client is true or false", "/client")
    keys = [said["key"]] if "key" in said else said.get("keys")
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise BadInput("key is a text, keys an array of texts", "/keys")
    scope: Scope = "CLIENT" if client else "SHARED"

    async def tell(device: Device, keys: Sequence[str]) -> Sequence[Message]:
        known = (await session.parts.attributes.read(device.tenant, device.id))[scope]
        found = {key: known[key].value for key in keys if key in known}
        answer: dict[str, Any] = {"id": id, "device": name}
        if len(keys) != 1:
            answer["values"] = found
        elif found:
            answer["value"] = found[keys[0]]
        session.answer(ROOT + "attributes/response", msgspec.json.encode(answer))
        return ()

    return _gateway(session).do({name: keys}, tell, {})


def command_answer(session: DeviceLogin, body: bytes, _: tuple[int, ...]) -> Verdict:
    """`{"device", "id", "data"}`, whether or not anybody still waits for it (`TB-S21`)."""
    name, said = session.payloads.of_device(body)
    id, data = _id(said), said.get("data")

    async def store() -> None:
        found = await session.parts.auth.find_names(session.device.tenant, [name])
        if name in found:
            await session.parts.commands.answer(session.device.tenant, found[name].id, id, data)

    return session.work(store)


def claim(session: DeviceLogin, body: bytes, _: tuple[int, ...]) -> Verdict:
    """`{device: {"secretKey", "durationMs"}}`: its devices let themselves be claimed."""
    default_ms = session.parts.settings.claim_ms
    entries, problems = _read(session, body, lambda value: wanted_of(value, default_ms))
    return _gateway(session).do(entries, partial(open_soon, session.parts), problems)


async def _nothing(device: Device, _: None) -> Sequence[Message]:
    return ()


def _gateway(session: DeviceLogin) -> Gateway:
    assert session.gateway is not None  # the topics are those of gateways
    return session.gateway


def _read(session: DeviceLogin, body: bytes, read: Callable[[Any], T]) -> tuple[dict[str, T], dict[str, str]]:
    """What is said of each device, by name, and why it cannot be read."""
    entries: dict[str, T] = {}
    problems: dict[str, str] = {}
    for name, value in session.payloads.by_device(body).items():
        try:
            check_key(name)
            if isinstance(value, BadInput):
                raise value
            entries[name] = read(value)
        except BadInput as error:
            problems[name] = str(error)
    return entries, problems


def _id(said: dict[str, Any]) -> int:
    """The number of a question or command; a text of digits is one too, as the vendor's server reads it."""
    id = said.get("id")
    if type(id) is str and id.isascii() and id.isdecimal() and len(id) <= 10:
        id = int(id)
    if type(id) is not int or not -_INT32 <= id < _INT32:
        raise BadInput("id is a number of 32 bits", "/id")
    return id
