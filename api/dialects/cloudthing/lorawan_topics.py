"""Where downlinks go at the MQTT brokers of LoRaWAN networks (CT-X2, CT-X3)."""

from __future__ import annotations

from typing import Final

from api.networks import Mqtt
from engine.stores.routes import Broker

MAX_LEVEL: Final = 256


def ttn_broker(mqtt: Mqtt, application: str, device_id: str) -> Broker | None:
    """For a device of an application, `{application}@{tenant}`; None if these cannot stand in a topic."""
    if not _level(application) or not _level(device_id):
        return None
    down = f"v3/{application}/devices/{device_id}/down"
    return _broker(mqtt, f"{down}/push", replace_topic=f"{down}/replace")


def chirpstack_broker(mqtt: Mqtt, application_id: str, dev_eui: str) -> Broker | None:
    """For a device by its DevEUI; None if its application's id cannot stand in a topic."""
    if not _level(application_id):
        return None
    return _broker(mqtt, f"application/{application_id}/device/{dev_eui}/command/down", dev_eui=dev_eui)


def _level(text: str) -> bool:
    """Can be one level of a topic, so that what a delivery says leads to no other topic."""
    return 0 < len(text) <= MAX_LEVEL and text.isprintable() and not any(sign in text for sign in "/+#")


def _broker(mqtt: Mqtt, topic: str, *, replace_topic: str = "", dev_eui: str = "") -> Broker:
    return Broker(
        mqtt.host, mqtt.port or (8883 if mqtt.tls else 1883), mqtt.tls, mqtt.username, mqtt.password,
        topic, replace_topic, dev_eui,
    )  # fmt: skip
