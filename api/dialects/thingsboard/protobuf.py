"""Payloads as Protocol Buffers: a product's own messages, and the platform's where it has none (`TB-X1`).

The platform's messages are those of ThingsBoard's MQTT API on topics that end with `/p`. Only numbers and types of
fields are on the wire; the names here are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from api.dialects.thingsboard.payload import Payloads, Reading, keys_of, wanted_attributes
from api.mqtt_protobuf_facet import MqttProtobuf, codec_of
from engine.errors import BadInput
from engine.message import now_ms
from engine.replies import Answer
from engine.stores.commands import Pending
from nodes.codecs.lenient_json import decode_lenient
from nodes.codecs.values import check_value

_F: Final = descriptor_pb2.FieldDescriptorProto
_BOOL, _INT32, _INT64, _DOUBLE, _TEXT = _F.TYPE_BOOL, _F.TYPE_INT32, _F.TYPE_INT64, _F.TYPE_DOUBLE, _F.TYPE_STRING

_MESSAGES: Final[dict[str, tuple[tuple[str, int, int | str, bool], ...]]] = {
    # Name, number, type (or message), whether it repeats.
    "Value": (
        ("key", 1, _TEXT, False), ("kind", 2, _INT32, False), ("b", 3, _BOOL, False), ("l", 4, _INT64, False),
        ("d", 5, _DOUBLE, False), ("s", 6, _TEXT, False), ("j", 7, _TEXT, False),
    ),
    "Timed": (("ts", 1, _INT64, False), ("value", 2, "Value", False)),
    "Reading": (("ts", 1, _INT64, False), ("values", 2, "Value", True)),
    "Readings": (("readings", 1, "Reading", True),),
    "Attributes": (("values", 1, "Value", True),),
    "Wanted": (("client", 1, _TEXT, False), ("shared", 2, _TEXT, False)),
    "Found": (("id", 1, _INT32, False), ("client", 2, "Timed", True), ("shared", 3, "Timed", True)),
    "Update": (("values", 1, "Timed", True), ("deleted", 2, _TEXT, True)),
    "Call": (("method", 1, _TEXT, False), ("params", 2, _TEXT, False)),
    "Command": (("id", 1, _INT32, False), ("method", 2, _TEXT, False), ("params", 3, _TEXT, False)),
    "Answer": (("id", 1, _INT32, False), ("data", 2, _TEXT, False), ("error", 3, _TEXT, False)),
}  # fmt: skip

_KINDS: Final = ("b", "l", "d", "s", "j")
"""The field that a value stands in, by the number of its kind."""


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="payloads.proto", package="payloads", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, type, repeated in fields:
            made = message.field.add(name=field, number=number)
            made.label = _F.LABEL_REPEATED if repeated else _F.LABEL_OPTIONAL
            if isinstance(type, str):
                made.type, made.type_name = _F.TYPE_MESSAGE, f".payloads.{type}"
            else:
                made.type = _F.Type.ValueType(type)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"payloads.{name}")) for name in _MESSAGES}


_made: Final = _classes()


class Proto:
    """An `Encoding` by a product's facet; BadInput for a definition in it that does not build."""

    def __init__(self, facet: MqttProtobuf | None, payloads: Payloads) -> None:
        self._payloads = payloads
        self._telemetry, self._attributes, self._command, self._answer = (
            None if facet is None else codec_of(facet, use)
            for use in ("telemetry", "attributes", "rpc_request", "rpc_response")
        )

    # What a device publishes

    def telemetry(self, body: bytes) -> list[Reading]:
        """The product's message, read as its JSON form would be; else readings, one or many."""
        if self._telemetry is not None:
            return self._payloads.telemetry_value(self._telemetry.decode(body))
        # One reading begins with a number or its values, many with a reading: they cannot be taken for each other.
        many = body[:1] == b"\x0a"
        readings = _parsed("Readings", body).readings if many else [_parsed("Reading", body)]
        instants: dict[int | None, dict[str, Any]] = {}
        for reading in readings:
            instants.setdefault(reading.ts or None, {}).update(_values(reading.values))
        return [(ts_ms, values) for ts_ms, values in instants.items() if values]

    def attributes(self, body: bytes) -> dict[str, Any]:
        """The product's message, read as its JSON form would be; else a list of values."""
        if self._attributes is not None:
            return self._payloads.attribute_values(self._attributes.decode(body))
        return _values(_parsed("Attributes", body).values)

    def wanted(self, body: bytes) -> tuple[list[str] | None, list[str] | None]:
        """Client and shared keys, with commas."""
        asked = _parsed("Wanted", body)
        return keys_of(asked.client), keys_of(asked.shared)

    def call(self, body: bytes) -> dict[str, Any]:
        """A method, and params as JSON text."""
        asked = _parsed("Call", body)
        if not asked.method:
            raise BadInput("the call has no method", "/method")
        return {"method": asked.method, "params": _json(asked.params, "/params")}

    def answer(self, body: bytes) -> Any:
        """The product's message as a value; else data as JSON text."""
        if self._answer is not None:
            return self._answer.decode(body)
        return _json(_parsed("Answer", body).data, "/data")

    # What it is sent

    def found(
        self, id: int, attributes: Mapping[Any, Mapping[str, Any]], client: Sequence[str] | None,
        shared: Sequence[str] | None,
    ) -> bytes:  # fmt: skip
        """The attributes asked for, with when each was set."""
        message = _made["Found"](id=_int32(id))
        for name, values in wanted_attributes(attributes, client, shared).items():
            getattr(message, name).extend(_timed(key, each.value, each.ts_ms) for key, each in values.items())
        return _written(message)

    def update(self, kind: str, body: Any) -> bytes:
        """Changed values, or keys that were deleted."""
        if kind == "attributes_deleted":
            return _written(_made["Update"](deleted=body))
        ts_ms = now_ms()
        return _written(_made["Update"](values=[_timed(key, value, ts_ms) for key, value in body.items()]))

    def command(self, entry: Pending) -> bytes:
        """The product's message with `method`, `requestId` and `params`; else the platform's."""
        name, params = entry.command.name, entry.command.payload
        if self._command is not None:
            return self._command.encode({"method": name, "requestId": _int32(entry.id), "params": params})
        return _written(_made["Command"](id=_int32(entry.id), method=name, params=_text(params)))

    def own_answer(self, id: int, value: Any) -> bytes:
        """Data as JSON text."""
        return _written(_made["Answer"](id=_int32(id), data=_text(value)))

    def call_answer(self, id: int, answer: Answer | None) -> bytes:
        """Data as JSON text, or an error."""
        if answer is None or answer.error:
            return _written(_made["Answer"](id=_int32(id), error="timeout" if answer is None else answer.error))
        return self.own_answer(id, answer.data)


