"""What the connectors of radio networks share: whose callback it is, which device it tells of, what was told before."""

from __future__ import annotations

import hmac
import logging
import uuid
from typing import Any, Final, TypeVar

from msgspec.structs import replace
from redis.exceptions import RedisError

from api.dialects.cloudthing.service import DIALECT, CloudThing
from api.network_devices import IDS, RESERVED, NetworkDevices
from api.networks import Facet, facet_of, resolved
from api.recent_deliveries import RecentDeliveries
from api.transports.http_exchange import HttpError, Request
from engine.errors import BadInput
from engine.message import Message
from engine.node import Product
from engine.stores.registry import Device
from engine.stores.routes import Route

log = logging.getLogger("rulemill.cloudthing")

SECRET_HEADER: Final = "X-Connector-Secret"

F = TypeVar("F", bound=Facet)


class Connectors:
    """The way from a callback to stored messages."""

    def __init__(self, service: CloudThing) -> None:
        self.service = service
        self.recent = RecentDeliveries()
        self.device = NetworkDevices(service.registry).device

    async def product(self, request: Request, id: str, kind: type[F], name: str) -> tuple[Product, F]:
        """The product that a callback is for, and its facet of that name.

        404 unknown product, 401 a host of another tenant, 403 no such facet or one that is not enabled (CT-S11).
        """
        product = await self.service.registry.find_product(id)
        if product is None:
            raise HttpError(404, f"no product {id!r}")
        if await self.service.tenants.named_by_host(request.header("host"), besides=product.tenant):
            raise HttpError(401, "the host is another tenant's")
        try:
            facet = facet_of(product.facets, name)
        except BadInput as error:
            log.error("product %s: %s", product.id, error)
            raise HttpError(403, f"facet {error}") from None
        if not isinstance(facet, kind) or not facet.enabled:
            raise HttpError(403, f"{name} is not enabled for product {product.id!r}")
        return product, facet

    async def check_secret(self, request: Request, product: Product, secret: str) -> None:
        """401 unless the callback proves itself, where the product wants that (CT-X1)."""
        if not secret:
            return
        wanted = await self.secret(product, secret)
        given = (request.header(SECRET_HEADER) or "").encode("latin-1")
        if wanted is None or not hmac.compare_digest(given, wanted.encode()):
            raise HttpError(401, f"wrong {SECRET_HEADER}")

    async def secret(self, product: Product, text: str) -> str | None:
        """What a text of a facet stands for; None for a secret that the tenant does not have."""
        registry = self.service.registry
        found = await resolved(text, lambda: registry.secrets(product.tenant))
        if found is None:
            log.error("product %s: tenant %s has no secret for %s", product.id, product.tenant, text)
        return found

    def message(
        self, device: Device, type: str, data: Any, *, transport: str, ts_ms: int, about: dict[str, str], key: str
    ) -> Message:
        """A message with what the network says besides; its id comes of `key`, which the delivery has to itself."""
        metadata = {name: value for name, value in about.items() if name not in RESERVED}
        metadata |= {"deviceId": device.external_id or device.name, "productId": device.product}
        if type == "RAW_UPLINK":
            metadata["ct"] = "custom"
        elif type == "POST_TELEMETRY_REQUEST":
            metadata["ts"] = str(ts_ms)
        made = self.service.intake.message(
            device, type, data, dialect=DIALECT, transport=transport, ts_ms=ts_ms, metadata=metadata
        )
        if not key:
            return made
        # Sent to two processes, it is still one message.
        return replace(made, id=str(uuid.uuid5(IDS, f"{device.id}/{key}")))

    async def remember_route(self, device: Device, route: Route | None) -> None:
        """Note where downlinks to the device go. An uplink is not refused because that fails."""
        if route is None:
            return
        try:
            await self.service.commands.set_route(device.tenant, device.id, route)
        except RedisError as error:
            log.warning("the downlink route of device %s is not remembered: %s", device.id, error)


def need_transform(product: Product) -> None:
    """BadInput if nothing could read the bytes of the product's devices (CT-S12)."""
    if product.facets.get("transform") is None:
        raise BadInput(f"payloads need a transform function, and product {product.id!r} has none")
