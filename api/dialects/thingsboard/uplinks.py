"""What a device publishes over MQTT: telemetry, attributes, questions, calls and answers to commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from api.dialects.thingsboard.encodings import Form
from api.dialects.thingsboard.payload import attributes_message, raw_message, telemetry_messages
from api.dialects.thingsboard.rpc import CallIds, call_message, own_answer, waiting_for
from api.dialects.thingsboard.settings import MQTT
from api.dialects.thingsboard.topics import Verdict
from api.transports.mqtt.dialect import Accepted

if TYPE_CHECKING:
    from api.dialects.thingsboard.session import DeviceLogin

PASSED: Final = Accepted()
"""The publication is dealt with; there is nothing to store."""


def telemetry(session: DeviceLogin, body: bytes, _: tuple[int, ...], *, form: Form = Form.OWN) -> Verdict:
    """Readings; as JSON in forms A, B and C (`TB-6`…`TB-8`)."""
    if session.forms.custom and form is Form.OWN:
        return Accepted([raw_message(session.parts.intake, session.device, body, MQTT)])
    readings = session.forms.up[form].telemetry(body)
    if not readings:
        return PASSED
    return Accepted(telemetry_messages(session.parts.intake, session.device, readings, MQTT))


def attributes(session: DeviceLogin, body: bytes, _: tuple[int, ...], *, form: Form = Form.OWN) -> Verdict:
    """The device's own attributes (`TB-15`)."""
    values = session.forms.up[form].attributes(body)
    if not values:
        return PASSED
    return Accepted([attributes_message(session.parts.intake, session.device, values, MQTT)])


def attributes_request(
    session: DeviceLogin, body: bytes, numbers: tuple[int, ...], *, answer: str, form: Form = Form.OWN
) -> Verdict:
    """A question for attributes; the answer goes to the topic `answer` and the number (`TB-S12`)."""
    client, shared = session.forms.up[form].wanted(body)
    device, (id,) = session.device, numbers

    async def tell() -> None:
        found = await session.parts.attributes.read(device.tenant, device.id)
        session.answer(f"{answer}{id}", session.forms.down[form].found(id, found, client, shared))

    return session.work(tell)


def command_answer(session: DeviceLogin, body: bytes, numbers: tuple[int, ...], *, form: Form = Form.OWN) -> Verdict:
    """The answer to a command (`TB-42`), whether or not anybody still waits for it (`TB-S21`)."""
    device, id, value = session.device, numbers[0], session.forms.up[form].answer(body)

    async def store() -> None:
        await session.parts.commands.answer(device.tenant, device.id, id, value)

    return session.work(store)


def call(session: DeviceLogin, body: bytes, numbers: tuple[int, ...], *, answer: str, form: Form = Form.OWN) -> Verdict:
    """A call of the device; the chain's answer goes to the topic `answer` and the number (`TB-45`)."""
    asked, (id,) = session.forms.up[form].call(body), numbers
    own = own_answer(asked, session.device, session.parts.settings.rate_limit)
    if own is not None:
        session.answer(f"{answer}{id}", session.forms.down[form].own_answer(id, own))
        return PASSED
    ids = CallIds(session.id, id)
    waiting = waiting_for(session.parts.replies, session.device, ids)
    message = call_message(session.parts.intake, session.device, asked, MQTT, ids, waiting)

    async def tell() -> None:
        answered = await waiting.next(session.parts.settings.rpc_s)
        session.answer(f"{answer}{id}", session.forms.down[form].call_answer(id, answered))

    return session.wait_for(waiting, tell()) or Accepted([message])
