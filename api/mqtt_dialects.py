"""Which dialects an MQTT client may belong to (`G-9`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from api.dialects.thingsboard.mqtt_provision import asks
from api.transports.mqtt.dialect import MqttDialect, Peer
from api.transports.mqtt.packets import Connect


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttDialects:
    """The dialects of a server; called with a CONNECT and where it came from, it gives those to ask, likeliest first.

    A client that shows a certificate wants to be known by it: one that nobody knows is refused, and not taken for a
    thing, which needs no login, but whose topics are others, so that all that it says would be dropped.
    """

    certificates: MqttDialect
    cloudthing: MqttDialect
    thingsboard: MqttDialect
    provisioning: MqttDialect
    things: MqttDialect

    def __call__(self, connect: Connect, peer: Peer) -> Sequence[MqttDialect]:
        """Raises nothing; there is always one to ask."""
        first = () if peer.certificate is None else (self.certificates,)
        if ":" in (connect.username or ""):
            return *first, self.cloudthing, self.thingsboard
        if asks(connect):
            return *first, self.provisioning
        # Without a user name it may still be a client id that ThingsBoard's devices log in with.
        return *first, self.thingsboard, *(() if first or connect.username else (self.things,))
