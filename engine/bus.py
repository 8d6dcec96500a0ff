"""What is told over Redis's pub/sub, on which channels. All of it is a hint: lost when nobody listens."""

from __future__ import annotations

from typing import Final

from engine.entries import encode

BUS: Final = "rm:bus"
"""Something happened to a device: [kind, tenant, device, body]."""


def notice(reply_to: str, kind: str, data: object, error: str) -> tuple[str, str, bytes]:
    """The command that tells a waiting caller something.

    `kind` is "reply" (the chain's answer), "end" (every copy has ended, `error` if one failed) or "delivered" (a
    one-way command was handed to a session).
    """
    process, number = reply_to.split("/", 2)[:2]
    return ("PUBLISH", f"rm:reply:{process}", encode((number, kind, data, error)))
