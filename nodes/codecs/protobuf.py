"""Protocol Buffers to JSON values, by a message definition that is known only at run time."""

from __future__ import annotations

import base64
import operator
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    json_format,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from engine.errors import BadInput
from nodes.codecs.values import check_value

MAX_SET_BYTES: Final = 1024 * 1024
MAX_FILES: Final = 1000
MAX_ENTRIES: Final = 100_000
"""How many messages one repeated field may hold: an empty one is two bytes on the wire and hundreds in memory."""

Convert = Callable[[Any], Any]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KNOWN_FILES: Final = {pb2.DESCRIPTOR.name: pb2.DESCRIPTOR for pb2 in (struct_pb2, timestamp_pb2, wrappers_pb2)}
_MAP_ENTRY: Final = [("key", 1), ("value", 2)]
_TAKEN_NAMES: Final = frozenset({"FromString", "HasField"})
"""A field or type of such a name would hide the method of the runtime that reads it."""


class ProtoCodec:
    """Reads and writes one message type: `message` is its full name, `descriptor_set` a serialized FileDescriptorSet.

    The set is what `protoc --include_imports --descriptor_set_out` writes; the files of `google.protobuf` for Struct,
    Value, Timestamp and the wrappers need not be in it. Raises BadInput if it does not build, lacks the message, or if
    the message can hold an Any or a group (CT-S6). `has_records` tells whether the root has a repeated message field
    `records` or `r`. `json_names`: fields go by the names that the JSON form of protobuf has for them (`batteryLevel`).
    """

    def __init__(self, descriptor_set: bytes, message: str, *, json_names: bool = False) -> None:
        pool = _pool(descriptor_set)
        try:
            root = pool.FindMessageTypeByName(message)
        except (KeyError, ValueError, TypeError):
            raise BadInput(f"the descriptor set has no message {message!r}") from None
        if root.full_name in _KNOWN_TYPES:
            raise BadInput(f"{message} cannot be the root: use a message of your own")
        try:
            self._read = _Shapes(json_names).reader(root)
        except RecursionError:
            raise BadInput("messages refer to each other too deeply") from None
        self._make = message_factory.GetMessageClass(root)
        self._parse = self._make.FromString
        texts = [each for each in root.fields if each.type == FieldDescriptor.TYPE_STRING and not each.is_repeated]
        self._texts = {each.name for each in texts} | {each.json_name for each in texts}
        self.has_records = any(
            field.is_repeated and field.message_type is not None
            for field in map(root.fields_by_name.get, ("records", "r"))
            if field is not None
        )

    def decode(self, body: bytes) -> dict[str, Any]:
        """The message in `body` by field name; everything in it passed `check_value`.

        A field without presence (proto3 scalars, repeated, maps) is always there, with its default if it was not on the
        wire; one with presence (`optional`, `oneof`, messages) only if it was (CT-S6). 64-bit integers are ints, float
        is widened as it is, `bytes` become base64 text, enums their name (a number without a name stays a number), map
        keys text; Struct, Value and the wrappers become what they stand for, Timestamp RFC 3339 text. Unknown fields
        are ignored. Raises BadInput, and nothing else, for any bytes.
        """
        try:
            document = self._read(self._parse(body))
        except DecodeError:
            raise BadInput("not a message of this type") from None
        except UnicodeDecodeError as error:
            raise BadInput(f"text is not UTF-8: {error.reason}") from None
        except (OverflowError, MemoryError, RecursionError) as error:
            raise BadInput(f"message cannot be read: {error or type(error).__name__}") from None
        check_value(document)
        return document  # type: ignore[no-any-return]  # a message's reader gives a dict

    def encode(self, value: Mapping[str, Any]) -> bytes:
        """The message of these members, in the JSON form of protobuf; those that it has no field for are left out.

        For a text field at the top, a value that is no text is written as JSON. Raises BadInput for what a field cannot
        hold.
        """
        try:
            fitting = {
                name: msgspec.json.encode(member).decode()
                if name in self._texts and type(member) is not str
                else member
                for name, member in value.items()
            }
            message = json_format.ParseDict(fitting, self._make(), ignore_unknown_fields=True)
            return message.SerializeToString()
        except (json_format.ParseError, ValueError, TypeError, RecursionError) as error:
            raise BadInput(f"not a value of this type: {error}") from None


def _pool(descriptor_set: bytes) -> descriptor_pool.DescriptorPool:
    """A pool of its own with the files of the set; hence two tenants may use one name for different messages."""
    if len(descriptor_set) > MAX_SET_BYTES:
        raise BadInput(f"descriptor set of more than {MAX_SET_BYTES} bytes")
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file
    except DecodeError:
        raise BadInput("not a FileDescriptorSet") from None
    if not files:
        raise BadInput("the descriptor set is empty")
    if len(files) > MAX_FILES:
        raise BadInput(f"descriptor set of more than {MAX_FILES} files")
    names = {file.name for file in files}
    if len(names) < len(files):
        raise BadInput("the descriptor set has two files of one name")
    for file in files:
        for name in file.dependency:
            if name not in names and name not in _KNOWN_FILES:
                raise BadInput(f"{file.name} imports {name}, which is not in the set (protoc --include_imports)")
    waiting = {file.name: file for file in files if file.name not in _KNOWN_FILES}
    pool = descriptor_pool.DescriptorPool()
    for known in _KNOWN_FILES.values():
        pool.AddSerializedFile(known.serialized_pb)
    # Imports first. protoc writes them so, but nothing else has to.
    while waiting:
        ready = [file for file in waiting.values() if not any(name in waiting for name in file.dependency)]
        if not ready:
            raise BadInput(f"files import each other in a circle: {', '.join(sorted(waiting))[:200]}")
        for file in ready:
            try:
                pool.AddSerializedFile(file.SerializeToString())
            except (TypeError, ValueError, UnicodeDecodeError) as error:
                raise BadInput(f"{file.name}: {error}") from None
            del waiting[file.name]
    return pool


