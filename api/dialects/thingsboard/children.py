"""Devices that speak through a gateway (`TB-X2`): found by their names in its tenant, made on first use."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
from redis.exceptions import RedisError

from api.auth import DeviceAuth, Unknown
from api.dialects.thingsboard.settings import Settings
from engine.errors import BadInput, Conflict, Refused
from engine.service import end_all
from engine.stores.registry import Device, check_name
from engine.stores.registry_store import Registry

log = logging.getLogger("rulemill.thingsboard")

DEFAULT_TYPE: Final = "default"
MAX_TYPE_CHARS: Final = 255
AT_ONCE: Final = 16
"""Devices that are made side by side: each takes several round trips."""
REMEMBERED: Final = 10_000
"""Gateways whose allowance for new devices is remembered; one that is not has all of it."""


class Found(NamedTuple):
    """What became of names: devices, those of them that no chain was told of yet, and why there is none, by name."""

    devices: dict[str, Device]
    fresh: list[Device]
    problems: dict[str, str]


class Children:
    """The devices of all gateways of a process."""

    def __init__(self, auth: DeviceAuth, registry: Registry, settings: Settings) -> None:
        self._auth, self._registry, self._settings = auth, registry, settings
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """End what goes on in the background."""
        await end_all(self._tasks)

    def known(self, gateway: Device, name: str) -> Device | None:
        """A device that the gateway may speak for, from memory; None where that cannot tell, or says no."""
        device = self._auth.known_name(gateway.tenant, name)
        return None if isinstance(device, Unknown) or self._problem(gateway, device) else device

    async def find(self, gateway: Device, types: Mapping[str, str]) -> Found:
        """The devices of these names, made with these types where there are none; empty is no type.

        Raises Refused where more are new than the gateway may have made at a time: those that it may are there when it
        is tried again. Raises redis errors.
        """
        devices = await self._auth.find_names(gateway.tenant, list(types))
        missing = {name: type for name, type in types.items() if name not in devices}
        made, problems = await self._make(gateway, missing)
        devices |= await self._auth.find_names(gateway.tenant, made)
        for name, device in list(devices.items()):
            problem = self._problem(gateway, device)
            if problem:
                problems[name] = problem
                del devices[name]
        fresh = await self._registry.unannounced([device.id for device in devices.values()])
        return Found(devices, [device for device in devices.values() if device.id in fresh], problems)

    async def adopt(self, gateway: Device, device: Device) -> None:
        """Note that the gateway is the one that spoke for the device last."""
        if device.parent != gateway.id and device.id != gateway.id:
            await self._registry.set_parent(gateway.tenant, device.id, gateway.id)

    def told(self, ids: Sequence[str]) -> None:
        """It is durable what chains are told of these new devices."""
        task = asyncio.get_running_loop().create_task(self._note_told(ids))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _note_told(self, ids: Sequence[str]) -> None:
        try:
            await self._registry.announced(ids)
        except RedisError as error:
            # Told twice is better than never.
            log.warning("%d new devices may be announced again: %s", len(ids), error)

    def _problem(self, gateway: Device, device: Device) -> str:
        """Why a gateway may not speak for a device; empty where it may."""
        if not device.enabled:
            return "the device is disabled"
        if self._settings.gateway_devices == "own" and device.parent != gateway.id:
            return "the device is not one of this gateway's"
        return ""

    async def _make(self, gateway: Device, types: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
        """Make devices; the names of those that are there now, and why others are not."""
        problems: dict[str, str] = {}
        if not types:
            return [], problems
        limit, waits = self._settings.gateway_max_devices, False
        room = limit - await self._registry.count_children(gateway.id)
        made: list[str] = []
        for name in types:
            try:
                check_name(name)
            except BadInput as error:
                problems[name] = error.reason
                continue
            if len(made) >= room:
                problems[name] = f"the gateway has its most devices, {limit}"
                continue
            if waits := not self._allowance(gateway).take():
                break
            made.append(name)
        for i in range(0, len(made), AT_ONCE):
            puts = [self._put(gateway, name, types[name]) for name in made[i : i + AT_ONCE]]
            for failure in await asyncio.gather(*puts, return_exceptions=True):
                if failure is not None:
                    raise failure
        if waits:
            log.warning("gateway %s has to wait: it makes too many devices at a time", gateway.id)
            raise Refused(f"no more than {self._settings.gateway_new_per_s:g} new devices a second")
        return made, problems

    async def _put(self, gateway: Device, name: str, type: str) -> None:
        """Make a device, unless somebody else just did."""
        device = Device(id="", tenant=gateway.tenant, name=name, parent=gateway.id)
        if type not in ("", DEFAULT_TYPE):
            # A product of that name is what the vendor calls the profile.
            known = await self._auth.find_product(gateway.tenant, type)
            device = msgspec.structs.replace(
                device, product=type if known else "", type="" if known else type[:MAX_TYPE_CHARS]
            )
        with contextlib.suppress(Conflict):
            await self._registry.put_device(device, unannounced=True)

    def _allowance(self, gateway: Device) -> _Allowance:
        allowance = self._allowances.pop(gateway.id, None)
        if allowance is None:
            allowance = _Allowance(self._settings.gateway_new_per_s, self._settings.gateway_new_burst)
        self._allowances[gateway.id] = allowance
        if len(self._allowances) > REMEMBERED:
            self._allowances.popitem(last=False)
        return allowance


class _Allowance:
    """How many devices may be made now: so many at once, and then so many a second."""

    __slots__ = ("_at_s", "_burst", "_left", "_per_s")

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s, self._burst = per_s, burst
        self._left, self._at_s = float(burst), time.monotonic()

    def take(self) -> bool:
        """Take one, if there is one."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at_s) * self._per_s)
        self._at_s = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
