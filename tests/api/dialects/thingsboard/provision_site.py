"""A site with products whose devices provision themselves, and what such a device asks."""

from __future__ import annotations

import json
from typing import Any

import aiomqtt

from api.flow.facets import check_facets
from engine.node import Product
from engine.stores.registry import Device
from tests.api.dialects.thingsboard.site import Site
from tests.api.stack import TENANT

KEY, SECRET = "u7piawkboq8v32dmcmpp", "jpmwdn8ptlswmf4m29bw"
ASK = {"deviceName": "DEVICE_NAME", "provisionDeviceKey": KEY, "provisionDeviceSecret": SECRET}
NOT_FOUND = {"errorMsg": "Provision data was not found!", "status": "NOT_FOUND"}
FAILURE = {"errorMsg": "Failed to provision device!", "status": "FAILURE"}


class ProvisionSite(Site):
    async def product(self, strategy: str = "allow_new", id: str = "p", secret: str = SECRET, key: str = KEY) -> None:
        facet = {"strategy": strategy, "key": key, "secret": secret}
        assert check_facets({"provision": facet}) == []
        await self.registry.put_product(Product(id=id, tenant=TENANT, facets={"provision": facet}))

    async def ask(self, **changes: Any) -> Any:
        """The answer to the request, with members changed or (None) left out."""
        asked = {name: value for name, value in {**ASK, **changes}.items() if value is not None}
        answer = await self.http.post("/api/v1/provision", content=json.dumps(asked))
        assert answer.status_code == 200, answer.content
        assert answer.headers["content-type"] == "application/json"
        return answer.json()

    async def login(self, **options: Any) -> bool:
        """Whether MQTT lets that login in."""
        try:
            async with aiomqtt.Client("127.0.0.1", self.mqtt_port, timeout=5, **options):
                return True
        except aiomqtt.MqttCodeError:
            return False

    async def server_attributes(self, device: Device) -> dict[str, Any]:
        found = (await self.attributes.read(TENANT, device.id))["SERVER"]
        return {key: each.value for key, each in found.items()}

    async def kinds(self) -> list[tuple[str, str, str]]:
        return [(each.type, each.originator_type, each.originator) for each in await self.messages()]