def _parsed(name: str, body: bytes) -> Any:
    try:
        return _made[name].FromString(body)
    except (DecodeError, UnicodeDecodeError):
        raise BadInput("not a message of this topic") from None


def _written(message: Message) -> bytes:
    return message.SerializeToString()


def _values(values: Sequence[Any]) -> dict[str, Any]:
    found = {}
    for each in values:
        if not 0 <= each.kind < len(_KINDS):
            raise BadInput(f"there is no kind of value {each.kind}", f"/{each.key}")
        value = getattr(each, _KINDS[each.kind])
        found[each.key] = _json(value, f"/{each.key}") if _KINDS[each.kind] == "j" else value
    check_value(found)
    return {key: value for key, value in found.items() if value is not None}


def _timed(key: str, value: Any, ts_ms: int) -> Any:
    made = _made["Value"](key=key)
    kind = {bool: "b", int: "l", float: "d", str: "s"}.get(type(value), "j")
    made.kind = _KINDS.index(kind)
    setattr(made, kind, _text(value) if kind == "j" else value)
    return _made["Timed"](ts=ts_ms, value=made)


def _json(text: str, pointer: str) -> Any:
    try:
        return decode_lenient(text.encode()) if text.strip() else None
    except BadInput as error:
        raise BadInput(error.reason, pointer + error.pointer) from None


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _int32(id: int) -> int:
    """The number as far as its field holds it: the topic has all of it."""
    return id & 0x7FFFFFFF
