"""A site with a product whose devices have firmware and software."""

from __future__ import annotations

from typing import Any, Self

from api.dialects.thingsboard.rollout import RolloutWork
from engine.node import Product
from engine.stores.firmware import About, Image
from engine.stores.registry import Device
from tests.api.dialects.thingsboard.site import Site
from tests.api.stack import TENANT
from tests.engine.toy import until

PRODUCT = "thermostat"
IMAGE = bytes(range(256)) * 3000 + b"end"


class OtaSite(Site):
    """`d1` has TOKEN and is a thermostat; what is assigned is told by `work`, or once `rollout` is started."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self.registry.put_product(Product(id=PRODUCT, tenant=TENANT))
        self.d1 = await self.registry.put_device(Device(id=self.d1.id, tenant=TENANT, name="d1", product=PRODUCT))
        self.rollout = RolloutWork(self.parts, self.redis, idle_s=0.02)
        self._exit.push_async_callback(self.rollout.stop)
        return self

    async def work(self) -> None:
        """Tell everybody, as a process does that begins to."""
        await self.rollouts.take_back()
        while await self.rollout.step():
            pass

    async def upload(self, id: str = "v2", body: bytes = IMAGE, **about: Any) -> Image:
        about = {"title": "fw", "version": id, **about}
        return await self.firmware.put(PRODUCT, id, body, About(**about))

    async def assign(self, image: Image | None, kind: Any = "FIRMWARE") -> None:
        await self.rollouts.assign_product(TENANT, PRODUCT, kind, image.id if image else "")

    async def shared(self, device: Device | None = None) -> dict[str, Any]:
        found = await self.attributes.read(TENANT, (device or self.d1).id)
        return {key: each.value for key, each in found["SHARED"].items()}

    async def told(self) -> None:
        """Wait until every device has been told."""

        async def done() -> bool:
            due = await self.redis.scard("rm:{reg}:ota-due") + await self.redis.scard("rm:{reg}:ota-doing")
            return not due and all(each.finished_ms for each in await self.rollouts.all())

        await until(done)
