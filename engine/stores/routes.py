"""Where downlinks to a device go: kept with its state by whoever hears from its network, read by nodes that call it."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

TABLE: Final = "node"
FIELD: Final = "downlink route"


class Broker(msgspec.Struct, frozen=True, array_like=True):
    """A network's MQTT broker, and what to publish there."""

    host: str
    port: int
    tls: bool
    username: str
    """May be `${secret:NAME}`, as may the password: a changed secret counts from then on."""
    password: str
    topic: str
    """Where a downlink is added to the network's queue for the device."""
    replace_topic: str = ""
    """Where that queue is replaced; empty where the network cannot."""
    dev_eui: str = ""
    """As the network writes it in the downlink itself; empty where it does not."""


class Route(msgspec.Struct, frozen=True, array_like=True):
    """What gives a network something for one device: an HTTP call, or a message to its broker.

    With both, the broker gets what can be said there, and the HTTP call does the rest.
    """

    network: Literal["ttn", "chirpstack"]
    url: str
    """Where a downlink is added to the network's queue for the device; empty: by the broker only."""
    replace_url: str = ""
    """Where that queue is replaced; empty where the network cannot."""
    key: str = ""
    """Proves that we may; empty: nothing does."""
    broker: Broker | None = None


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Route).decode
