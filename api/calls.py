"""Calls of people and apps to devices, through the tenant's chain: the message that makes one, and who waits for it."""

from __future__ import annotations

from typing import Any, Final

from api.server_messages import ServerMessages
from engine.message import Message
from engine.stores.registry import Device

TYPE: Final = "RPC_CALL_FROM_SERVER_TO_DEVICE"
MOST_WAIT_MS: Final = 300_000
"""How long somebody may wait for an answer."""
GRACE_S: Final = 1.0
"""The chain's own word of a timeout may come a little later than the timeout."""


def call_message(
    messages: ServerMessages,
    device: Device,
    method: str,
    params: Any,
    *,
    id: str,
    oneway: bool,
    timeout_ms: int,
    expires_ms: int,
    reply_to: str = "",
    awaited: bool = False,
    kept: bool = False,
) -> Message:
    """The message of a call. `kept`: its way is followed under `id` (stores/kept_calls.py)."""
    metadata = {
        "oneway": "true" if oneway else "false",
        "timeout": str(timeout_ms),
        "expirationTime": str(expires_ms),
        "requestUUID": id,
        "persistent": "true" if kept else "false",
    }
    data = {"method": method, "params": params}
    return messages.make(device, TYPE, data, metadata, reply_to=reply_to, awaited=awaited)
