"""Which image devices shall have, and the work that follows when that changes: durable, and done a little at a time.

An image is assigned to a product, or to one device, whose own counts more. Whoever does the work looks at the devices
of a product from a cursor on, and at single devices that were assigned something, made, or moved to another product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import redis.asyncio as redis
from msgspec.structs import replace

from engine.message import new_id, now_ms
from engine.stores.firmware import KINDS, Kind
from engine.stores.register import Line, P

ASSIGNED: Final = P + "ota"
"""Hash: `product/<id>/<kind>` to image, `device/<id>/<kind>` to `<product>/<image>`."""
ROLLOUTS: Final = P + "rollouts"
"""Hash: `<product>/<kind>` to Rollout."""
DUE: Final = P + "ota-due"
DOING: Final = P + "ota-doing"
"""Sets of devices to be looked at, and of those in hand."""


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """An assignment to a product on its way to the devices."""

    id: str
    tenant: str
    product: str
    kind: Kind
    image: str
    """Empty: nothing is assigned any more."""
    started_ms: int
    finished_ms: int = 0
    """0: it is still going on."""
    cursor: int = 0
    run: str = ""
    """The run of Redis whose cursor that is: to another one it means nothing."""
    scanned: int = 0
    """Devices of the tenant that were looked at, of `of`; after a restart of Redis they are looked at again."""
    of: int = 0
    told: int = 0
    """Devices of the product that something was new for."""


class Assignment(NamedTuple):
    """An image, and whether it is the device's own or its product's."""

    image: str
    own: bool


_decode = msgspec.json.Decoder(Rollout).decode


def due_when_moved(device: str, product: str, before: str) -> list[Line]:
    """What goes with the writing of a device whose product is another one now, or that is new."""
    return [("SADD", DUE, device)] if product != before else []


def gone(device: str) -> list[Line]:
    """What goes with the deletion of a device."""
    return [("HDEL", ASSIGNED, *[_of_device(device, kind) for kind in KINDS]), ("SREM", DUE, device)]


class Rollouts:
    """All reads and writes. That the image is there, and of its kind, is the caller's to know. Raises redis errors."""

    def __init__(self, client: redis.Redis) -> None:
        # Its own types leave open whether it answers with bytes or text.
        self._client: Any = client

    # What is assigned

    async def assign_product(self, tenant: str, product: str, kind: Kind, image: str) -> Rollout:
        """Assign an image to a product, or nothing (empty); what was under way for that kind ends."""
        count = await self._client.hlen(f"{P}names:{tenant}")
        made = Rollout(
            id=new_id(), tenant=tenant, product=product, kind=kind, image=image, started_ms=now_ms(), of=count
        )
        field = _of_product(product, kind)
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.hset(ASSIGNED, field, image) if image else pipe.hdel(ASSIGNED, field)
            pipe.hset(ROLLOUTS, f"{product}/{kind}", msgspec.json.encode(made))
            await pipe.execute()
        return made

    async def assign_device(self, device: str, product: str, kind: Kind, image: str) -> None:
        """Assign an image of its product to a device, or nothing (empty): then it has its product's."""
        field = _of_device(device, kind)
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.hset(ASSIGNED, field, f"{product}/{image}") if image else pipe.hdel(ASSIGNED, field)
            pipe.sadd(DUE, device)
            await pipe.execute()

    async def of_product(self, product: str) -> dict[Kind, str]:
        """The images of a product that are assigned, by kind."""
        found = await self._client.hmget(ASSIGNED, [_of_product(product, kind) for kind in KINDS])
        return {kind: image.decode() for kind, image in zip(KINDS, found, strict=True) if image}

    async def of_device(self, device: str, product: str) -> dict[Kind, Assignment]:
        """What a device shall have, by kind; one of another product than its own counts no more."""
        if not product:
            return {}
        fields = [_of_device(device, kind) for kind in KINDS] + [_of_product(product, kind) for kind in KINDS]
        values = [value.decode() if value else "" for value in await self._client.hmget(ASSIGNED, fields)]
        found: dict[Kind, Assignment] = {}
        for i, kind in enumerate(KINDS):
            whose, _, image = values[i].partition("/")
            if image and whose == product:
                found[kind] = Assignment(image, own=True)
            elif values[i + len(KINDS)]:
                found[kind] = Assignment(values[i + len(KINDS)], own=False)
        return found

    async def is_assigned(self, product: str, image: str) -> bool:
        """Whether the product or any device has this image assigned."""
        if image in (await self.of_product(product)).values():
            return True
        async for _, value in self._client.hscan_iter(ASSIGNED, match="device/*", count=1000):
            if value == f"{product}/{image}".encode():
                return True
        return False

    # What is to be done

    async def all(self) -> list[Rollout]:
        """The last rollout of each product and kind, those that ended too."""
        return [_decode(blob) for blob in await self._client.hvals(ROLLOUTS)]

    async def of(self, product: str) -> list[Rollout]:
        """The same of one product."""
        blobs = await self._client.hmget(ROLLOUTS, [f"{product}/{kind}" for kind in KINDS])
        return [_decode(blob) for blob in blobs if blob]

    async def save(self, rollout: Rollout) -> bool:
        """Keep how far it came; False if another one has taken its place."""
        field = f"{rollout.product}/{rollout.kind}"
        async with self._client.pipeline(transaction=True) as pipe:
            while True:
                await pipe.watch(ROLLOUTS)
                blob = await pipe.hget(ROLLOUTS, field)  # at once, as the key is watched
                if blob is None or _decode(blob).id != rollout.id:
                    return False
                pipe.multi()
                pipe.hset(ROLLOUTS, field, msgspec.json.encode(rollout))
                try:
                    await pipe.execute()
                    return True
                except redis.WatchError:
                    continue

    async def devices(self, rollout: Rollout, at_once: int) -> tuple[Rollout, list[str]]:
        """The ids of some more devices of the tenant, of any product, and the rollout behind them, not saved yet.

        Its cursor is 0 at the end. Every device that is there from the beginning to the end is given at least once: all
        of them again when Redis was started anew, or another one took its place, since it has them in another order.
        """
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.info("server")
            pipe.hscan(f"{P}names:{rollout.tenant}", rollout.cursor, count=at_once)
            about, (cursor, names) = await pipe.execute()
        run = about["run_id"]
        if rollout.cursor and rollout.run != run:
            return await self.devices(replace(rollout, cursor=0, scanned=0), at_once)
        scanned = rollout.scanned + len(names)
        moved = replace(rollout, cursor=cursor, run=run, scanned=scanned, of=max(rollout.of, scanned))
        return moved, [id.decode() for id in names.values()]

    async def take_due(self, at_once: int) -> list[str]:
        """Some of the single devices to be looked at; until `done` they are in hand."""
        ids: list[bytes] = await self._client.srandmember(DUE, at_once)
        if ids:
            async with self._client.pipeline(transaction=True) as pipe:
                for id in ids:
                    pipe.smove(DUE, DOING, id)
                await pipe.execute()
        return [id.decode() for id in ids]

    async def done(self, devices: Sequence[str]) -> None:
        """These were looked at. One that became due meanwhile stays so."""
        await self._client.srem(DOING, *devices)

    async def take_back(self) -> None:
        """What was in hand when somebody died is due again."""
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.sunionstore(DUE, DUE, DOING)
            pipe.delete(DOING)
            await pipe.execute()


def _of_product(product: str, kind: Kind) -> str:
    return f"product/{product}/{kind}"


def _of_device(device: str, kind: Kind) -> str:
    return f"device/{device}/{kind}"
