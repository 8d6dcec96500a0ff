"""Webhooks of The Things Stack v3, read (CT-X1)."""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from api.dialects.cloudthing.delivery import Delivery, count, instant, octets, part, scalars, strongest, text
from engine.errors import BadInput

UPLINK: Final = "uplink_message"
EVENTS: Final = (
    "join_accept", "downlink_ack", "downlink_nack", "downlink_sent", "downlink_failed", "downlink_queued",
    "downlink_queue_invalidated", "location_solved", "service_data", "uplink_normalized",
)  # fmt: skip


def read(document: Any) -> Delivery:
    """What a webhook's JSON tells; the path it came by does not matter. Raises BadInput."""
    if not isinstance(document, dict):
        raise BadInput("expected an object")
    ids = part(document, "end_device_ids", "")
    dev_eui = text(ids, "dev_eui", "/end_device_ids")
    if not dev_eui:
        raise BadInput("dev_eui is missing", "/end_device_ids/dev_eui")
    kind = next((name for name in (UPLINK, *EVENTS) if name in document), "")
    if not kind:
        raise BadInput(f"neither {UPLINK} nor an event of a device")
    told = part(document, kind, "")
    about = scalars(
        document,
        ("devEui", "end_device_ids.dev_eui"), ("devAddr", "end_device_ids.dev_addr"),
        ("networkDeviceId", "end_device_ids.device_id"),
        ("applicationId", "end_device_ids.application_ids.application_id"), ("simulated", "simulated"),
    )  # fmt: skip
    received_ms = instant(document, "received_at", "")
    told_ms = instant(told, "received_at", f"/{kind}")
    application = part(ids, "application_ids", "/end_device_ids")
    common = Delivery(
        dev_eui=dev_eui, pointer="/end_device_ids/dev_eui", about=about,
        device_id=text(ids, "device_id", "/end_device_ids"),
        application_id=text(application, "application_id", "/end_device_ids/application_ids"),
        ts_ms=received_ms if told_ms is None else told_ms,
    )  # fmt: skip
    session = text(told, "session_key_id", f"/{kind}")
    if kind != UPLINK:
        at = text(told, "received_at", f"/{kind}") or text(document, "received_at", "")
        return replace(common, event=kind, data=dict(told), key=f"{kind}/{session}/{at}" if at else "")
    port, frame = count(told, "f_port", f"/{kind}"), count(told, "f_cnt", f"/{kind}")
    heard = strongest(told.get("rx_metadata"))
    about |= {"fPort": str(port), "fCnt": str(frame)}
    about |= scalars(
        told,
        ("frequency", "settings.frequency"), ("bandwidth", "settings.data_rate.lora.bandwidth"),
        ("spreadingFactor", "settings.data_rate.lora.spreading_factor"), ("confirmed", "confirmed"),
    )  # fmt: skip
    about |= scalars(heard, ("gatewayId", "gateway_ids.gateway_id"), ("rssi", "rssi"), ("snr", "snr"))
    return replace(
        common, about=about, payload=octets(told, "frm_payload", f"/{kind}"),
        decoded=part(told, "decoded_payload", f"/{kind}") or None,
        key=f"up/{session or text(told, 'received_at', f'/{kind}')}/{frame}" if session or told_ms is not None else "",
    )  # fmt: skip
