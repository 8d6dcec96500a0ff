"""The composition root: one function per role, imports inside, so that a worker loads no HTTP and an API no node."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import cast

from api.process import connect, partition_count, spare_the_collector, stopping
from engine.config import Settings
from engine.message import new_id
from engine.stores.register import CHANNEL
from engine.stores.registry_store import Registry


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
    from api.accounts import Accounts
    from api.activity import Activity
    from api.auth import DeviceAuth
    from api.bootstrap import Stores
    from api.bootstrap_firmware import Packages
    from api.connectors import Context, load, named
    from api.dialect_settings import dialect_settings
    from api.dialects.cloudthing.coap import CloudThingCoap
    from api.dialects.cloudthing.http import CloudThingHttp
    from api.dialects.cloudthing.lorawan_mqtt import LorawanBrokers
    from api.dialects.cloudthing.mqtt import CloudThingMqtt
    from api.dialects.cloudthing.service import CloudThing
    from api.dialects.thethingsio.compose import compose as compose_thethingsio
    from api.dialects.thethingsio.parts import Parts as ThethingsIoParts
    from api.dialects.thingsboard.coap import ThingsBoardCoap
    from api.dialects.thingsboard.http import ThingsBoardHttp
    from api.dialects.thingsboard.mqtt import ThingsBoardMqtt
    from api.dialects.thingsboard.mqtt_provision import ProvisioningMqtt
    from api.dialects.thingsboard.operator_compose import compose as compose_operators
    from api.dialects.thingsboard.operator_rpc import call_record
    from api.dialects.thingsboard.parts import Parts as ThingsBoardParts
    from api.dialects.thingsboard.rollout import RolloutWork
    from api.doors import DRAIN_S, open_doors
    from api.due import Due, look_at_calls
    from api.first_start import make_what_is_asked
    from api.flow.app import create_app
    from api.flow.operation import Parts as FlowParts
    from api.flow.operation import token_digest
    from api.flow.point_tailing import PointTail
    from api.flow.tailing import TailHub
    from api.intake import Intake
    from api.live import Live
    from api.live_values import LiveValues
    from api.login_throttle import LoginThrottle
    from api.mail import Mail
    from api.mail_delivery import deliverer
    from api.mqtt_dialects import MqttDialects
    from api.passwords import Passwords
    from api.rate_limits import RateLimits
    from api.server_messages import ServerMessages
    from api.signing import signing_key
    from api.transports import http_chunks
    from api.transports.http import Asgi, Front
    from api.transports.mqtt.server import MqttServer
    from api.transports.mqtt.sessions import SessionStore
    from api.transports.socketio.server import PATH as SOCKETIO
    from chains.repository import ChainRepository
    from engine.deadletters import DeadLetters
    from engine.door import Door
    from engine.housekeeping import Housekeeping
    from engine.ingress import Ingress, Limits
    from engine.metric_board import MetricPin
    from engine.replies import Replies
    from engine.retention import Retention
    from engine.stores.activity import ActivityStore
    from engine.stores.alarm_store import AlarmStore
    from engine.stores.answers import Answers
    from engine.stores.apps.activations import Activations
    from engine.stores.apps.apps import Apps
    from engine.stores.apps.objects import Objects
    from engine.stores.apps.rights import Rights
    from engine.stores.apps.sessions import Sessions
    from engine.stores.apps.users import Users
    from engine.stores.attribute_store import Attributes
    from engine.stores.chosen import Opening, chosen_store
    from engine.stores.claims import Claims
    from engine.stores.commands import Commands
    from engine.stores.firmware import Firmware
    from engine.stores.kept_calls import KeptCalls
    from engine.stores.people import People
    from engine.stores.products import Products
    from engine.stores.rollouts import Rollouts
    from engine.stores.tellings import Tellings
    from engine.watch import Progress
    from engine.wire import Wire
    from nodes.catalogue import Catalogue

    stop = stopping()
    chosen = dialect_settings(settings)
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
        passwords = Passwords()
        stack.callback(passwords.close)
        accounts = Accounts(People(client), passwords, LoginThrottle(client, "person"))
        apps, app_users, activations = Apps(client, registry), Users(client), Activations(client)
        firmware, rollouts = Firmware(client), Rollouts(client)
        made = Stores(accounts, apps, activations, Packages(firmware, rollouts))
        await make_what_is_asked(settings, registry, repository, made, bootstrap, demo)
        ingress = Ingress(hot, partitions, Limits(settings.backlog_entries))
        replies, live, auth = Replies(url), Live(url), DeviceAuth(registry, url)
        watching = Wire(url, "api-activity")
        stack.push_async_callback(watching.close)
        activity = Activity(ActivityStore(watching, partitions), auth, Products(registry))
        intake = Intake(ingress, replies, activity)
        kept = KeptCalls(side, partitions, call_record)
        commands, attributes = Commands(side, partitions, kept), Attributes(side, partitions)
        alarms, store = AlarmStore(side, partitions), chosen_store(settings)
        opening = Opening(store)
        stack.push_async_callback(opening.stop)
        await opening.start()
        http_chunks.install()
        cloudthing = CloudThing(
            url, auth=auth, registry=registry, intake=intake, replies=replies, commands=commands, live=live,
            answers=Answers(side, partitions), firmware=firmware,
        )  # fmt: skip
        tb_parts = ThingsBoardParts(
            auth=auth, intake=intake, replies=replies, commands=commands, attributes=attributes, live=live,
            registry=registry, claims=Claims(client), tellings=Tellings(client), firmware=firmware, rollouts=rollouts,
            limits=RateLimits(chosen.thingsboard.rate_limit), settings=chosen.thingsboard,
        )  # fmt: skip
        live_values, mail = LiveValues(url), Mail(client, settings.mail_from, deliverer(settings))
        thethingsio = compose_thethingsio(
            ThethingsIoParts(
                redis=client, auth=auth, registry=registry, intake=intake, store=store, attributes=attributes,
                alarms=alarms, live=live, live_values=live_values, apps=apps, users=app_users,
                sessions=Sessions(client), rights=Rights(client), objects=Objects(client), activations=activations,
                firmware=firmware, passwords=passwords, throttle=LoginThrottle(client, "app-user"), mail=mail,
                settings=chosen.thethingsio,
            ),
            url, stack,
        )  # fmt: skip
        tail, point_tail = TailHub(url, client), PointTail(url, client, registry)
        flow = create_app(
            FlowParts(
                wire=side, redis=client, partitions=partitions, ingress=ingress, replies=replies, registry=registry,
                repository=repository, catalogue=catalogue, commands=commands,
                dead_letters=DeadLetters(side, partitions), attributes=attributes,
                alarms=alarms, store=store, tail=tail, point_tail=point_tail,
                firmware=firmware, rollouts=rollouts, accounts=accounts, apps=apps, app_users=app_users,
                activations=activations,
                tokens=frozenset({token_digest(settings.operator_token)} if settings.operator_token else ()),
                messages=ServerMessages(ingress, intake.stamp), spool_limit_bytes=settings.spool_bytes,
                checks={"door": lambda: ingress.closed_reason},
            )
        )  # fmt: skip
        thingsboard = ThingsBoardHttp(tb_parts)
        operators = compose_operators(
            tb_parts, redis=client, accounts=accounts, signing_key=await signing_key(client, "operators"),
            messages=ServerMessages(ingress, intake.stamp, "tb"), kept=kept, store=store,
        )  # fmt: skip
        ct_mqtt, tb_mqtt = CloudThingMqtt(cloudthing), ThingsBoardMqtt(tb_parts)
        stack.push_async_callback(thingsboard.stop)
        stack.push_async_callback(tb_mqtt.stop)

        dialects = MqttDialects(
            certificates=tb_mqtt.by_certificate, cloudthing=ct_mqtt, thingsboard=tb_mqtt,
            provisioning=ProvisioningMqtt(tb_parts), things=thethingsio.mqtt,
        )  # fmt: skip

        def context(name: str) -> Context:
            return Context(name, registry=registry, auth=auth, intake=intake, client=client)

        connectors = load(named(settings.connectors), context)
        front = Front(
            [thingsboard, operators, CloudThingHttp(cloudthing), thethingsio.http, *connectors], cast(Asgi, flow),
            cors_origins=settings.cors_origins, trusted_proxies=settings.trusted_proxies,
            mounts={SOCKETIO: thethingsio.sockets.application},
        )  # fmt: skip
        mqtt = MqttServer(dialects, intake.submit, SessionStore(client))

        async def tenant_names() -> list[str]:
            return [tenant.name for tenant in await registry.tenants()]

        door = Door(side, partitions, ingress, settings.spool_bytes)
        retention = Retention(side, registry, store, settings.retention_days)
        house = Housekeeping(side, partitions, tenant_names, retention)
        due = Due(client, [lambda: look_at_calls(kept), activity.look])
        pin = MetricPin(side, f"api-{os.getpid()}")
        for service in (
            replies, live, live_values, thethingsio.sockets, auth, door, ingress, cloudthing, house, pin, activity, due,
        ):  # fmt: skip
            await service.start()
            stack.push_async_callback(service.stop)
        rollout = RolloutWork(tb_parts, client)
        stack.push_async_callback(rollout.stop)
        await rollout.start()
        brokers = LorawanBrokers(url, client, registry, cloudthing)
        stack.push_async_callback(brokers.stop)
        await brokers.start()
        stack.push_async_callback(mail.stop)
        await mail.start()
        for connector in connectors:
            stack.push_async_callback(connector.stop)
            await connector.start()
        tb_coap = ThingsBoardCoap(tb_parts)
        stack.push_async_callback(tb_coap.stop)
        surfaces = (CloudThingCoap(cloudthing), tb_coap, thethingsio.coap)
        listeners = await open_doors(sockets, settings.tls, front, mqtt, surfaces)
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
