"""What a device publishes over MQTT: telemetry, attributes, questions, calls and answers to commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from api.dialects.thingsboard.payload import attributes_message, telemetry_messages, visible
from api.dialects.thingsboard.rpc import call_message, own_answer, rendered
from api.dialects.thingsboard.settings import MQTT
from api.dialects.thingsboard.topics import Verdict
from api.transports.mqtt.dialect import Accepted
from engine.replies import Waiting

if TYPE_CHECKING:
    from api.dialects.thingsboard.session import DeviceLogin

PASSED: Final = Accepted()
"""The publication is dealt with; there is nothing to store."""

_TIMEOUT: Final = b'{"error":"timeout"}'


def telemetry(session: DeviceLogin, body: bytes, _: tuple[int, ...]) -> Verdict:
    """Readings in forms A, B and C (`TB-6`…`TB-8`)."""
    readings = session.payloads.telemetry(body)
    if not readings:
        return PASSED
    return Accepted(telemetry_messages(session.parts.intake, session.device, readings, MQTT))


def attributes(session: DeviceLogin, body: bytes, _: tuple[int, ...]) -> Verdict:
    """The device's own attributes (`TB-15`)."""
    values = session.payloads.attributes(body)
    if not values:
        return PASSED
    return Accepted([attributes_message(session.parts.intake, session.device, values, MQTT)])


def attributes_request(session: DeviceLogin, body: bytes, numbers: tuple[int, ...], *, answer: str) -> Verdict:
    """A question for attributes; the answer goes to the topic `answer` and the number (`TB-S12`)."""
    client, shared = session.payloads.wanted(body)
    device, topic = session.device, f"{answer}{numbers[0]}"

    async def tell() -> None:
        found = await session.parts.attributes.read(device.tenant, device.id)
        session.send(topic, msgspec.json.encode(visible(found, client, shared)))

    return session.work(tell)


def command_answer(session: DeviceLogin, body: bytes, numbers: tuple[int, ...]) -> Verdict:
    """The answer to a command (`TB-42`), whether or not anybody still waits for it (`TB-S21`)."""
    device, id, value = session.device, numbers[0], session.payloads.answer(body)

    async def store() -> None:
        await session.parts.commands.answer(device.tenant, device.id, id, value)

    return session.work(store)


def call(session: DeviceLogin, body: bytes, numbers: tuple[int, ...], *, answer: str) -> Verdict:
    """A call of the device; the chain's answer goes to the topic `answer` and the number (`TB-45`)."""
    asked, topic = session.payloads.call(body), f"{answer}{numbers[0]}"
    own = own_answer(asked, session.device)
    if own is not None:
        session.send(topic, msgspec.json.encode(own))
        return PASSED
    waiting = session.parts.replies.wait()
    message = call_message(
        session.parts.intake, session.device, asked, MQTT,
        request=numbers[0], session=session.id, reply_to=waiting.to,
    )  # fmt: skip
    refusal = session.wait_for(waiting, _tell_answer(session, waiting, topic))
    return refusal or Accepted([message])


async def _tell_answer(session: DeviceLogin, waiting: Waiting, topic: str) -> None:
    answer = await waiting.next(session.parts.settings.rpc_s)
    session.send(topic, _TIMEOUT if answer is None else rendered(answer))
