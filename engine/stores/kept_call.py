"""A call to a device that somebody wants to follow, and its way from state to state.

States are ThingsBoard's (`TB-X4`). QUEUED waits for the device, SENT was handed to a session, DELIVERED was confirmed
by it, SUCCESSFUL is answered. TIMEOUT was not confirmed and is sent again, FAILED too often, EXPIRED is too late.

What happens to a call is a function of the call and the time; it gives the call as it is then, or None to leave it.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec.structs import replace

Status = Literal["QUEUED", "SENT", "DELIVERED", "SUCCESSFUL", "TIMEOUT", "EXPIRED", "FAILED"]

KEEP_MS: Final = 7 * 86_400_000
"""How long a call is kept that has ended."""
MOST_AHEAD_MS: Final = 30 * 86_400_000
"""How long a call may wait for its device."""
CONFIRM_MS: Final = 10_000
"""How long a session has to confirm a call that it was handed."""
MOST_RETRIES: Final = 5

_ENDED: Final = frozenset({"SUCCESSFUL", "EXPIRED", "FAILED"})


class KeptCall(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A call and what became of it."""

    id: str
    tenant: str
    device: str
    method: str
    params: Any
    oneway: bool
    created_ms: int
    expires_ms: int
    retries: int = MOST_RETRIES
    """How often it may be sent again."""
    info: Any = None
    """What whoever made it wants to find there again."""
    metadata: dict[str, str] = {}
    """Of the messages that tell of it."""
    status: Status = "QUEUED"
    attempts: int = 0
    response: Any = None
    due_ms: int = 0
    """When it is looked at: its session should have confirmed it, it is too late, or it may be forgotten."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen; a one-way call has nothing to wait for once it is delivered."""
        return self.status in _ENDED or (self.oneway and self.status == "DELIVERED")


decode_call: Final = msgspec.msgpack.Decoder(KeptCall).decode


def sent(known: KeptCall, now: int) -> KeptCall | None:
    """A session was handed the call and will confirm it."""
    if known.status not in ("QUEUED", "TIMEOUT"):
        return None
    return replace(known, status="SENT", due_ms=min(now + CONFIRM_MS, known.expires_ms))


def confirmed(known: KeptCall, now: int) -> KeptCall | None:
    """The device has the call."""
    if known.status not in ("QUEUED", "SENT", "TIMEOUT"):
        return None
    return replace(known, status="DELIVERED", due_ms=now + KEEP_MS if known.oneway else known.expires_ms)


def answered(known: KeptCall, now: int, body: Any) -> KeptCall | None:
    """The device has answered."""
    return None if known.ended else replace(known, status="SUCCESSFUL", response=body, due_ms=now + KEEP_MS)


def overdue(known: KeptCall, now: int) -> KeptCall:
    """What becomes of an open call whose time has come."""
    if now >= known.expires_ms:
        return replace(known, status="EXPIRED", due_ms=now + KEEP_MS)
    if known.attempts < known.retries:
        return replace(known, status="TIMEOUT", attempts=known.attempts + 1, due_ms=known.expires_ms)
    reason = f"no session confirmed it, and it was sent again {known.attempts} times"
    return replace(known, status="FAILED", response={"error": reason}, due_ms=now + KEEP_MS)
