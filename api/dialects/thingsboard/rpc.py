"""Calls in both directions: what a device asks of the server, and commands that it is given over MQTT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from api.dialects.thingsboard.settings import DIALECT, MAX_MQTT_BYTES, SESSION_MAX_ASKED
from api.intake import Intake
from engine.bus import call_name
from engine.message import Message
from engine.replies import Answer, Replies, Waiting
from engine.stores.commands import Pending
from engine.stores.registry import Device

CALL: Final = "TO_SERVER_RPC_REQUEST"
SESSION_LIMITS: Final = "getSessionLimits"


def own_answer(call: dict[str, Any], device: Device, rate_limit: str) -> Any:
    """The answer to a call that is for the transport and not for the chain (`TB-X1`); None for every other."""
    if call["method"] != SESSION_LIMITS:
        return None
    rates = {"messages": rate_limit} if rate_limit else {}
    limits = {"maxPayloadSize": MAX_MQTT_BYTES, "maxInflightMessages": SESSION_MAX_ASKED, "rateLimits": rates}
    return {**limits, "gatewayRateLimits": rates} if device.is_gateway else limits


class CallIds(NamedTuple):
    """What a call is known by, besides the process that waits for its answer."""

    session: str
    request: int


def waiting_for(replies: Replies, device: Device, ids: CallIds) -> Waiting:
    """A place to wait for the answer to a device's call, to which its ids lead other messages too (`TB-S23`)."""
    return replies.wait(call_name(device.tenant, ids.session, str(ids.request)))


def call_message(
    intake: Intake, device: Device, call: dict[str, Any], transport: str, ids: CallIds, waiting: Waiting
) -> Message:
    """The message of a device's call, with the ids that lead to `waiting`."""
    service = waiting.to.partition("/")[0]
    metadata = {"requestId": str(ids.request), "sessionId": ids.session, "serviceId": service}
    return intake.message(
        device, CALL, call, dialect=DIALECT, transport=transport, ts_ms=intake.stamp(device.id), metadata=metadata,
        reply_to=waiting.to,
    )  # fmt: skip


def rendered(answer: Answer) -> bytes:
    """A chain's answer as the device gets it: its data, or `{"error": text}` (`TB-S22`)."""
    return msgspec.json.encode({"error": answer.error} if answer.error else answer.data)


Give = Callable[[Pending], int]
"""Hands a command to a client; whether it wanted it, or UNCONFIRMED."""


def give(receiver: Give, entry: Pending) -> int:
    """How `Deliveries` gives a command to a session of this dialect."""
    return receiver(entry)