class _Shapes:
    """Makes one reader per message type of a codec: what to do with each field is decided once, not per message."""

    def __init__(self, json_names: bool) -> None:
        self._json_names = json_names
        self._readers: dict[str, Convert] = {}

    def reader(self, message: Descriptor) -> Convert:
        """The function that makes a dict of a message of this type."""
        name = message.full_name
        if name in _KNOWN_TYPES:
            return _KNOWN_TYPES[name]
        if name in self._readers:
            return self._readers[name]
        if name == "google.protobuf.Any":
            raise BadInput("google.protobuf.Any is not taken: what it holds is not known beforehand")
        for taken in _TAKEN_NAMES.intersection(_names(message)):
            raise BadInput(f"{name}: the name {taken} cannot be used")
        # A type that holds itself finds this entry, which looks up the finished reader when it is called.
        readers = self._readers
        readers[name] = lambda value: readers[name](value)
        readers[name] = self._build(message)
        return readers[name]

    def _build(self, message: Descriptor) -> Convert:
        plain: dict[str, str] = {}
        always: list[tuple[str, str, Convert]] = []
        present: list[tuple[str, str, Convert]] = []
        for field in message.fields:
            convert = self._field(field)
            shown = field.json_name if self._json_names else field.name
            if field.has_presence:
                present.append((field.name, shown, convert or _same))
            elif convert is None:
                plain[field.name] = shown
            else:
                always.append((field.name, shown, convert))
        # attrgetter gives a tuple only for two names or more.
        if len(plain) == 1:
            always.append((*plain.popitem(), _same))
        get = operator.attrgetter(*plain) if plain else _nothing
        plainly_shown = tuple(plain.values())

        def read(value: Any) -> dict[str, Any]:
            found = dict(zip(plainly_shown, get(value), strict=True))
            for name, shown, convert in always:
                found[shown] = convert(getattr(value, name))
            for name, shown, convert in present:
                if value.HasField(name):
                    found[shown] = convert(getattr(value, name))
            return found

        return read

    def _field(self, field: FieldDescriptor) -> Convert | None:
        """What makes a JSON value of the field's value; None when it is one already."""
        if field.type == FieldDescriptor.TYPE_GROUP:
            raise BadInput(f"{field.full_name}: groups are not taken")
        message = field.message_type
        if message is not None and message.GetOptions().map_entry:
            if not field.is_repeated or [(each.name, each.number) for each in message.fields] != _MAP_ENTRY:
                raise BadInput(f"{field.full_name}: {message.full_name} says that it is of a map, and is not")
            return _map(self._one(message.fields_by_name["value"]))
        one = self._one(field)
        if not field.is_repeated:
            return one
        if message is not None and one is not None:
            return _many(one)
        return list if one is None else lambda values: [one(value) for value in values]

    def _one(self, field: FieldDescriptor) -> Convert | None:
        if field.message_type is not None:
            if field.type == FieldDescriptor.TYPE_GROUP:
                raise BadInput(f"{field.full_name}: groups are not taken")
            return self.reader(field.message_type)
        if field.enum_type is not None:
            names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
            return lambda number: names.get(number, number)
        return _base64 if field.type == FieldDescriptor.TYPE_BYTES else None


def _names(message: Descriptor) -> Iterable[str]:
    yield from message.fields_by_name
    yield from message.nested_types_by_name
    yield from message.enum_types_by_name
    yield from message.enum_values_by_name
    yield from message.extensions_by_name


def _many(convert: Convert) -> Convert:
    def read(values: Any) -> list[Any]:
        if len(values) > MAX_ENTRIES:
            raise BadInput(f"a field repeats more than {MAX_ENTRIES} times")
        return [convert(value) for value in values]

    return read


def _map(convert: Convert | None) -> Convert:
    change = convert or _same

    def read(values: Any) -> dict[str, Any]:
        return {_map_key(key): change(values[key]) for key in values}

    return read


def _map_key(key: Any) -> str:
    return key if type(key) is str else str(key).lower()  # True is "true", as in the JSON form of protobuf


def _same(value: Any) -> Any:
    return value


def _nothing(value: Any) -> tuple[()]:
    return ()


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _timestamp(value: Any) -> str:
    try:
        moment = _EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)
    except OverflowError:
        raise BadInput("google.protobuf.Timestamp outside the years 1 to 9999") from None
    return moment.isoformat().replace("+00:00", "Z")


def _struct(value: Any) -> dict[str, Any]:
    return {key: _value(value.fields[key]) for key in value.fields}


def _list(value: Any) -> list[Any]:
    return [_value(member) for member in value.values]


def _value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _struct(value.struct_value)
    if kind == "list_value":
        return _list(value.list_value)
    return None if kind is None or kind == "null_value" else getattr(value, kind)


_KNOWN_TYPES: Final[dict[str, Convert]] = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Struct": _struct,
    "google.protobuf.ListValue": _list,
    "google.protobuf.Value": _value,
    "google.protobuf.BytesValue": lambda value: _base64(value.value),
    **{
        f"google.protobuf.{kind}Value": operator.attrgetter("value")
        for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String")
    },
}
