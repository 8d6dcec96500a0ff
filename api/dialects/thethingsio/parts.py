"""What all surfaces of the dialect are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from redis.asyncio import Redis

from api.auth import DeviceAuth
from api.dialects.thethingsio.settings import Settings
from api.intake import Intake
from api.live import Live
from api.live_values import LiveValues
from api.login_throttle import LoginThrottle
from api.passwords import Passwords
from engine.stores.alarm_store import AlarmStore
from engine.stores.apps.activations import Activations
from engine.stores.apps.apps import Apps
from engine.stores.apps.objects import Objects
from engine.stores.apps.rights import Rights
from engine.stores.apps.sessions import Sessions
from engine.stores.apps.users import Users
from engine.stores.attribute_store import Attributes
from engine.stores.firmware import Firmware
from engine.stores.registry_store import Registry
from engine.stores.timeseries import Timeseries


class Mail(Protocol):
    """Sends mail, sooner or later."""

    async def send(self, to: str, subject: str, text: str) -> None:
        """Return when the mail is kept and will be sent; raises redis errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Parts of the process; all of them are started and stopped by who made them."""

    redis: Redis
    auth: DeviceAuth
    registry: Registry
    intake: Intake
    store: Timeseries
    attributes: Attributes
    alarms: AlarmStore
    live: Live
    live_values: LiveValues
    apps: Apps
    users: Users
    sessions: Sessions
    rights: Rights
    objects: Objects
    activations: Activations
    firmware: Firmware
    passwords: Passwords
    throttle: LoginThrottle
    mail: Mail
    settings: Settings = field(default_factory=Settings)
