"""The composition root: one function per role, imports inside, so that a worker loads no HTTP and an API no node."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import cast

import redis.asyncio as redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from engine.config import Settings
from engine.message import new_id
from engine.stores.registry import CHANNEL, P, Registry

log = logging.getLogger("rulemill.app")


def connect(url: str, name: str) -> redis.Redis:
    """A client for what is not hot: never retries by itself (a lost reply would be a second write).

    A burst waits for a connection; the library's own pool would refuse it.
    """
    pool = redis.BlockingConnectionPool.from_url(
        url, client_name=name, retry=Retry(NoBackoff(), 0), socket_connect_timeout=5.0, socket_timeout=10.0,
        health_check_interval=0, max_connections=64, timeout=10,
    )  # fmt: skip
    return redis.Redis.from_pool(pool)


async def partition_count(client: redis.Redis, wanted: int) -> int:
    """How many partitions this Redis has: what the first server to start on it has chosen."""
    key = P + "partitions"
    await client.set(key, wanted, nx=True)
    count = int(await client.get(key) or wanted)
    if count != wanted:
        log.warning("this Redis has %d partitions; `partitions = %d` has no effect any more", count, wanted)
    return count


def spare_the_collector() -> None:
    """Let the cycle collector look rarely: messages make many objects and no cycles, and a look costs milliseconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def stopping() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def run_worker(settings: Settings, url: str, name: str = "") -> None:
    """Own partitions and run chains until a signal says stop."""
    from chains.plans import PlanSource
    from chains.repository import ChainRepository
    from engine.metric_board import MetricPin
    from engine.stores.chosen import chosen_store
    from engine.stores.products import Products, Secrets
    from engine.wire import Subscriber, Wire
    from engine.worker import Worker, WorkerParts
    from nodes.catalogue import Catalogue

    stop = stopping()
    name = name or f"worker-{new_id()[-12:]}"
    client = connect(url, "worker")
    partitions = await partition_count(client, settings.partitions)
    registry = Registry(client)
    secrets = Secrets(registry)
    repository = ChainRepository(client, Catalogue().with_plugins(settings.plugins), secrets.of)
    plans = PlanSource(repository)

    def changed(_: str, payload: bytes) -> None:
        _, what, id = payload.decode().split(" ", 2)
        if what == "secret":
            plans.forget(id)

    changes = Subscriber(url, "worker-registry", [CHANNEL], changed)
    worker = Worker(
        WorkerParts(
            url=url, name=name, partitions=partitions, plans=plans,
            store=chosen_store(settings),
            product=Products(registry).find, secret=secrets.get,
        )
    )  # fmt: skip
    board = Wire(url, f"{name}-metrics")
    pin = MetricPin(board, name)
    await changes.start()
    await pin.start()
    spare_the_collector()
    await worker.start()
    ended = asyncio.ensure_future(worker.wait())
    asked = asyncio.ensure_future(stop.wait())
    await asyncio.wait([ended, asked], return_when=asyncio.FIRST_COMPLETED)
    failure = ended.exception() if ended.done() and not ended.cancelled() else None
    ended.cancel()
    asked.cancel()
    if failure is not None:
        # Nothing of the batch in hand is visible: let the partitions be recovered by whoever takes them.
        raise failure
    await worker.stop()
    await changes.stop()
    await pin.stop()
    await board.close()
    await plans.close()
    await client.aclose()


