"""LoRaWAN networks whose events come over their own MQTT broker instead of webhooks (CT-60, CT-61, CT-X2, CT-X3).

A product's facet `ttn` or `chirpstack` with `mqtt` in it makes a connection; one process of all holds it at a time.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Final

import redis.asyncio as redis

from api.alone import Alone
from api.dialects.cloudthing import chirpstack, ttn
from api.dialects.cloudthing.connectors import Connectors
from api.dialects.cloudthing.lorawan import LorawanWebhooks
from api.dialects.cloudthing.service import CloudThing
from api.live import Recheck
from api.networks import ChirpStack, Ttn, facet_of, resolved
from api.transports.broker import Broker, Unusable, attach
from api.transports.http_exchange import HttpError
from engine.errors import BadInput, Refused
from engine.node import Product
from engine.stores.register import CHANNEL
from engine.stores.registry_store import Registry
from engine.wire import Subscriber
from nodes.codecs.values import decode_json
from nodes.outward.addresses import Guard

log = logging.getLogger("rulemill.cloudthing")

NETWORKS: Final = ("ttn", "chirpstack")
_TTN_EVENTS: Final = (
    "up", "join", "down/ack", "down/nack", "down/sent", "down/failed", "down/queued", "location/solved", "service/data",
)  # fmt: skip


class LorawanBrokers:
    """Keeps the connections that products ask for."""

    def __init__(self, redis_url: str, client: redis.Redis, registry: Registry, service: CloudThing) -> None:
        self._client, self._registry = client, registry
        self._webhooks = LorawanWebhooks(Connectors(service))
        self._attached: dict[tuple[str, str], tuple[Broker, Alone]] = {}
        self._recheck = Recheck("lorawan-brokers", self._look)
        self._changes = Subscriber(redis_url, "ct-brokers", [CHANNEL], self._changed, self._recheck.ask)

    async def start(self) -> None:
        """Attach in the background; raises redis ConnectionError when Redis is away."""
        await self._changes.start()
        self._recheck.ask()

    async def stop(self) -> None:
        """Detach. What is not acknowledged the brokers deliver again."""
        await self._changes.stop()
        await self._recheck.stop()
        for _, alone in self._attached.values():
            await alone.stop()
        self._attached.clear()

    def _changed(self, _: str, payload: bytes) -> None:
        if payload.decode().split(" ", 2)[1] in ("product", "secret", "tenant"):
            self._recheck.ask()

    async def _look(self) -> None:
        """Compare what products want with what is there."""
        wanted: dict[tuple[str, str], Broker] = {}
        for tenant in await self._registry.tenants():
            for product in await self._registry.products(tenant.name):
                for network in NETWORKS:
                    broker = await self._broker(product, network)
                    if broker is not None:
                        wanted[(product.id, network)] = broker
        for key, (broker, alone) in list(self._attached.items()):
            if wanted.get(key) != broker:
                del self._attached[key]
                await alone.stop()
        for key, broker in wanted.items():
            if key not in self._attached:
                work = partial(attach, broker, Guard.from_environment(True), partial(self.take, *key))
                alone = Alone(self._client, f"broker:{key[1]}:{key[0]}", work)
                self._attached[key] = (broker, alone)
                await alone.start()

    async def _broker(self, product: Product, network: str) -> Broker | None:
        """The connection that a product wants to a network; None if it wants none, or its facet does not hold."""
        try:
            facet = facet_of(product.facets, network)
        except BadInput as error:
            log.error("product %s: %s", product.id, error)
            return None
        if not isinstance(facet, Ttn | ChirpStack) or not facet.enabled or facet.mqtt is None:
            return None
        mqtt = facet.mqtt
        login = []
        for text in (mqtt.username, mqtt.password):
            found = await resolved(text, lambda: self._registry.secrets(product.tenant))
            if found is None:
                log.error("product %s: tenant %s has no secret for %s", product.id, product.tenant, text)
                return None
            login.append(found)
        topics: tuple[str, ...] = ("application/+/device/+/event/+",)
        if network == "ttn":
            topics = tuple(f"v3/{login[0] or '+'}/devices/+/{event}" for event in _TTN_EVENTS)
        return Broker(
            mqtt.host, mqtt.port or (8883 if mqtt.tls else 1883), mqtt.client_id or f"rulemill-{product.id}-{network}",
            topics, username=login[0], password=login[1], tls=mqtt.tls,
        )  # fmt: skip

    async def take(self, product_id: str, network: str, topic: str, payload: bytes) -> None:
        """Store what a network's broker delivered for a product; raises as `broker.Handle` says."""
        product = await self._registry.find_product(product_id)
        facet = None if product is None else facet_of(product.facets, network)
        if product is None or facet is None:
            raise Refused("the product is no more")  # as is this connection, in a moment
        try:
            if isinstance(facet, ChirpStack):
                event = topic.rpartition("/")[2]
                # A message of Protocol Buffers begins with the tag of a field, never with a brace.
                document = chirpstack.decode(event, payload, protobuf=not payload.lstrip().startswith(b"{"))
                await self._webhooks.chirpstack_delivery(product, facet, chirpstack.read(event, document), topic)
            elif isinstance(facet, Ttn):
                await self._webhooks.ttn_delivery(product, facet, ttn.read(decode_json(payload)), topic=topic)
        except BadInput as error:
            raise Unusable(str(error)) from error
        except HttpError as error:
            if error.status == 503:
                raise Refused(error.reason) from error
            raise Unusable(error.reason) from error
