"""Who is connected by MQTT, so that a login that no longer holds ends at once and not with its next publication."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from redis.exceptions import RedisError

from engine.service import end

log = logging.getLogger("rulemill.cloudthing")

TRY_AGAIN_S: Final = 1.0


class Watched(Protocol):
    """A login of one device."""

    scope: str
    """The device's id."""

    async def verify(self) -> None:
        """End the login unless it still holds. Raises redis errors."""


class Logins:
    """The logins of this process, looked at again when their device changes."""

    def __init__(self) -> None:
        self._logins: dict[str, list[Watched]] = {}
        self._doubtful: dict[str, None] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, login: Watched) -> None:
        """Somebody logged in."""
        self._logins.setdefault(login.scope, []).append(login)

    def remove(self, login: Watched) -> None:
        """Somebody left."""
        logins = self._logins.get(login.scope, [])
        if login in logins:
            logins.remove(login)
        if not logins:
            self._logins.pop(login.scope, None)

    def changed(self, device_id: str) -> None:
        """A device was changed or deleted; "" when any may have been."""
        if device_id and device_id not in self._logins:
            return
        self._doubtful.update(dict.fromkeys([device_id] if device_id else self._logins))
        if self._task is None and self._doubtful:
            self._task = asyncio.get_running_loop().create_task(self._verify(), name="ct-logins")

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            await end(self._task)

    async def _verify(self) -> None:
        try:
            while self._doubtful:
                device_id = next(iter(self._doubtful))
                del self._doubtful[device_id]
                try:
                    for login in list(self._logins.get(device_id, ())):
                        await login.verify()
                except RedisError as error:
                    log.warning("logins are not verified until Redis answers: %s", error)
                    self._doubtful[device_id] = None
                    await asyncio.sleep(TRY_AGAIN_S)
        finally:
            self._task = None
