"""The whole server in one process for tests of the api layer: real Redis, ingress, worker, default chain, listeners.

async with Stack(redis_url) as stack:
    device = await stack.device("d1", token="T1")
    stack.serve(ThingsBoardHttp(...))          # surfaces of the dialects under test
    url = await stack.listen()                 # "http://127.0.0.1:…"
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Literal, Self

import httpx
import msgspec

from api.auth import DeviceAuth
from api.intake import Intake
from api.live import Live
from api.process import connect
from api.transports.http import Asgi, Front, Surface
from api.transports.http_deadlines import Deadlines
from api.transports.http_server import HttpListener
from api.transports.mqtt.dialect import MqttDialect
from api.transports.mqtt.server import MqttServer
from api.transports.mqtt.sessions import SessionStore
from chains.plans import PlanSource
from chains.repository import ChainRepository
from engine.config import Tls
from engine.deadletters import DeadLetters
from engine.entries import unpack_entry
from engine.ingress import Ingress
from engine.message import new_id
from engine.node import Product
from engine.partitions import all_keys
from engine.replies import Replies
from engine.stores.answers import Answers
from engine.stores.attribute_store import Attributes
from engine.stores.claims import Claims
from engine.stores.commands import Commands
from engine.stores.firmware import Firmware
from engine.stores.memory import MemoryTimeseries
from engine.stores.registry import ACCESS_TOKEN, CT_TOKEN, Credential, Device, Tenant
from engine.stores.registry_store import Registry
from engine.stores.rollouts import Rollouts
from engine.wire import Wire
from engine.worker import Worker, WorkerParts
from nodes.catalogue import Catalogue
from tests.engine.toy import until

PARTITIONS = 4
TENANT = "acme"


class Stack:
    """Parts by name; everything is running inside `async with`. `work=False` leaves the worker out."""

    def __init__(self, url: str, *, work: bool = True) -> None:
        self.url = url
        self._work = work
        self.redis = connect(url, "stack")
        self.registry = Registry(self.redis)
        self.wire = Wire(url, "stack")
        self._ingress_wire = Wire(url, "stack-ingress")
        self.ingress = Ingress(self._ingress_wire, PARTITIONS)
        self.replies = Replies(url)
        self.auth = DeviceAuth(self.registry, url)
        self.live = Live(url)
        self.intake = Intake(self.ingress, self.replies)
        self.commands = Commands(self.wire, PARTITIONS)
        self.attributes = Attributes(self.wire, PARTITIONS)
        self.answers = Answers(self.wire, PARTITIONS)
        self.firmware = Firmware(self.redis)
        self.claims = Claims(self.redis)
        self.rollouts = Rollouts(self.redis)
        self.dead = DeadLetters(self.wire, PARTITIONS)
        self.store = MemoryTimeseries()
        self.chains = ChainRepository(self.redis, Catalogue())
        self.surfaces: list[Surface] = []
        self.front: Front | None = None
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> Self:
        on_exit = self._exit.push_async_callback
        on_exit(self.redis.aclose)
        await self.registry.put_tenant(Tenant(name=TENANT))
        for part in (self.replies, self.auth, self.live):
            await part.start()
            on_exit(part.stop)
        on_exit(self.wire.close)
        await self.ingress.start()
        on_exit(self._ingress_wire.close)
        on_exit(self.ingress.stop)
        if self._work:
            plans = PlanSource(self.chains)
            on_exit(plans.close)
            worker = Worker(
                WorkerParts(
                    url=self.url, name=f"w-{new_id()}", partitions=PARTITIONS, plans=plans, store=self.store,
                    product=self._product, secret=lambda tenant, name: None,
                )
            )  # fmt: skip
            await worker.start()
            on_exit(worker.stop)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._exit.aclose()

    async def _product(self, tenant: str, id: str) -> Product | None:
        return await self.registry.product(tenant, id)

    async def device(self, name: str, *, token: str = "", ct_token: str = "", **fields: Any) -> Device:
        """Create a device with an access token, and with a CloudThing token under its external id (default: name)."""
        credentials = list(fields.pop("credentials", ()))
        if token:
            credentials.append(Credential(kind=ACCESS_TOKEN, value=token))
        if ct_token:
            fields.setdefault("external_id", name)
            credentials.append(Credential(kind=CT_TOKEN, value=ct_token))
        return await self.registry.put_device(Device(id="", tenant=TENANT, name=name, **fields), credentials)

    async def deploy(self, *documents: dict[str, Any], root: str = "root") -> None:
        """Save chains and make them current."""
        for document in documents:
            await self.chains.save(TENANT, document)
        await self.chains.deploy(TENANT, {document["chain"]: None for document in documents}, root=root)

    def serve(self, *surfaces: Surface, fallback: Asgi | None = None, **options: Any) -> Front:
        """Make the front with these surfaces."""
        self.surfaces += surfaces
        self.front = Front(self.surfaces, fallback, **options)
        return self.front

    async def listen(
        self,
        key: str = "http",
        *,
        server: Literal["uvicorn", "hypercorn"] = "uvicorn",
        deadlines: Deadlines | None = None,
        tls: Tls | None = None,
        app: Asgi | None = None,
    ) -> str:
        """Listen on a free port; the URL without a path."""
        # With the protocol named, asyncio turns Nagle's algorithm off on what it accepts.
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.bind(("127.0.0.1", 0))
        listening.listen(1024)
        listening.setblocking(False)
        port = listening.getsockname()[1]
        front = app or self.front
        assert front is not None, "serve() first"
        listener = HttpListener(key, front, [listening], server=server, deadlines=deadlines, tls=tls)
        await listener.start()
        self._exit.push_async_callback(listener.stop, 2.0)
        if isinstance(front, Front):
            self._exit.callback(front.drain)
        return f"{'https' if tls else 'http'}://127.0.0.1:{port}"

    async def mqtt(self, *dialects: MqttDialect) -> int:
        """Listen for MQTT on a free port; every CONNECT is offered to these dialects in turn."""
        server = MqttServer(lambda connect, peer: dialects, self.intake.submit, SessionStore(self.redis))
        [(_, port)] = await server.start(host="127.0.0.1", port=0)
        self._exit.push_async_callback(server.stop, 1.0)
        return port

    async def client(self, url: str, **options: Any) -> httpx.AsyncClient:
        """An HTTP client for a URL of `listen`."""
        return await self._exit.enter_async_context(httpx.AsyncClient(base_url=url, timeout=15.0, **options))

    async def idle(self) -> None:
        """Wait until every message was run and every point is in the store."""

        async def done() -> bool:
            keys = all_keys(PARTITIONS)
            lengths = await self.wire.execute(
                [("XLEN", each.inbox) for each in keys] + [("XLEN", each.points) for each in keys]
            )
            return not any(lengths)

        await until(done)

    async def latest(self, device: Device) -> dict[str, Any]:
        """Latest values by key, after everything was run."""
        await self.idle()
        return {point.key: point.value for point in await self.store.latest(TENANT, [device.id])}

    async def points(self, device: Device) -> list[tuple[str, int, Any]]:
        """The latest points as (key, ts_ms, value), after everything was run."""
        await self.idle()
        return [(point.key, point.ts_ms, point.value) for point in await self.store.latest(TENANT, [device.id])]

    async def attributes_of(self, device: Device) -> dict[str, dict[str, Any]]:
        """Attribute values by scope and key, after everything was run."""
        await self.idle()
        found = await self.attributes.read(TENANT, device.id)
        return {scope: {key: each.value for key, each in values.items()} for scope, values in found.items()}

    async def messages(self) -> list[Any]:
        """Every message that waits in the streams, in no order over partitions; for stacks without a worker."""
        found = []
        for keys in all_keys(PARTITIONS):
            for _, fields in (await self.wire.execute([("XRANGE", keys.inbox, "-", "+")]))[0]:
                found += [item.message for item in unpack_entry(fields)]
        return found


class NullIngress:
    """Says yes to everything at once: for measurements and for tests of what comes before storing."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.error: Exception | None = None

    def submit(self, messages: Sequence[Any]) -> Any:
        future = asyncio.get_running_loop().create_future()
        if self.error is not None:
            future.set_exception(self.error)
        else:
            self.messages += messages
            future.set_result(None)
        return future


def as_json(body: bytes) -> Any:
    """A JSON body with its number types."""
    return msgspec.json.decode(body)
