"""Bodies of the ThingsBoard dialect: telemetry, attributes and calls, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from api.dialects.thingsboard.settings import DIALECT, Settings
from api.intake import Intake
from engine.errors import BadInput
from engine.message import Message
from engine.node import Product
from engine.stores.registry import Device
from engine.stores.values import MAX_TS_MS
from nodes.codecs.lenient_json import decode_lenient, decode_members, tb_cast

T = TypeVar("T")

Reading = tuple[int | None, dict[str, Any]]
"""Values of one instant; None is the server's time."""

TELEMETRY: Final = "POST_TELEMETRY_REQUEST"
ATTRIBUTES: Final = "POST_ATTRIBUTES_REQUEST"
RAW: Final = "RAW_UPLINK"


class Payloads:
    """Reads bodies. Everything raises BadInput for what cannot be read."""

    def __init__(self, settings: Settings) -> None:
        self._cast = settings.type_cast
        self._max_text = settings.max_text

    def telemetry(self, body: bytes) -> list[Reading]:
        """The readings in forms A, B and C, one for each instant in the order of their first value (`TB-6`…`TB-8`).

        Empty ones are left out.
        """
        return self.telemetry_value(decode_lenient(body, long_as_text=self._cast))

    def telemetry_value(self, value: Any) -> list[Reading]:
        """The same of a value that is read already."""
        if type(value) is dict:
            ts_ms, values = self._reading(value, "")
            return [(ts_ms, values)] if values else []
        return self.readings(value)

    def readings(self, value: Any, pointer: str = "") -> list[Reading]:
        """The same of an array (`TB-7`)."""
        if type(value) is not list:
            raise BadInput(
                f"Can't parse value: telemetry is an object or an array of objects, not {_shown(value)}", pointer
            )
        instants: dict[int | None, dict[str, Any]] = {}
        for i, each in enumerate(value):
            if type(each) is not dict:
                raise BadInput(f"Can't parse value: an object is expected, not {_shown(each)}", f"{pointer}/{i}")
            ts_ms, values = self._reading(each, f"{pointer}/{i}")
            instants.setdefault(ts_ms, {}).update(values)
        return [(ts_ms, values) for ts_ms, values in instants.items() if values]

    def attributes(self, body: bytes) -> dict[str, Any]:
        """The attributes of an object (`TB-15`)."""
        return self.attribute_values(decode_lenient(body, long_as_text=self._cast))

    def attribute_values(self, value: Any, pointer: str = "") -> dict[str, Any]:
        """The same of a value that is read already."""
        if type(value) is not dict:
            raise BadInput(f"Can't parse value: attributes are an object, not {_shown(value)}", pointer)
        return self._values(value, pointer)

    def by_device(self, body: bytes) -> dict[str, Any]:
        """What a gateway says of each device, by name (`TB-X2`); a BadInput where that cannot be read."""
        return decode_members(body, long_as_text=self._cast)

    def of_device(self, body: bytes) -> tuple[str, dict[str, Any]]:
        """What a gateway says of one device: the member `device`, and all members (`TB-X2`)."""
        value = _object(decode_lenient(body), "what a gateway says")
        name = value.get("device")
        if type(name) in (int, float) and type(name) is not bool:
            # A word without quotes may look like a number.
            name = str(name)
        if type(name) is not str or not name:
            raise BadInput("the name of the device is missing, or it is no text", "/device")
        return name, value

    def call(self, body: bytes) -> dict[str, Any]:
        """A call of the device: `{"method": text, "params": anything}` (`TB-S22`)."""
        value = _object(decode_lenient(body), "a call")
        if type(value.get("method")) is not str or not value["method"]:
            raise BadInput("the call has no method, or it is no text", "/method")
        if "params" not in value:
            raise BadInput("the call has no params", "/params")
        return {"method": value["method"], "params": value["params"]}

    def answer(self, body: bytes) -> Any:
        """The answer to a command: any JSON; nothing at all is null (`TB-S21`)."""
        return decode_lenient(body) if body.strip() else None

    def wanted(self, body: bytes) -> tuple[list[str] | None, list[str] | None]:
        """Client and shared keys of an attribute request over MQTT (`TB-X1`)."""
        value = _object(decode_lenient(body) if body.strip() else {}, "an attribute request")
        found = []
        for name in ("clientKeys", "sharedKeys"):
            text = value.get(name)
            if text is not None and type(text) is not str:
                raise BadInput("keys are one text with commas", f"/{name}")
            found.append(keys_of(text))
        return found[0], found[1]

    def _reading(self, value: dict[str, Any], pointer: str) -> Reading:
        if "ts" not in value or "values" not in value:
            return None, self._values(value, pointer)
        ts_ms, values = value["ts"], value["values"]
        if type(ts_ms) is float:
            ts_ms = int(ts_ms)
        if type(ts_ms) is not int:
            raise BadInput("Can't parse value: ts is not a number", f"{pointer}/ts")
        if not -MAX_TS_MS <= ts_ms <= MAX_TS_MS:
            raise BadInput("Can't parse value: ts is out of range", f"{pointer}/ts")
        if type(values) is not dict:
            raise BadInput("Can't parse value: values is not an object", f"{pointer}/values")
        return ts_ms, self._values(values, f"{pointer}/values")

    def _values(self, values: dict[str, Any], pointer: str) -> dict[str, Any]:
        """Without nulls, numeric texts cast (`TB-S6`)."""
        return {
            key: value if type(value) is not str else self._text(value, pointer, key)
            for key, value in values.items()
            if value is not None
        }

    def _text(self, text: str, pointer: str, key: str) -> Any:
        if self._max_text and len(text) > self._max_text:
            raise BadInput(f"a text is longer than {self._max_text} characters", f"{pointer}/{key}")
        # Numbers begin with one of these; most texts do not.
        return tb_cast(text) if self._cast and text[:1] in _NUMERIC else text


