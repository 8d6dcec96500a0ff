"""What may be set of the ThingsBoard dialect, and its limits."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

DIALECT: Final = "tb"
"""Metadata `dialect` of its messages (`G-18`)."""
MQTT: Final = "mqtt"
"""Metadata `transport` of what came over MQTT."""

MAX_RPC_BYTES: Final = 65_536
MAX_BODY_BYTES: Final = 52_428_800
"""Of telemetry and attributes over HTTP (`TB-S9`)."""
MAX_MQTT_BYTES: Final = 65_536
"""Of a publication (`G-12`)."""
SESSION_MAX_ASKED: Final = 100
"""Questions of one MQTT session without an answer yet; it is told this as its limit of messages in flight."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How the dialect behaves where the vendor's server lets people choose."""

    type_cast: bool = True
    """Numeric texts become numbers (`TB-S6`)."""
    max_text: int = 0
    """Longest text value in characters; 0 is no limit (`TB-S6`)."""
    attribute_update_format: Literal["flat", "seed"] = "flat"
    """`seed` wraps an update of the long poll as `{"client": …}` (`TB-34`)."""
    poll_s: float = 60.0
    """Of a long poll that does not say (`TB-S16`)."""
    max_poll_s: float = 300.0
    rpc_s: float = 60.0
    """How long an MQTT device waits for the answer to its call (`TB-S22`)."""
    max_sessions: int = 100
    """MQTT sessions that a device may have in one process; of more, the oldest ends."""
    ota_devices_per_s: float = 100.0
    """How many devices a second are told of a new firmware or software: they will all fetch it."""
    claim_by_default: bool = True
    """Whether every device may open a window for claiming; else those whose server attribute `claimingAllowed` is true
    (`TB-S25`)."""
    claim_ms: int = 86_400_000
    """How long such a window is open where the device does not say."""
    gateway_devices: Literal["tenant", "own"] = "tenant"
    """Whom a gateway may speak for (`TB-X2`): any device of its tenant, as the vendor has it, or those under it."""
    gateway_max_devices: int = 10_000
    """Devices under a gateway, and devices that one session of it speaks for."""
    gateway_new_per_s: float = 100.0
    """Devices that a gateway may have made; more wait, and what it publishes with them."""
    gateway_new_burst: int = 1_000
    """How many of them at once."""
    sync_s: float = 30.0
    """How long `?sync=true` waits for the chain (`G-20`)."""
