"""A device lets itself be claimed over MQTT (`TB-X1`)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from api.dialects.thingsboard.claims import Wanted, open_window, read_claim
from api.dialects.thingsboard.parts import Parts
from api.dialects.thingsboard.settings import MQTT
from api.dialects.thingsboard.topics import Verdict
from api.transports.mqtt.dialect import Accepted
from engine.errors import Refused
from engine.message import Message
from engine.stores.registry import Device

if TYPE_CHECKING:
    from api.dialects.thingsboard.session import DeviceLogin


def claim(session: DeviceLogin, body: bytes, _: tuple[int, ...]) -> Verdict:
    """A claim (`TB-50`), acknowledged when its window is durable."""
    wanted = read_claim(body, session.parts.settings.claim_ms)
    return Accepted(first=partial(open_soon, session.parts, session.device, wanted))


async def open_soon(parts: Parts, device: Device, wanted: Wanted) -> list[Message]:
    """The same as `open_window`; Refused where Redis does not answer."""
    try:
        return await open_window(parts, device, wanted, MQTT)
    except RedisError as error:
        raise Refused("storage does not answer") from error
