"""Tells devices which firmware and software they shall have (`TB-60`, `TB-S37`): in the background, some at a time.

What is assigned stands in Redis, and so does how far telling it has come. A device that has been told says so by its
shared attributes: so everything may be done twice, by whichever process holds the lease.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, Final

import redis.asyncio as redis
from msgspec.structs import replace
from redis.exceptions import RedisError

from api.alone import Alone
from api.dialects.thingsboard.parts import Parts
from api.dialects.thingsboard.payload import TELEMETRY
from api.dialects.thingsboard.settings import DIALECT
from engine.errors import Refused
from engine.message import Message, now_ms
from engine.stores.firmware import KINDS, PREFIXES, Image, Kind
from engine.stores.registry import Device
from engine.stores.rollouts import Rollout

log = logging.getLogger("rulemill.thingsboard.rollout")

TRANSPORT: Final = "ota"
"""Metadata `transport` of what the server says about a device's update."""
AT_ONCE: Final = 100
IDLE_S: Final = 0.5
AGAIN_S: Final = 1.0

_MEMBERS: Final = ("title", "version", "size", "checksum", "checksum_algorithm", "tag", "url")


class RolloutWork:
    """Runs in one API process of all. At most `Settings.ota_devices_per_s` devices learn something new each second."""

    def __init__(self, parts: Parts, client: redis.Redis, *, idle_s: float = IDLE_S) -> None:
        self._parts, self._idle_s = parts, idle_s
        self._rollouts = parts.rollouts
        self._alone = Alone(client, "ota", self.work)

    async def start(self) -> None:
        """Begin to ask for the lease."""
        await self._alone.start()

    async def stop(self) -> None:
        """End; what is left goes on elsewhere, or at the next start."""
        await self._alone.stop()

    async def work(self) -> None:
        """Do what there is to do, for ever."""
        fresh = True
        while True:
            try:
                if fresh:
                    await self._rollouts.take_back()
                    fresh = False
                if not await self.step():
                    await asyncio.sleep(self._idle_s)
            except (RedisError, Refused) as error:
                log.warning("devices are told of their firmware later: %s", error)
                fresh = True
                await asyncio.sleep(AGAIN_S)

    async def step(self) -> bool:
        """Do some of everything that is to be done; False if that is nothing."""
        due = await self._rollouts.take_due(AT_ONCE)
        if due:
            await self._tell(due, KINDS)
            await self._rollouts.done(due)
        open_ = [each for each in await self._rollouts.all() if not each.finished_ms]
        for rollout in open_:
            await self._go_on(rollout)
        return bool(due or open_)

    async def _go_on(self, rollout: Rollout) -> None:
        rollout, ids = await self._rollouts.devices(rollout, AT_ONCE)
        told = 0
        # A small hash is given in one piece.
        for i in range(0, len(ids), AT_ONCE):
            told += await self._tell(ids[i : i + AT_ONCE], (rollout.kind,), rollout.product)
        finished_ms = 0 if rollout.cursor else now_ms()
        await self._rollouts.save(replace(rollout, told=rollout.told + told, finished_ms=finished_ms))

    async def _tell(self, ids: Sequence[str], kinds: Sequence[Kind], product: str = "") -> int:
        """Tell those of the devices (of a product, if one is given) that something is new for; how many there were."""
        begun = time.monotonic()
        devices = await self._parts.registry.of_ids(ids)
        if product:
            devices = [device for device in devices if device.product == product]
        told = 0
        for device in devices:
            shared = (await self._parts.attributes.read(device.tenant, device.id))["SHARED"]
            assigned = await self._parts.rollouts.of_device(device.id, device.product)
            new = False
            for kind in kinds:
                assignment = assigned.get(kind)
                image = (
                    None if assignment is None else await self._parts.firmware.find(device.product, assignment.image)
                )
                known = {key: shared[key].value for key in keys_of(kind) if key in shared}
                wanted = {} if image is None else attributes_of(image)
                if wanted != known:
                    await self._update(device, kind, image, wanted, known)
                    new = True
            told += new
        if told:
            await asyncio.sleep(max(told / self._parts.settings.ota_devices_per_s - (time.monotonic() - begun), 0))
        return told

    async def _update(
        self, device: Device, kind: Kind, image: Image | None, wanted: dict[str, Any], known: dict[str, Any]
    ) -> None:
        """First what the chain is told, then the device: what that answers comes behind it."""
        if image is not None:
            await self._parts.intake.submit(self._messages(device, kind, image))
        attributes, device_id = self._parts.attributes, device.id
        await attributes.delete(device.tenant, device_id, "SHARED", [key for key in known if key not in wanted])
        await attributes.write(device.tenant, device_id, "SHARED", wanted)

    def _messages(self, device: Device, kind: Kind, image: Image) -> list[Message]:
        prefix = PREFIXES[kind]
        queued = {
            f"target_{prefix}_title": image.title,
            f"target_{prefix}_version": image.version,
            f"target_{prefix}_ts": now_ms(),
            f"{prefix}_state": "QUEUED",
        }
        return [self._telemetry(device, queued), self._telemetry(device, {f"{prefix}_state": "INITIATED"})]

    def _telemetry(self, device: Device, values: dict[str, Any]) -> Message:
        stamp = self._parts.intake.stamp(device.id)
        return self._parts.intake.message(
            device, TELEMETRY, values, dialect=DIALECT, transport=TRANSPORT, ts_ms=stamp, metadata={"ts": str(stamp)}
        )


def keys_of(kind: Kind) -> list[str]:
    """The shared attributes that tell a device of its package."""
    return [f"{PREFIXES[kind]}_{member}" for member in _MEMBERS]


def attributes_of(image: Image) -> dict[str, Any]:
    """The shared attributes of a device that shall have the image; what is not known is left out."""
    values = {
        "title": image.title, "version": image.version, "size": image.size, "checksum": image.checksum,
        "checksum_algorithm": image.algorithm if image.checksum else "", "tag": image.tag, "url": image.url,
    }  # fmt: skip
    return {f"{PREFIXES[image.kind]}_{member}": value for member, value in values.items() if value}
