"""What may be set of the ThingsBoard dialect, and its limits."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from api.rate_limits import PATTERN

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


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the dialect behaves where the vendor's server lets people choose."""

    type_cast: Annotated[bool, Meta(description="Numeric texts become numbers (`TB-S6`).")] = True
    max_text: Annotated[int, Meta(description="Longest text value in characters; 0 is no limit (`TB-S6`).")] = 0
    rate_limit: Annotated[
        str,
        Meta(
            pattern=PATTERN,
            description="Requests and publications of one device in one process, as `count:seconds`, several with "
            "commas between; empty is no limit (`TB-S40`).",
        ),
    ] = ""
    attribute_update_format: Annotated[
        Literal["flat", "seed"],
        Meta(description='`seed` wraps an update of the long poll as `{"client": …}` (`TB-34`).'),
    ] = "flat"
    poll_s: Annotated[float, Meta(description="Of a long poll that does not say (`TB-S16`).")] = 60.0
    max_poll_s: Annotated[float, Meta(description="Longest wait that a long poll may ask for (`TB-S16`).")] = 300.0
    rpc_s: Annotated[
        float,
        Meta(description="How long an MQTT device waits for the answer to its call (`TB-S22`)."),
    ] = 60.0
    max_sessions: Annotated[
        int,
        Meta(description="MQTT sessions that a device may have in one process; of more, the oldest ends."),
    ] = 100
    ota_devices_per_s: Annotated[
        float,
        Meta(description="How many devices a second are told of a new firmware or software: they will all fetch it."),
    ] = 100.0
    claim_by_default: Annotated[
        bool,
        Meta(
            description="Whether every device may open a window for claiming; else those whose server attribute "
            "`claimingAllowed` is true (`TB-S25`)."
        ),
    ] = True
    claim_ms: Annotated[
        int,
        Meta(description="How long such a window is open where the device does not say."),
    ] = 86_400_000
    gateway_devices: Annotated[
        Literal["tenant", "own"],
        Meta(
            description="Whom a gateway may speak for (`TB-X2`): any device of its tenant, as the vendor has it, or "
            "those under it."
        ),
    ] = "tenant"
    gateway_max_devices: Annotated[
        int,
        Meta(description="Devices under a gateway, and devices that one session of it speaks for."),
    ] = 10_000
    gateway_new_per_s: Annotated[
        float,
        Meta(description="Devices that a gateway may have made; more wait, and what it publishes with them."),
    ] = 100.0
    gateway_new_burst: Annotated[int, Meta(description="How many of them at once.")] = 1_000
    sync_s: Annotated[float, Meta(description="How long `?sync=true` waits for the chain (`G-20`).")] = 30.0
