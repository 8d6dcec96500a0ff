"""Message definitions made by hand, as no protobuf compiler is needed to run the server either."""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Field = descriptor_pb2.FieldDescriptorProto


def field(
    name: str,
    number: int,
    kind: int,
    *,
    type_name: str = "",
    repeated: bool = False,
    optional_oneof: int | None = None,
    oneof: int | None = None,
) -> Field:
    made = Field(name=name, number=number, type=kind)
    made.label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
    if type_name:
        made.type_name = type_name
    if optional_oneof is not None:
        made.proto3_optional = True
        made.oneof_index = optional_oneof
    if oneof is not None:
        made.oneof_index = oneof
    return made


def file(name: str = "test.proto", **settings: Any) -> descriptor_pb2.FileDescriptorProto:
    return descriptor_pb2.FileDescriptorProto(name=name, **{"syntax": "proto3", **settings})


def serialized(*files: descriptor_pb2.FileDescriptorProto) -> bytes:
    return descriptor_pb2.FileDescriptorSet(file=files).SerializeToString()


def message_class(descriptor_set: bytes, name: str) -> Any:
    pool = descriptor_pool.DescriptorPool()
    for each in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file:
        pool.Add(each)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def cloudthing_set() -> bytes:
    """The test definition of CT-S6: Data{i, r}, Record{k, v, optional t, g}, Geo{lt, ln}."""
    made = file("cloudthing.proto")
    data = made.message_type.add(name="Data")
    data.field.append(field("i", 1, Field.TYPE_STRING, repeated=True))
    data.field.append(field("r", 2, Field.TYPE_MESSAGE, type_name=".Record", repeated=True))
    record = made.message_type.add(name="Record")
    record.oneof_decl.add(name="_t")
    record.field.append(field("k", 1, Field.TYPE_STRING))
    record.field.append(field("v", 2, Field.TYPE_DOUBLE))
    record.field.append(field("t", 3, Field.TYPE_DOUBLE, optional_oneof=0))
    record.field.append(field("g", 4, Field.TYPE_MESSAGE, type_name=".Geo"))
    geo = made.message_type.add(name="Geo")
    geo.field.append(field("lt", 1, Field.TYPE_DOUBLE))
    geo.field.append(field("ln", 2, Field.TYPE_DOUBLE))
    return serialized(made)


def typed_set() -> bytes:
    """The same with any kind of value, text times and a position as key: what the JSON forms can say."""
    made = file("typed.proto", dependency=["google/protobuf/struct.proto"])
    data = made.message_type.add(name="Data")
    data.field.append(field("index", 1, Field.TYPE_STRING, repeated=True))
    data.field.append(field("records", 2, Field.TYPE_MESSAGE, type_name=".Record", repeated=True))
    record = made.message_type.add(name="Record")
    for number, (name, kind, type_name) in enumerate(
        [
            ("key", Field.TYPE_STRING, ""),
            ("k", Field.TYPE_UINT32, ""),
            ("value", Field.TYPE_DOUBLE, ""),
            ("v", Field.TYPE_MESSAGE, ".google.protobuf.Value"),
            ("time", Field.TYPE_STRING, ""),
            ("t", Field.TYPE_DOUBLE, ""),
        ]
    ):
        made_field = field(name, number + 1, kind, type_name=type_name)
        if not type_name:
            made_field.proto3_optional = True
            made_field.oneof_index = len(record.oneof_decl)
            record.oneof_decl.add(name=f"_{name}")
        record.field.append(made_field)
    return serialized(made)
