"""Where downlinks to a device go: kept with its state by whoever hears from its network, read by nodes that call it."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

TABLE: Final = "node"
FIELD: Final = "downlink route"


class Route(msgspec.Struct, frozen=True, array_like=True):
    """The call that gives a network something for one device."""

    network: Literal["ttn", "chirpstack"]
    url: str
    """Where a downlink is added to the network's queue for the device."""
    replace_url: str = ""
    """Where that queue is replaced; empty where the network cannot."""
    key: str = ""
    """Proves that we may; empty: nothing does."""


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Route).decode