async def run_api(
    settings: Settings,
    url: str,
    sockets: Mapping[str, socket.socket],
    *,
    bootstrap: str | None = None,
    demo: bool = False,
    tell: Callable[[], None] | None = None,
) -> None:
    """Serve devices and apps until a signal says stop, then answer what was accepted; `tell` is called when ready."""
    from api.auth import DeviceAuth
    from api.connectors import Context, load, named
    from api.dialects.cloudthing.coap import CloudThingCoap
    from api.dialects.cloudthing.http import CloudThingHttp
    from api.dialects.cloudthing.lorawan_mqtt import LorawanBrokers
    from api.dialects.cloudthing.mqtt import CloudThingMqtt
    from api.dialects.cloudthing.service import CloudThing
    from api.dialects.thingsboard.http import ThingsBoardHttp
    from api.dialects.thingsboard.mqtt import ThingsBoardMqtt
    from api.dialects.thingsboard.parts import Parts as ThingsBoardParts
    from api.doors import DRAIN_S, open_doors
    from api.first_start import make_what_is_asked
    from api.flow.app import create_app
    from api.flow.operation import Parts as FlowParts
    from api.flow.operation import token_digest
    from api.flow.point_tailing import PointTail
    from api.flow.tailing import TailHub
    from api.intake import Intake
    from api.live import Live
    from api.transports import http_chunks
    from api.transports.http import Asgi, Front
    from api.transports.mqtt.dialect import MqttDialect, Peer
    from api.transports.mqtt.packets import Connect
    from api.transports.mqtt.server import MqttServer
    from api.transports.mqtt.sessions import SessionStore
    from chains.repository import ChainRepository
    from engine.deadletters import DeadLetters
    from engine.door import Door
    from engine.housekeeping import Housekeeping
    from engine.ingress import Ingress, Limits
    from engine.metric_board import MetricPin
    from engine.replies import Replies
    from engine.retention import Retention
    from engine.stores.alarm_store import AlarmStore
    from engine.stores.answers import Answers
    from engine.stores.attribute_store import Attributes
    from engine.stores.chosen import Opening, chosen_store
    from engine.stores.commands import Commands
    from engine.stores.firmware import Firmware
    from engine.watch import Progress
    from engine.wire import Wire
    from nodes.catalogue import Catalogue

    stop = stopping()
    async with AsyncExitStack() as stack:
        client = connect(url, "api")
        stack.push_async_callback(client.aclose)
        partitions = await partition_count(client, settings.partitions)
        hot, side = Wire(url, "api-ingress"), Wire(url, "api-side")
        stack.push_async_callback(hot.close)
        stack.push_async_callback(side.close)
        registry = Registry(client)
        catalogue = Catalogue().with_plugins(settings.plugins)
        repository = ChainRepository(client, catalogue, registry.secrets)
        await make_what_is_asked(settings, registry, repository, bootstrap, demo)
        ingress = Ingress(hot, partitions, Limits(settings.backlog_entries))
        replies, live, auth = Replies(url), Live(url), DeviceAuth(registry, url)
        intake = Intake(ingress, replies)
        commands, attributes = Commands(side, partitions), Attributes(side, partitions)
        store = chosen_store(settings)
        opening = Opening(store)
        stack.push_async_callback(opening.stop)
        await opening.start()
        firmware = Firmware(client)
        http_chunks.install()
        cloudthing = CloudThing(
            url, auth=auth, registry=registry, intake=intake, replies=replies, commands=commands, live=live,
            answers=Answers(side, partitions), firmware=firmware,
        )  # fmt: skip
        tb_parts = ThingsBoardParts(
            auth=auth, intake=intake, replies=replies, commands=commands, attributes=attributes, live=live
        )
        tail, point_tail = TailHub(url, client), PointTail(url, client, registry)
        flow = create_app(
            FlowParts(
                wire=side, redis=client, partitions=partitions, ingress=ingress, replies=replies, registry=registry,
                repository=repository, catalogue=catalogue, commands=commands,
                dead_letters=DeadLetters(side, partitions), attributes=attributes,
                alarms=AlarmStore(side, partitions), store=store, tail=tail, point_tail=point_tail,
                firmware=firmware,
                tokens=frozenset({token_digest(settings.operator_token)} if settings.operator_token else ()),
                stamp=intake.stamp, spool_limit_bytes=settings.spool_bytes,
                checks={"door": lambda: ingress.closed_reason},
            )
        )  # fmt: skip
        thingsboard = ThingsBoardHttp(tb_parts)
        ct_mqtt, tb_mqtt = CloudThingMqtt(cloudthing), ThingsBoardMqtt(tb_parts)
        stack.push_async_callback(thingsboard.stop)
        stack.push_async_callback(tb_mqtt.stop)

        def dialects(connect: Connect, peer: Peer) -> Sequence[MqttDialect]:
            """Who a CONNECT may belong to, likeliest first (G-9)."""
            return (ct_mqtt, tb_mqtt) if ":" in (connect.username or "") else (tb_mqtt,)

        def context(name: str) -> Context:
            return Context(name, registry=registry, auth=auth, intake=intake, client=client)

        connectors = load(named(settings.connectors), context)
        front = Front(
            [thingsboard, CloudThingHttp(cloudthing), *connectors], cast(Asgi, flow),
            cors_origins=settings.cors_origins, trusted_proxies=settings.trusted_proxies,
        )  # fmt: skip
        mqtt = MqttServer(dialects, intake.submit, SessionStore(client))

        async def tenant_names() -> list[str]:
            return [tenant.name for tenant in await registry.tenants()]

        door = Door(side, partitions, ingress, settings.spool_bytes)
        retention = Retention(side, registry, store, settings.retention_days)
        house = Housekeeping(side, partitions, tenant_names, retention)
        for service in (replies, live, auth, door, ingress, cloudthing, house, MetricPin(side, f"api-{os.getpid()}")):
            await service.start()
            stack.push_async_callback(service.stop)
        brokers = LorawanBrokers(url, client, registry, cloudthing)
        stack.push_async_callback(brokers.stop)
        await brokers.start()
        for connector in connectors:
            stack.push_async_callback(connector.stop)
            await connector.start()
        listeners = await open_doors(sockets, settings.tls, front, mqtt, CloudThingCoap(cloudthing))
        progress = Progress()
        spare_the_collector()
        progress.ready()
        if tell is not None:
            tell()
        while not stop.is_set():
            progress()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.25)
        await asyncio.gather(tail.stop(), point_tail.stop())
        front.drain()
        await asyncio.gather(mqtt.stop(DRAIN_S), *(listener.stop(DRAIN_S) for listener in listeners))
