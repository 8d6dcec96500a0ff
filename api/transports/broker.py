"""An outside MQTT broker as a source: what it delivers is acknowledged once it is durable here, and not before.

The session is persistent, so what comes while nobody is attached waits at the broker, as far as its own limits let it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import aiomqtt
from prometheus_client import Counter
from redis.exceptions import RedisError

from engine import metrics
from engine.errors import Refused
from engine.failpoints import failpoint
from nodes.outward.addresses import Guard, NotAllowed
from nodes.outward.mqtt import tls_context

log = logging.getLogger("rulemill.broker")

MOST_UNCONFIRMED: Final = 1000
"""Publications of QoS 0 that may wait for storing; further ones are lost, which is what QoS 0 means. Of QoS 1 the
broker sends no more than it keeps itself until they are acknowledged."""
FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 60.0
CONNECT_WITHIN_S: Final = 10.0

DROPPED: Final = Counter(
    "rulemill_broker_dropped",
    "Publications of QoS 0 from outside brokers for which there was no room",
    registry=metrics.REGISTRY,
)

Handle = Callable[[str, bytes], Awaitable[None]]
"""Called with topic and payload; returns when the publication is durable. Raises Unusable for one that can never be
stored; after Refused and redis errors it is called again with the same one."""


class Unusable(Exception):
    """A publication that nothing can be made of: it is told in the log, and acknowledged."""


class Broker(NamedTuple):
    """Where to attach, and to what. A broker lets only one connection have the client id."""

    host: str
    port: int
    client_id: str
    topics: tuple[str, ...]
    username: str = ""
    password: str = ""
    tls: bool = False

    def __repr__(self) -> str:
        return f"{self.host}:{self.port} as {self.client_id}"


class _Inbox(asyncio.Queue[aiomqtt.Message]):
    """What the broker has delivered and nobody has stored yet."""

    def put_nowait(self, item: aiomqtt.Message) -> None:
        if item.qos == 0 and self.qsize() >= MOST_UNCONFIRMED:
            DROPPED.inc()
            return
        super().put_nowait(item)


async def attach(broker: Broker, guard: Guard, handle: Handle) -> None:
    """Take in what the broker delivers, one after the other, until cancelled; reconnect for ever."""
    wait_s = FIRST_WAIT_S
    while True:
        try:
            client = await _client(broker, guard)
            async with client:
                for topic in broker.topics:
                    await client.subscribe(topic, qos=1)
                log.info("attached to %r", broker)
                wait_s = FIRST_WAIT_S
                async for message in client.messages:
                    await _store(broker, message, handle)
                    failpoint("before-ack")
                    _acknowledge(client, message)
        except (aiomqtt.MqttError, OSError, NotAllowed) as error:
            log.warning("%r: %s (tried again in %.0f s)", broker, error, wait_s)
        await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
        wait_s = min(wait_s * 2, LONGEST_WAIT_S)


async def _client(broker: Broker, guard: Guard) -> aiomqtt.Client:
    """A client for an address that may be connected to, a different one each time if there are several."""
    address = random.choice(await guard.addresses(broker.host, broker.port))
    client = aiomqtt.Client(
        address, broker.port, identifier=broker.client_id, clean_session=False, timeout=CONNECT_WITHIN_S,
        username=broker.username or None, password=broker.password or None,
        tls_context=tls_context(broker.host) if broker.tls else None, queue_type=_Inbox,
    )  # fmt: skip
    _acknowledge_later(client)
    return client


async def _store(broker: Broker, message: aiomqtt.Message, handle: Handle) -> None:
    """Have a publication stored, however long that takes."""
    topic = str(message.topic)
    payload = message.payload if isinstance(message.payload, bytes) else str(message.payload or "").encode()
    wait_s = FIRST_WAIT_S
    while True:
        try:
            await handle(topic, payload)
            return
        except Unusable as error:
            log.warning("%r: publication to %s cannot be used: %s", broker, topic, error)
            return
        except (Refused, RedisError) as error:
            log.warning("%r: a publication waits: %s", broker, error)
        except Exception:
            # The same would happen with it for ever, and nothing behind it would come in.
            log.exception("%r: publication to %s given up: %r", broker, topic, payload[:1000])
            return
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, LONGEST_WAIT_S)


# aiomqtt acknowledges when a message comes in, and has no door to say otherwise; the client inside it has one.


def _acknowledge_later(client: aiomqtt.Client) -> None:
    _inner(client).manual_ack_set(True)


def _acknowledge(client: aiomqtt.Client, message: aiomqtt.Message) -> None:
    """On a connection that broke meanwhile this does nothing: the broker delivers again, and it is stored once more
    under the same id."""
    _inner(client).ack(message.mid, message.qos)


def _inner(client: aiomqtt.Client) -> Any:
    return client._client
