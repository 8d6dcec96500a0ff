"""How payloads over MQTT are written: as JSON, or as Protocol Buffers where topic or product say so (`TB-X1`)."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import msgspec

from api.auth import DeviceAuth, Unknown
from api.dialects.thingsboard.payload import Payloads, Reading, is_custom, update_of, visible
from api.dialects.thingsboard.protobuf import Proto
from api.dialects.thingsboard.rpc import rendered
from api.mqtt_protobuf_facet import mqtt_protobuf_of
from engine.errors import BadInput
from engine.node import Product
from engine.replies import Answer
from engine.stores.commands import Pending
from engine.stores.registry import Device

log = logging.getLogger("rulemill.thingsboard")

T = TypeVar("T")

MAX_PRODUCTS: Final = 1000
"""How many products' definitions are kept built; the one unused for longest goes first."""
TIMEOUT: Final = b'{"error":"timeout"}'


class Form(Enum):
    """What a topic says of its payload."""

    OWN = "as the product has it"
    JSON = "JSON"
    PROTO = "Protocol Buffers"


class Encoding(Protocol):
    """Reads what a device publishes, and writes what it is sent. All raise BadInput for what cannot be."""

    def telemetry(self, body: bytes) -> list[Reading]:
        """Readings, one for each instant."""

    def attributes(self, body: bytes) -> dict[str, Any]:
        """The device's own attributes."""

    def wanted(self, body: bytes) -> tuple[list[str] | None, list[str] | None]:
        """Client and shared keys of a question for attributes."""

    def call(self, body: bytes) -> dict[str, Any]:
        """`{"method", "params"}` of a call."""

    def answer(self, body: bytes) -> Any:
        """The answer to a command."""

    def found(
        self, id: int, attributes: Mapping[Any, Mapping[str, Any]], client: Sequence[str] | None,
        shared: Sequence[str] | None,
    ) -> bytes:  # fmt: skip
        """The attributes asked for."""

    def update(self, kind: str, body: Any) -> bytes:
        """A change of shared attributes as `Live` tells it."""

    def command(self, entry: Pending) -> bytes:
        """A command to the device."""

    def own_answer(self, id: int, value: Any) -> bytes:
        """The transport's answer to a call."""

    def call_answer(self, id: int, answer: Answer | None) -> bytes:
        """The chain's answer to a call; None: there was none in time."""


class Json:
    """JSON, read with the vendor's leniency."""

    def __init__(self, payloads: Payloads) -> None:
        self.telemetry = payloads.telemetry
        self.attributes = payloads.attributes
        self.wanted = payloads.wanted
        self.call = payloads.call
        self.answer = payloads.answer

    def found(
        self, id: int, attributes: Mapping[Any, Mapping[str, Any]], client: Sequence[str] | None,
        shared: Sequence[str] | None,
    ) -> bytes:  # fmt: skip
        """`{"client": {…}, "shared": {…}}`."""
        return msgspec.json.encode(visible(attributes, client, shared))

    def update(self, kind: str, body: Any) -> bytes:
        """Flat, or `{"deleted": [keys]}` (`TB-34`)."""
        return msgspec.json.encode(update_of(kind, body))

    def command(self, entry: Pending) -> bytes:
        """Without its number: that is in the topic."""
        return msgspec.json.encode({"method": entry.command.name, "params": entry.command.payload})

    def own_answer(self, id: int, value: Any) -> bytes:
        """The value itself."""
        return msgspec.json.encode(value)

    def call_answer(self, id: int, answer: Answer | None) -> bytes:
        """The chain's data, or `{"error": text}` (`TB-S22`)."""
        return TIMEOUT if answer is None else rendered(answer)


class Either:
    """Reads Protocol Buffers, and JSON where that fails; writes as the first does."""

    def __init__(self, first: Encoding, second: Encoding) -> None:
        self.telemetry = _either(first.telemetry, second.telemetry)
        self.attributes = _either(first.attributes, second.attributes)
        self.wanted = _either(first.wanted, second.wanted)
        self.call = _either(first.call, second.call)
        self.answer = _either(first.answer, second.answer)
        self.found, self.update, self.command = first.found, first.update, first.command
        self.own_answer, self.call_answer = first.own_answer, first.call_answer


def _either(first: Callable[[bytes], T], second: Callable[[bytes], T]) -> Callable[[bytes], T]:
    def read(body: bytes) -> T:
        try:
            return first(body)
        except BadInput:
            return second(body)

    return read


class Forms(NamedTuple):
    """What a device speaks, in each direction."""

    up: Mapping[Form, Encoding]
    down: Mapping[Form, Encoding]
    custom: bool = False
    """Telemetry is bytes for the product's transform function, where the topic does not say otherwise (`TB-62`)."""


class Encodings:
    """The forms of all products of a process."""

    def __init__(self, auth: DeviceAuth, payloads: Payloads) -> None:
        self._auth, self._payloads = auth, payloads
        self._json = Json(payloads)
        self._built: OrderedDict[str, tuple[int, Forms]] = OrderedDict()
        proto: Encoding = Proto(None, payloads)
        plain = {Form.OWN: self._json, Form.JSON: self._json, Form.PROTO: proto}
        self.plain: Final = Forms(plain, plain)
        """Of devices whose product says nothing of it."""

    def known(self, device: Device) -> Forms | None:
        """The forms of a device; None where its product has to be read first."""
        if not device.product:
            return self.plain
        product = self._auth.known_product(device.tenant, device.product)
        return None if isinstance(product, Unknown) else self._of(product)

    async def find(self, device: Device) -> Forms:
        """The same; raises redis errors."""
        if not device.product:
            return self.plain
        return self._of(await self._auth.find_product(device.tenant, device.product))

    def _of(self, product: Product | None) -> Forms:
        if product is None:
            return self.plain
        revision, forms = self._built.get(product.id, (0, self.plain))
        if revision != product.revision:
            forms = self._build(product)._replace(custom=is_custom(product))
            self._built[product.id] = (product.revision, forms)
            if len(self._built) > MAX_PRODUCTS:
                self._built.popitem(last=False)
        return forms

    def _build(self, product: Product) -> Forms:
        try:
            facet = mqtt_protobuf_of(product.facets)
            if facet is None:
                return self.plain
            proto: Encoding = Proto(facet, self._payloads)
        except BadInput as error:
            # Whoever wrote it was told; devices that speak JSON go on.
            log.error("product %s: %s", product.id, error)
            return self.plain
        own: Encoding = self._json
        if facet.default:
            own = Either(proto, self._json) if facet.json_too else proto
        fixed = {Form.JSON: self._json, Form.PROTO: proto}
        down = self._json if facet.json_downlinks else own
        return Forms({Form.OWN: own, **fixed}, {Form.OWN: down, **fixed})
