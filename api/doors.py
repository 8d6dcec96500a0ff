"""Opens the doors of an API process: a server on each listening socket, by what LISTENERS says of its key."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Protocol

from api.certificate import asking_context, server_context
from api.transports.coap import Surface as CoapSurface
from api.transports.http import Asgi
from api.transports.http_server import HttpListener
from api.transports.mqtt.server import MqttServer
from engine.config import LISTENERS, Tls

UVICORN = frozenset({"http", "ct_sigfox"})
"""Doors of the fast server; the others need HTTP/2, TLS or chunk extensions, which Hypercorn has."""
HTTP_1_ONLY = frozenset({"ct_http", "ct_https"})
DRAIN_S = 2.5


class Door(Protocol):
    """What serves on one socket."""

    async def stop(self, drain_s: float) -> None:
        """Take nothing more, and give what is in hand so long."""


async def open_doors(
    sockets: Mapping[str, socket.socket], tls: Tls, http: Asgi, mqtt: MqttServer, coap: Sequence[CoapSurface]
) -> list[Door]:
    """Start serving; the HTTP and CoAP listeners, which the caller stops (the MQTT server is stopped as one)."""
    listeners: list[Door] = []
    for key, listening in sockets.items():
        door = LISTENERS[key]
        if door.family == "mqtt":
            context = asking_context if door.client_certificates else server_context
            await mqtt.start(sockets=[listening], tls=context(tls) if door.tls else None, name=key)
            continue
        if door.family == "coap":
            # Here, because its library is an extra that need not be there.
            from api.transports.coap_server import CoapServer

            server = CoapServer(coap, listening)
            await server.start()
            listeners.append(server)
            continue
        listener = HttpListener(
            key, http, [listening], tls=tls if door.tls else None,
            server="uvicorn" if key in UVICORN else "hypercorn", http2=key not in HTTP_1_ONLY,
        )  # fmt: skip
        await listener.start()
        listeners.append(listener)
    return listeners