def _object(value: Any, what: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise BadInput(f"{what} is an object, not {_shown(value)}")
    return value


_NUMERIC: Final = frozenset("0123456789-.")


def keys_of(text: str | None) -> list[str] | None:
    """Keys of a list with commas; None where there is no list."""
    return [key for key in text.split(",") if key] if text else None


def wanted_attributes(
    attributes: Mapping[Any, Mapping[str, T]], client: Sequence[str] | None, shared: Sequence[str] | None
) -> dict[str, dict[str, T]]:
    """What a device sees of its attributes: the wanted keys of each scope, all of both when none are named (`TB-S12`).

    A scope where nothing was found is left out (`TB-21`). What only the server may see is never there.
    """
    everything = client is None and shared is None
    found: dict[str, dict[str, T]] = {}
    for name, scope, keys in (("client", "CLIENT", client), ("shared", "SHARED", shared)):
        values = attributes[scope]
        if everything:
            keys = list(values)
        picked = {key: values[key] for key in keys or () if key in values}
        if picked:
            found[name] = picked
    return found


def visible(
    attributes: Mapping[Any, Mapping[str, Any]], client: Sequence[str] | None, shared: Sequence[str] | None
) -> dict[str, dict[str, Any]]:
    """The values of `wanted_attributes`."""
    found = wanted_attributes(attributes, client, shared)
    return {name: {key: each.value for key, each in values.items()} for name, values in found.items()}


UPDATES: Final = frozenset({"attributes", "attributes_deleted"})
"""What `Live` calls changes of shared attributes."""


def update_of(kind: str, body: Any) -> dict[str, Any]:
    """A change of shared attributes as a device is told it: flat, or `{"deleted": keys}` (`TB-34`)."""
    return {"deleted": body} if kind == "attributes_deleted" else body


def telemetry_messages(intake: Intake, device: Device, readings: Sequence[Reading], transport: str) -> list[Message]:
    """One message for each instant; a request is one instant of the server's (`TB-13`)."""
    stamp = intake.stamp(device.id)
    return [
        intake.message(
            device, TELEMETRY, values, dialect=DIALECT, transport=transport, ts_ms=stamp,
            metadata={"ts": str(stamp if ts_ms is None else ts_ms)},
        )
        for ts_ms, values in readings
    ]  # fmt: skip


def is_custom(product: Product | None) -> bool:
    """Whether telemetry of the product's devices is bytes for its transform function (`TB-62`)."""
    return product is not None and product.facets.get("payload") == "custom"


def raw_message(intake: Intake, device: Device, body: bytes, transport: str) -> Message:
    """The message of telemetry that only the product's transform function can read."""
    if not body:
        raise BadInput("there are no bytes for the product's transform function")
    return intake.message(
        device, RAW, body, dialect=DIALECT, transport=transport, ts_ms=intake.stamp(device.id),
        metadata={"ct": "custom", "productId": device.product},
    )  # fmt: skip


def attributes_message(intake: Intake, device: Device, values: dict[str, Any], transport: str) -> Message:
    """The message that sets attributes of the device's own (`TB-15`)."""
    return intake.message(
        device, ATTRIBUTES, values, dialect=DIALECT, transport=transport, ts_ms=intake.stamp(device.id),
        metadata={"scope": "CLIENT_SCOPE"},
    )  # fmt: skip


def _shown(value: Any) -> str:
    names = {str: "text", bool: "a boolean", int: "a number", float: "a number", list: "an array", dict: "an object"}
    return names.get(type(value), "null")
