"""The messages of ChirpStack v4's events, as far as they are read: field numbers are those of its `integration.proto`,
`gw.proto` and `common.proto`, names those of its JSON.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from google.protobuf import descriptor_pb2

_PACKAGE: Final = "chirpstack"
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {
    "string": _Field.TYPE_STRING, "bytes": _Field.TYPE_BYTES, "bool": _Field.TYPE_BOOL,
    "uint32": _Field.TYPE_UINT32, "int32": _Field.TYPE_INT32, "float": _Field.TYPE_FLOAT,
    "double": _Field.TYPE_DOUBLE,
}  # fmt: skip
_TIMESTAMP, _STRUCT = "google.protobuf.Timestamp", "google.protobuf.Struct"

EVENT_MESSAGES: Final = {
    "up": "UplinkEvent",
    "join": "JoinEvent",
    "status": "StatusEvent",
    "ack": "AckEvent",
    "txack": "TxAckEvent",
    "log": "LogEvent",
    "location": "LocationEvent",
    "integration": "IntegrationEvent",
}
"""Event, as the query names it, to its message."""

_HEAD: Final = {"deduplicationId": (1, "string"), "time": (2, _TIMESTAMP), "deviceInfo": (3, "DeviceInfo")}

_MESSAGES: Final[dict[str, dict[str, tuple[int, str]]]] = {
    "DeviceInfo": {
        "tenantId": (1, "string"), "tenantName": (2, "string"), "applicationId": (3, "string"),
        "applicationName": (4, "string"), "deviceProfileId": (5, "string"), "deviceProfileName": (6, "string"),
        "deviceName": (7, "string"), "devEui": (8, "string"), "tags": (9, "map"),
    },
    "Location": {
        "latitude": (1, "double"), "longitude": (2, "double"), "altitude": (3, "double"), "accuracy": (5, "float"),
    },
    "UplinkRxInfo": {
        "gatewayId": (1, "string"), "uplinkId": (2, "uint32"), "gwTime": (3, _TIMESTAMP), "rssi": (6, "int32"),
        "snr": (7, "float"), "channel": (8, "uint32"), "location": (12, "Location"), "nsTime": (17, _TIMESTAMP),
    },
    "LoraModulationInfo": {"bandwidth": (1, "uint32"), "spreadingFactor": (2, "uint32")},
    "Modulation": {"lora": (3, "LoraModulationInfo")},
    "UplinkTxInfo": {"frequency": (1, "uint32"), "modulation": (2, "Modulation")},
    "UplinkEvent": {
        **_HEAD, "devAddr": (4, "string"), "adr": (5, "bool"), "dr": (6, "uint32"), "fCnt": (7, "uint32"),
        "fPort": (8, "uint32"), "confirmed": (9, "bool"), "data": (10, "bytes"), "object": (11, _STRUCT),
        "rxInfo": (12, "repeated UplinkRxInfo"), "txInfo": (13, "UplinkTxInfo"),
    },
    "JoinEvent": {**_HEAD, "devAddr": (4, "string")},
    "StatusEvent": {
        **_HEAD, "margin": (5, "int32"), "externalPowerSource": (6, "bool"), "batteryLevelUnavailable": (7, "bool"),
        "batteryLevel": (8, "float"),
    },
    "AckEvent": {**_HEAD, "queueItemId": (4, "string"), "acknowledged": (5, "bool"), "fCntDown": (6, "uint32")},
    "TxAckEvent": {
        "downlinkId": (1, "uint32"), "time": (2, _TIMESTAMP), "deviceInfo": (3, "DeviceInfo"),
        "queueItemId": (4, "string"), "fCntDown": (5, "uint32"), "gatewayId": (6, "string"),
    },
    "LogEvent": {
        "time": (1, _TIMESTAMP), "deviceInfo": (2, "DeviceInfo"), "level": (3, "enum LogLevel"),
        "code": (4, "enum LogCode"), "description": (5, "string"), "context": (6, "map"),
    },
    "LocationEvent": {**_HEAD, "location": (4, "Location")},
    "IntegrationEvent": {
        **_HEAD, "integrationName": (4, "string"), "eventType": (5, "string"), "object": (6, _STRUCT),
    },
}  # fmt: skip

_ENUMS: Final = {
    "LogLevel": ("INFO", "WARNING", "ERROR"),
    "LogCode": (
        "UNKNOWN", "DOWNLINK_PAYLOAD_SIZE", "UPLINK_CODEC", "DOWNLINK_CODEC", "OTAA", "UPLINK_F_CNT_RESET",
        "UPLINK_MIC", "UPLINK_F_CNT_RETRANSMISSION", "DOWNLINK_GATEWAY", "RELAY_NEW_END_DEVICE", "F_CNT_DOWN",
        "EXPIRED",
    ),
}  # fmt: skip


def full_name(message: str) -> str:
    """A message's name with its package."""
    return f"{_PACKAGE}.{message}"


@lru_cache(maxsize=1)
def descriptor_set() -> bytes:
    """The serialized FileDescriptorSet of all messages."""
    file = descriptor_pb2.FileDescriptorProto(
        name="chirpstack.proto", package=_PACKAGE, syntax="proto3",
        dependency=["google/protobuf/struct.proto", "google/protobuf/timestamp.proto"],
    )  # fmt: skip
    for name, values in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _add(message, field, number, kind)
    return descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()


def _add(message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str) -> None:
    made = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if kind in _SCALARS:
        made.type = _SCALARS[kind]
    elif kind.startswith("enum "):
        made.type, made.type_name = _Field.TYPE_ENUM, f".{_PACKAGE}.{kind.removeprefix('enum ')}"
    elif kind == "map":
        entry = message.nested_type.add(name=f"{name[0].upper()}{name[1:]}Entry")
        entry.options.map_entry = True
        _add(entry, "key", 1, "string")
        _add(entry, "value", 2, "string")
        made.label, made.type = _Field.LABEL_REPEATED, _Field.TYPE_MESSAGE
        made.type_name = f".{_PACKAGE}.{message.name}.{entry.name}"
    else:
        inner = kind.removeprefix("repeated ")
        made.type = _Field.TYPE_MESSAGE
        made.type_name = f".{inner}" if "." in inner else f".{_PACKAGE}.{inner}"
        if inner != kind:
            made.label = _Field.LABEL_REPEATED
