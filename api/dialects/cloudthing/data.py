"""What devices send as data: bytes of one of four formats, checked at the door and made into what the chain gets."""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from api.dialects.cloudthing.products import Formats
from engine.errors import BadInput
from nodes.codecs.cbor import decode_cbor
from nodes.codecs.records import by_timestamp, records
from nodes.codecs.values import decode_json

JSON, CBOR, PROTO, CUSTOM = "json", "cbor", "proto", "custom"
TELEMETRY: Final = "POST_TELEMETRY_REQUEST"
RAW: Final = "RAW_UPLINK"

_NAMES: Final = frozenset({JSON, CBOR, PROTO, CUSTOM})
_OF_CONTENT_TYPE: Final = {"application/json": JSON, "application/cbor": CBOR, "application/octet-stream": PROTO}


class Draft(NamedTuple):
    """What a message will hold, before anybody says how it came."""

    type: str
    data: Any
    ts_ms: int
    metadata: dict[str, str]


def format_of_content_type(header: str | None) -> str:
    """The format that an HTTP Content-Type stands for; `custom` for any other and for none (CT-32)."""
    if not header:
        return CUSTOM
    return _OF_CONTENT_TYPE.get(header.partition(";")[0].strip().lower(), CUSTOM)


def format_of_query(query: str) -> str:
    """The format that parameter `ct` names in what follows the `?` of an MQTT topic (CT-22).

    `custom` for a name that is not known and for none (CT-23, CT-S13); other parameters do not matter.
    """
    if query[:3] == "ct=" and query[3:] in _NAMES:
        return query[3:]
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "ct":
            return value if value in _NAMES else CUSTOM
    return CUSTOM


def drafts(
    ct: str, body: bytes, received_ms: int, formats: Formats | None, *, device_id: str, product_id: str
) -> list[Draft]:
    """The messages that `body` in format `ct` becomes (CT-70, CT-71); at least one.

    JSON becomes telemetry, one message per distinct time in the order of the records, with metadata `ts`, `ct` and
    maybe `geo`. The rest becomes one RAW_UPLINK with the bytes, for the chain to decode; `formats` are those of the
    device's product, and None, when they are not at hand, leaves the check of Protocol Buffers and custom data to it.

    Raises BadInput for what cannot be decoded, for an invalid record, and for a format that the product lacks the
    definition of (CT-S6, CT-S10, CT-S12).
    """
    if ct == JSON:
        return _telemetry(decode_json(body), received_ms)
    if ct == CBOR:
        records(decode_cbor(body), received_ms)
    elif formats is not None:
        if ct == PROTO:
            _check_proto(body, received_ms, formats)
        elif not formats.transforms:
            raise BadInput("custom data needs a transform function, and the device's product has none")
    metadata = {"ct": ct, "deviceId": device_id}
    if product_id:
        metadata["productId"] = product_id
    return [Draft(RAW, body, received_ms, metadata)]


def _telemetry(document: Any, received_ms: int) -> list[Draft]:
    made = []
    for instant in by_timestamp(records(document, received_ms)):
        metadata = {"ts": str(instant.ts_ms), "ct": JSON}
        if instant.geo:
            metadata["geo"] = msgspec.json.encode(instant.geo).decode()
        made.append(Draft(TELEMETRY, instant.values, instant.ts_ms, metadata))
    return made


def _check_proto(body: bytes, received_ms: int, formats: Formats) -> None:
    codec = formats.proto()
    if codec is None:
        raise BadInput("Protocol Buffers need a message definition, and the device's product has none")
    document = codec.decode(body)
    if codec.has_records:
        records(document, received_ms)
    elif not formats.transforms:
        raise BadInput("the message has no records, and the device's product has no transform function for it")
