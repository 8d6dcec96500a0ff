"""What both transports of the dialect are made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from api.auth import DeviceAuth
from api.dialects.thingsboard.settings import Settings
from api.intake import Intake
from api.live import Live
from api.rate_limits import RateLimits
from engine.replies import Replies
from engine.stores.attribute_store import Attributes
from engine.stores.claims import Claims
from engine.stores.commands import Commands
from engine.stores.firmware import Firmware
from engine.stores.registry_store import Registry
from engine.stores.rollouts import Rollouts
from engine.stores.tellings import Tellings


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Parts of the process; all of them are started and stopped by who made them."""

    auth: DeviceAuth
    intake: Intake
    replies: Replies
    commands: Commands
    attributes: Attributes
    live: Live
    registry: Registry
    claims: Claims
    tellings: Tellings
    firmware: Firmware
    rollouts: Rollouts
    limits: RateLimits
    settings: Settings = field(default_factory=Settings)
