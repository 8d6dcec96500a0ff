"""What is told over Redis's pub/sub, on which channels. All of it is a hint: lost when nobody listens."""

from __future__ import annotations

from typing import Final

from engine.entries import encode
from engine.message import Message

BUS: Final = "rm:bus"
"""Something happened to a device: [kind, tenant, device, body]."""


def call_name(tenant: str, session: str, request: str) -> str:
    """The name of a call by what its messages say of it (`TB-S23`); another tenant's is another."""
    return f"{tenant}.{session}.{request}"


def caller_of(message: Message) -> str:
    """Where an answer to the message goes: its `reply_to`, or the call that its metadata names; empty: nowhere."""
    if message.reply_to:
        return message.reply_to
    service, session, request = (message.metadata.get(name, "") for name in ("serviceId", "sessionId", "requestId"))
    return f"{service}/{call_name(message.tenant, session, request)}" if service and session and request else ""


def notice(reply_to: str, kind: str, data: object, error: str) -> tuple[str, str, bytes]:
    """The command that tells a waiting caller something.

    `kind` is "reply" (the chain's answer), "end" (every copy has ended, `error` if one failed) or "delivered" (a
    one-way command was handed to a session).
    """
    process, number = reply_to.split("/", 2)[:2]
    return ("PUBLISH", f"rm:reply:{process}", encode((number, kind, data, error)))
