"""The dialect put together from the process's parts."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import NamedTuple

from api.dialects.thethingsio.coap import ThingCoap
from api.dialects.thethingsio.http import ThethingsIoHttp
from api.dialects.thethingsio.mqtt import ThingMqtt
from api.dialects.thethingsio.parts import Parts
from api.dialects.thethingsio.realtime import Realtime
from api.dialects.thethingsio.subscriptions import Subscriptions
from api.transports.socketio.server import PING_INTERVAL_S, SocketIo


class ThethingsIo(NamedTuple):
    """What the transports are given."""

    http: ThethingsIoHttp
    mqtt: ThingMqtt
    coap: ThingCoap
    sockets: SocketIo


def compose(
    parts: Parts, redis_url: str, stack: AsyncExitStack, ping_interval_s: float = PING_INTERVAL_S
) -> ThethingsIo:
    """Everything of the dialect; `stack` ends it. Who composes starts `sockets`."""
    subscriptions = Subscriptions(parts.live_values)
    http = ThethingsIoHttp(parts, subscriptions)
    sockets = SocketIo(redis_url, ping_interval_s)
    realtime = Realtime(parts, subscriptions, sockets)
    stack.push_async_callback(http.stop)
    stack.push_async_callback(realtime.stop)
    stack.push_async_callback(sockets.stop)
    coap = ThingCoap(parts, subscriptions)
    stack.push_async_callback(coap.stop)
    return ThethingsIo(http, ThingMqtt(parts, subscriptions), coap, sockets)
