"""What the connectors of radio networks share: whose callback it is, which device it tells of, what was told before."""

from __future__ import annotations

import hmac
import logging
import time
import uuid
from collections import OrderedDict
from typing import Any, Final, TypeVar

from msgspec.structs import replace
from redis.exceptions import RedisError

from api.dialects.cloudthing.service import DIALECT, CloudThing
from api.networks import Facet, facet_of, resolved
from api.transports.http_exchange import HttpError, Request, Response
from engine.errors import BadInput, Conflict
from engine.message import Message
from engine.node import Product
from engine.stores.links import normalized
from engine.stores.registry import Device
from engine.stores.routes import Route

log = logging.getLogger("rulemill.cloudthing")

SECRET_HEADER: Final = "X-Connector-Secret"
REMEMBERED: Final = 20_000
REMEMBERED_FOR_S: Final = 600.0
RESERVED: Final = frozenset(
    {"ct", "deviceId", "deviceName", "deviceType", "dialect", "error", "geo", "productId", "scope", "store",
     "transport", "ts"}
)  # fmt: skip
"""Metadata that chains rely on: what a callback brings may not pass for it."""

F = TypeVar("F", bound=Facet)
_IDS: Final = uuid.UUID("9f1c3a52-6f0d-4b8c-8a35-6d2f1f0b7e11")


class Connectors:
    """The way from a callback to stored messages."""

    def __init__(self, service: CloudThing) -> None:
        self.service = service
        self.recent = Recent()

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

    async def device(self, product: Product, network: str, id: str, *, create: bool, pointer: str) -> Device:
        """The device of an id in a network, made if there is none and that is wanted (CT-S11); 404 or 403 else."""
        id = normalized(network, id, pointer)
        registry = self.service.registry
        device = await registry.find_link(product.id, network, id)
        if device is None and create:
            device = await self._create(product, network, id)
        if device is None:
            raise HttpError(404, f"product {product.id!r} has no device with the {network} id {id}")
        if not device.enabled:
            raise HttpError(403, "the device is disabled")
        return device

    async def _create(self, product: Product, network: str, id: str) -> Device:
        """Two callbacks at a time make one device: its id comes of what it is."""
        registry = self.service.registry
        own = str(uuid.uuid5(_IDS, f"{product.tenant}/{product.id}/{network}/{id}"))
        taken = await registry.find_device(own)
        if taken is not None and taken.links.get(network) != id:
            own = ""  # somebody gave that device another id since
        for name in (id, f"{product.id} {id}", f"{product.id} {network} {id}"):
            wanted = Device(id=own, tenant=product.tenant, name=name, product=product.id, links={network: id})
            try:
                return await registry.put_device(wanted)
            except Conflict as conflict:
                reason = conflict
                if (found := await registry.find_link(product.id, network, id)) is not None:
                    return found
        raise HttpError(503, f"the device cannot be made: {reason}")

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
        return replace(made, id=str(uuid.uuid5(_IDS, f"{device.id}/{key}")))

    async def remember_route(self, device: Device, route: Route | None) -> None:
        """Note where downlinks to the device go. An uplink is not refused because that fails."""
        if route is None:
            return
        try:
            await self.service.commands.set_route(device.tenant, device.id, route)
        except RedisError as error:
            log.warning("the downlink route of device %s is not remembered: %s", device.id, error)


class Recent:
    """What was answered to deliveries of the last minutes: the same delivery again gets the same answer, and no more.

    A process has its own; deliveries that reach several become messages of one id and points of one time.
    """

    def __init__(self) -> None:
        self._answers: OrderedDict[str, tuple[float, Response]] = OrderedDict()

    def get(self, key: str) -> Response | None:
        """The answer that a delivery of this key had; an empty key had none."""
        found = self._answers.get(key)
        return found[1] if found is not None and time.monotonic() - found[0] < REMEMBERED_FOR_S else None

    def put(self, key: str, answer: Response) -> Response:
        """Remember an answer, and give it."""
        if key:
            self._answers[key] = (time.monotonic(), answer)
            self._answers.move_to_end(key)
            if len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)
        return answer


def need_transform(product: Product) -> None:
    """BadInput if nothing could read the bytes of the product's devices (CT-S12)."""
    if product.facets.get("transform") is None:
        raise BadInput(f"payloads need a transform function, and product {product.id!r} has none")
