"""Callbacks of the Sigfox backend for things (`TTI-X12`): the product's function reads them, and says what is kept.

The function runs in the tenant's chain, which answers with what it gave: values, that are then written as a thing
writes them, magic ones too; or what goes down to a device that listens, in which case nothing is kept.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from api.callback_variables import variables
from api.dialects.thethingsio.bodies import answer, success
from api.dialects.thethingsio.dates import iso
from api.dialects.thethingsio.parts import Parts
from api.dialects.thethingsio.settings import DIALECT
from api.dialects.thethingsio.thing_values import thing_messages
from api.dialects.thethingsio.writing import How
from api.network_devices import RESERVED, NetworkDevices
from api.networks import Sgfx, facet_of, resolved
from api.recent_deliveries import RecentDeliveries
from api.sigfox import ANSWER_WITHIN_S, MAX_BODY_BYTES, answered, downlink, payload_of, time_ms, wants_answer
from api.transports.http import Request, Response, Route
from api.transports.http_exchange import HttpError
from engine.errors import BadInput, Refused
from engine.node import Product
from engine.stores.links import SIGFOX, normalized
from engine.stores.registry import Device

log = logging.getLogger("rulemill.thethingsio")

TRANSPORT: Final = "sigfox"
PARSE: Final = "PARSE_REQUEST"
"""The type of the message whose answer is what the product's function gave."""
UNANSWERED: Final = "the root chain does not answer parse requests"


class SigfoxRoutes:
    """`/sgfx/{product}/{key}`, by POST and GET."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._devices, self._recent = NetworkDevices(parts.registry), RecentDeliveries()
        self._unanswered: set[str] = set()
        """Tenants whose chain did not answer, of which the log has been told."""
        self.answer_within_s = ANSWER_WITHIN_S
        path = "/sgfx/{product}/{key}"
        self.routes: Sequence[Route] = (Route("POST", path, self._callback), Route("GET", path, self._callback))

    async def _callback(self, request: Request, names: dict[str, str]) -> Response:
        product, facet = await self._product(names["product"], names["key"])
        given = await variables(request, MAX_BODY_BYTES)
        id = given.get("id") or given.get("device") or ""
        if not id:
            raise BadInput("id is missing", "/id")
        if "data" not in given:
            raise BadInput("data is missing", "/data")
        payload, ts_ms = payload_of(given["data"]), time_ms(given)
        if product.facets.get("transform") is None:
            raise BadInput(f"payloads need a transform function, and product {product.id!r} has none")
        device = await self._devices.device(product, SIGFOX, id, create=facet.auto_generate, pointer="/id")
        # Without a time or a number nothing tells the same message sent twice from two equal messages.
        told = [given.get(name, "") for name in ("time", "seqNumber")]
        key = "/".join((device.id, *told, given["data"].lower())) if any(told) else ""
        known = self._recent.get(key)
        if known is not None:
            return known
        parsed = await self._parsed(request, device, product, payload, given)
        if wants_answer(given):
            return self._recent.put(key, answered(id, _downlink(id, parsed)))
        if parsed is None or parsed == [] or parsed == {}:
            return self._recent.put(key, success("nothing to keep"))
        intake = self._parts.intake
        values = {"values": parsed if ts_ms is None else _dated(parsed, ts_ms)}
        await intake.store(thing_messages(intake, device, values, How(), TRANSPORT))
        return self._recent.put(key, answer({"status": "created", "message": "values created"}, 201))

    async def _product(self, id: str, key: str) -> tuple[Product, Sgfx]:
        """The product of a callback; 403 alike for one that is not, that takes none, or of another key."""
        product = await self._parts.registry.find_product(id)
        facet = None
        if product is not None:
            try:
                facet = facet_of(product.facets, "sgfx")
            except BadInput as error:
                log.error("product %s: %s", product.id, error)
        if product is not None and isinstance(facet, Sgfx) and facet.enabled:
            tenant = product.tenant
            wanted = await resolved(facet.key, lambda: self._parts.registry.secrets(tenant))
            if wanted is None:
                log.error("product %s: tenant %s has no secret for %s", product.id, tenant, facet.key)
            elif hmac.compare_digest(key.encode(errors="surrogatepass"), wanted.encode()):
                return product, facet
        raise HttpError(403, "Permission denied")

    async def _parsed(
        self, request: Request, device: Device, product: Product, payload: bytes, given: Mapping[str, str]
    ) -> Any:
        """What the product's function made of an uplink, None for nothing.

        BadInput when it failed; Refused when it does not answer: then the backend has to send the uplink again.
        """
        intake = self._parts.intake
        metadata = {name: value for name, value in given.items() if name not in RESERVED}
        metadata |= {"deviceId": device.external_id or device.name, "productId": product.id, "ct": "custom"}
        message = intake.message(
            device, PARSE, payload, dialect=DIALECT, transport=TRANSPORT, ts_ms=intake.stamp(device.id),
            metadata=metadata,
        )  # fmt: skip
        within_s = self.answer_within_s
        found = await request.wait(asyncio.ensure_future(intake.ask(message, within_s)), 2 * within_s)
        if found is None:
            raise Refused("the chain gave no answer in time")
        if found.error:
            raise BadInput(f"the uplink cannot be read: {found.error}")
        if found.kind != "reply":
            self._warn(device.tenant)
            raise Refused(UNANSWERED)
        self._unanswered.discard(device.tenant)
        return found.data

    def _warn(self, tenant: str) -> None:
        """Say what is missing, once until it is there."""
        if tenant not in self._unanswered:
            self._unanswered.add(tenant)
            log.error(
                "tenant %s: %s, so uplinks of Sigfox are refused: in the root chain, wire `Parse request` of the "
                "message_type_switch to a decode node with shape `plain`, and its Success to rpc_reply",
                tenant, UNANSWERED,
            )  # fmt: skip


def _dated(parsed: Any, ts_ms: int) -> Any:
    """Values at the time at which the network received them, so that an uplink sent twice is kept once."""
    if not isinstance(parsed, list):
        return parsed
    return [{"datetime": iso(ts_ms), **each} if isinstance(each, dict) else each for each in parsed]


def _downlink(id: str, parsed: Any) -> bytes | None:
    """`{id: {"downlinkData": 16 hexadecimal digits}}`, or None for a device to which nothing goes down; BadInput."""
    if parsed is None or parsed == [] or parsed == {}:
        return None
    wanted = normalized(SIGFOX, id)
    for name, each in parsed.items() if isinstance(parsed, dict) else ():
        if isinstance(each, dict) and "downlinkData" in each and normalized(SIGFOX, name, "/id") == wanted:
            return downlink(each["downlinkData"])
    raise BadInput("for ack the transform function gives {device id: {downlinkData: 16 hexadecimal digits}}")
