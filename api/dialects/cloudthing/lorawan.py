"""Webhooks of LoRaWAN networks: The Things Stack v3 (CT-60, CT-X1) and ChirpStack v4 (CT-61, CT-X3)."""

from __future__ import annotations

import logging
from typing import Any, Final
from urllib.parse import quote, urlsplit

from api.dialects.cloudthing import chirpstack, ttn
from api.dialects.cloudthing.connectors import Connectors, need_transform
from api.dialects.cloudthing.delivery import Delivery, leaves
from api.dialects.cloudthing.lorawan_topics import chirpstack_broker, ttn_broker
from api.networks import ChirpStack, Ttn
from api.transports.http import Route
from api.transports.http_exchange import Request, Response
from engine.node import Product
from engine.stores import routes
from engine.stores.links import LORAWAN
from engine.stores.registry import Device
from nodes.codecs.values import check_key, decode_json, pointer_step

log = logging.getLogger("rulemill.cloudthing")

MAX_BODY_BYTES: Final = 1024 * 1024
MAX_URL: Final = 2000


class LorawanWebhooks:
    """`/ttn/{productId}`, whatever comes behind it, and `/chirpstack/{productId}`."""

    def __init__(self, connectors: Connectors) -> None:
        self._connectors = connectors
        self.routes = (
            *(Route("POST", "/ttn/{productId}" + more, self._ttn) for more in ("", "/{kind}", "/{kind}/{detail}")),
            Route("POST", "/chirpstack/{productId}", self._chirpstack),
        )

    async def _ttn(self, request: Request, names: dict[str, str]) -> Response:
        product, facet = await self._connectors.product(request, names["productId"], Ttn, "ttn")
        await self._connectors.check_secret(request, product, facet.secret)
        delivery = ttn.read(decode_json(await request.body(MAX_BODY_BYTES)))
        return await self.ttn_delivery(product, facet, delivery, request)

    async def _chirpstack(self, request: Request, names: dict[str, str]) -> Response:
        product, facet = await self._connectors.product(request, names["productId"], ChirpStack, "chirpstack")
        await self._connectors.check_secret(request, product, facet.secret)
        event = request.query.get("event", "")
        kind = (request.header("content-type") or "").partition(";")[0].strip().lower()
        body = await request.body(MAX_BODY_BYTES)
        document = chirpstack.decode(event, body, protobuf=kind == "application/octet-stream")
        return await self.chirpstack_delivery(product, facet, chirpstack.read(event, document))

    async def ttn_delivery(
        self, product: Product, facet: Ttn, delivery: Delivery, request: Request | None = None, topic: str = ""
    ) -> Response:
        """Store what The Things Stack told by a webhook, or in a topic; raises BadInput, HttpError, Refused."""
        device = await self._device(product, delivery, create=facet.auto_generate)
        await self._connectors.remember_route(device, await self._ttn_route(request, product, facet, delivery, topic))
        return await self._store(product, device, delivery, "ttn")

    async def chirpstack_delivery(
        self, product: Product, facet: ChirpStack, delivery: Delivery, topic: str = ""
    ) -> Response:
        """Store what ChirpStack told by a webhook, or in a topic; raises BadInput, HttpError, Refused."""
        device = await self._device(product, delivery, create=facet.auto_generate)
        await self._connectors.remember_route(
            device, await self._chirpstack_route(product, facet, device, delivery, topic)
        )
        return await self._store(product, device, delivery, "chirpstack")

    async def _device(self, product: Product, delivery: Delivery, *, create: bool) -> Device:
        return await self._connectors.device(
            product, LORAWAN, delivery.dev_eui, create=create, pointer=delivery.pointer
        )  # fmt: skip

    async def _store(self, product: Product, device: Device, delivery: Delivery, transport: str) -> Response:
        """Store what a delivery tells, unless it was stored before. Its route is known: a chain may answer at once."""
        connectors = self._connectors
        key = delivery.key and f"{transport}/{device.id}/{delivery.key}"
        known = connectors.recent.get(key)
        if known is not None:
            return known
        found = _content(product, delivery)
        if found is not None:
            type, data = found
            about = dict(delivery.about)
            if delivery.event:
                about["eventId"] = delivery.event
            ts_ms = connectors.service.intake.stamp(device.id) if delivery.ts_ms is None else delivery.ts_ms
            message = connectors.message(
                device, type, data, transport=transport, ts_ms=ts_ms, about=about, key=delivery.key
            )  # fmt: skip
            await connectors.service.intake.submit([message])
        connectors.service.accepted(device)
        return connectors.recent.put(key, Response(200))

    async def _chirpstack_route(
        self, product: Product, facet: ChirpStack, device: Device, delivery: Delivery, topic: str
    ) -> routes.Route | None:
        """Where the device's downlinks go (CT-X3): to the broker if it told, else to the product's server, else there.

        With a broker and a server, the server does what the broker cannot: take away what waits.
        """
        dev_eui = device.links[LORAWAN].lower()
        broker = None
        if facet.mqtt is not None and (topic or facet.downlink is None):
            broker = chirpstack_broker(facet.mqtt, delivery.application_id, dev_eui)
        if facet.downlink is None:
            return None if broker is None else routes.Route("chirpstack", "", broker=broker)
        url = f"{facet.downlink.server}/api/devices/{dev_eui}/queue"
        key = await self._connectors.secret(product, facet.downlink.api_key) or ""
        return routes.Route("chirpstack", url, key=key, broker=broker)

    async def _ttn_broker(self, product: Product, facet: Ttn, delivery: Delivery, topic: str) -> routes.Route | None:
        """By MQTT: for the application in whose topic the device told, else for the one that the product logs in as."""
        if facet.mqtt is None:
            return None
        if topic:
            application = topic.split("/")[1]
        else:
            application = await self._connectors.secret(product, facet.mqtt.username) or ""
            if application.partition("@")[0] != delivery.application_id:
                return None
        broker = ttn_broker(facet.mqtt, application, delivery.device_id)
        return None if broker is None else routes.Route("ttn", "", broker=broker)

    async def _ttn_route(
        self, request: Request | None, product: Product, facet: Ttn, delivery: Delivery, topic: str
    ) -> routes.Route | None:
        """Where the device's downlinks go (CT-X2): to the broker that told, else as the webhook or the product says.

        A webhook that proved nothing is believed about the product's own server only, and another server never gets
        the product's key: or anybody could have commands, and keys, sent to himself.
        """
        if topic and (found := await self._ttn_broker(product, facet, delivery, topic)) is not None:
            return found
        known = facet.downlink
        key = "" if known is None else await self._connectors.secret(product, known.api_key) or ""
        push = (request and request.header("X-Downlink-Push")) or ""
        if request is not None and push and len(push) <= MAX_URL:
            ours = known is not None and _origin(push) == _origin(known.server)
            if facet.secret or ours:
                given = request.header("X-Downlink-Apikey") or (key if ours else "")
                other = request.header("X-Downlink-Replace") or ""
                if _origin(other) != _origin(push) or len(other) > MAX_URL:
                    other = ""
                return routes.Route("ttn", push, other, given)
            log.info("product %s has no secret: the downlink address of its webhook is not believed", product.id)
        if known is None:
            return await self._ttn_broker(product, facet, delivery, topic)
        if not delivery.application_id or not delivery.device_id:
            return None
        ids = (delivery.application_id, known.webhook, delivery.device_id)
        path = "/api/v3/as/applications/{}/webhooks/{}/devices/{}/down".format(*(quote(id, safe="") for id in ids))
        return routes.Route("ttn", f"{known.server}{path}/push", f"{known.server}{path}/replace", key)


def _content(product: Product, delivery: Delivery) -> tuple[str, Any] | None:
    """Type and data of the message; None for an uplink that holds nothing."""
    if delivery.event:
        return "DEVICE_EVENT", delivery.data
    if delivery.decoded is not None:
        values = leaves(delivery.decoded)
        for key in values:
            check_key(key, pointer_step(key))
        return ("POST_TELEMETRY_REQUEST", values) if values else None
    if not delivery.payload:
        return None  # only the network's own business: an answer to its commands, say
    need_transform(product)
    return "RAW_UPLINK", delivery.payload


def _origin(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", ""
    return parts.scheme.lower(), parts.netloc.lower()
