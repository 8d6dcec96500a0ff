"""Events of ChirpStack v4's HTTP integration, JSON or Protocol Buffers, read (CT-X3)."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from msgspec.structs import replace

from api.dialects.cloudthing.chirpstack_schema import EVENT_MESSAGES, descriptor_set, full_name
from api.dialects.cloudthing.delivery import Delivery, count, instant, octets, part, scalars, strongest, text
from engine.errors import BadInput
from nodes.codecs.protobuf import ProtoCodec
from nodes.codecs.values import decode_json

UPLINK: Final = "up"
EVENTS: Final = tuple(EVENT_MESSAGES)


def decode(event: str, body: bytes, *, protobuf: bool) -> Any:
    """The document of an event; one of Protocol Buffers has the names that JSON has. Raises BadInput."""
    if event not in EVENT_MESSAGES:
        raise BadInput(f"event must be one of {', '.join(EVENTS)}", "/event")
    return _codec(event).decode(body) if protobuf else decode_json(body)


@cache
def _codec(event: str) -> ProtoCodec:
    return ProtoCodec(descriptor_set(), full_name(EVENT_MESSAGES[event]))


def read(event: str, document: Any) -> Delivery:
    """What an event's document tells. Raises BadInput."""
    if not isinstance(document, dict):
        raise BadInput("expected an object")
    info = part(document, "deviceInfo", "")
    dev_eui = text(info, "devEui", "/deviceInfo")
    if not dev_eui:
        raise BadInput("devEui is missing", "/deviceInfo/devEui")
    about = scalars(
        document,
        ("devEui", "deviceInfo.devEui"), ("networkDeviceId", "deviceInfo.deviceName"),
        ("applicationId", "deviceInfo.applicationId"), ("applicationName", "deviceInfo.applicationName"),
        ("deviceProfileName", "deviceInfo.deviceProfileName"), ("devAddr", "devAddr"),
    )  # fmt: skip
    unique = text(document, "deduplicationId", "") or text(document, "queueItemId", "")
    common = Delivery(
        dev_eui=dev_eui, pointer="/deviceInfo/devEui", about=about, ts_ms=instant(document, "time", ""),
        application_id=text(info, "applicationId", "/deviceInfo"),
        key=f"{event}/{unique}" if unique else "",
    )  # fmt: skip
    if event != UPLINK:
        return replace(common, event=event, data=document)
    about |= {"fPort": str(count(document, "fPort", "")), "fCnt": str(count(document, "fCnt", ""))}
    about |= scalars(
        document,
        ("dr", "dr"), ("confirmed", "confirmed"), ("frequency", "txInfo.frequency"),
        ("bandwidth", "txInfo.modulation.lora.bandwidth"),
        ("spreadingFactor", "txInfo.modulation.lora.spreadingFactor"),
    )  # fmt: skip
    heard = strongest(document.get("rxInfo"))
    about |= scalars(heard, ("gatewayId", "gatewayId"), ("rssi", "rssi"), ("snr", "snr"))
    return replace(
        common, about=about, payload=octets(document, "data", ""), decoded=part(document, "object", "") or None
    )
