"""A server that speaks ThingsBoard, with a device and an HTTP client."""

from __future__ import annotations

from typing import Any, Self

import httpx

from api.dialects.thingsboard.http import ThingsBoardHttp
from api.dialects.thingsboard.mqtt import ThingsBoardMqtt
from api.dialects.thingsboard.mqtt_provision import ProvisioningMqtt
from api.dialects.thingsboard.parts import Parts
from api.dialects.thingsboard.settings import Settings
from api.rate_limits import RateLimits
from api.transports.http import Surface
from engine.message import Message, new_id, now_ms
from engine.stores.registry import Device
from engine.stores.tellings import Tellings
from tests.api.stack import TENANT, Stack

TOKEN = "A1_TEST_TOKEN"
PATH = f"/api/v1/{TOKEN}"


class Site(Stack):
    """`device` d1 has TOKEN; `http` is a client of the server at `address`; `mqtt_port` where MQTT listens."""

    def __init__(self, url: str, *, work: bool = True, settings: Settings | None = None, server: Any = "uvicorn"):
        super().__init__(url, work=work)
        self.settings = settings or Settings()
        self.server = server
        self.d1: Device
        self.parts: Parts
        self.http: httpx.AsyncClient
        self.address = ""
        self.mqtt_port = 0

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.d1 = await self.device("d1", token=TOKEN)
        parts = Parts(
            auth=self.auth, intake=self.intake, replies=self.replies, commands=self.commands,
            attributes=self.attributes, live=self.live, registry=self.registry, claims=self.claims,
            tellings=Tellings(self.redis), firmware=self.firmware, rollouts=self.rollouts,
            limits=RateLimits(self.settings.rate_limit), settings=self.settings,
        )  # fmt: skip
        self.parts = parts
        surface, mqtt = ThingsBoardHttp(parts), ThingsBoardMqtt(parts)
        self._exit.push_async_callback(surface.stop)
        self._exit.push_async_callback(mqtt.stop)
        self.serve(surface, *self.more_surfaces())
        self.address = await self.listen(server=self.server)
        self.http = await self.client(self.address)
        self.mqtt_port = await self.mqtt(ProvisioningMqtt(parts), mqtt)
        return self

    def more_surfaces(self) -> list[Surface]:
        """What is served besides the device API."""
        return []

    async def post(self, what: str, body: str | bytes, **options: Any) -> httpx.Response:
        return await self.http.post(f"{PATH}/{what}", content=body, **options)

    async def get(self, what: str, **options: Any) -> httpx.Response:
        return await self.http.get(f"{PATH}/{what}", **options)

    async def command(self, method: str, params: Any, *, oneway: bool = False, timeout_ms: int = 10_000) -> Any:
        """An operator's command; returns where its answer can be waited for (leave it with `__exit__`)."""
        waiting = self.replies.wait()
        waiting.__enter__()
        message = Message(
            id=new_id(), ts_ms=now_ms(), tenant=TENANT, type="RPC_CALL_FROM_SERVER_TO_DEVICE", originator=self.d1.id,
            data={"method": method, "params": params},
            metadata={"timeout": str(timeout_ms), "oneway": "true" if oneway else "false"}, reply_to=waiting.to,
        )  # fmt: skip
        await self.ingress.submit([message])
        return waiting
