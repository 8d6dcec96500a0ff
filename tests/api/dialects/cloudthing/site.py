"""The documented tenant and device on a whole server, with its connectors on real sockets."""

import asyncio
import base64
from contextlib import asynccontextmanager

from api.dialects.cloudthing.http import CloudThingHttp
from api.dialects.cloudthing.mqtt import CloudThingMqtt
from api.dialects.cloudthing.service import CloudThing
from api.transports import http_chunks
from engine.message import now_ms
from engine.node import Product
from engine.stores.registry import CT_TOKEN, Credential, Device, Tenant
from tests.api.dialects.cloudthing.fixtures import PROTOBUF, TRANSFORM
from tests.api.stack import Stack

TENANT = "short-name"
DEVICE = "SoMEc0MpL1Cat3D1D"
TOKEN = "3xAmpLeT0K3n"
ALL_FORMATS = {"protobuf": PROTOBUF, "transform": TRANSFORM}


class Site:
    """A stack with the dialect in it, and the device of the documentation."""

    def __init__(self, stack):
        self.stack = stack
        self.service = CloudThing(
            stack.url, auth=stack.auth, registry=stack.registry, intake=stack.intake, replies=stack.replies,
            commands=stack.commands, live=stack.live, answers=stack.answers, firmware=stack.firmware,
            event_timeout_s=10.0,
        )  # fmt: skip
        self.device = None
        self.http_url = ""
        self.mqtt_port = 0

    async def put_device(self, name=DEVICE, token=TOKEN, tenant=TENANT, id="", **fields):
        """Create or change a device whose id on the wire is its name."""
        fields.setdefault("product", "p1" if tenant == TENANT else "")
        return await self.stack.registry.put_device(
            Device(id=id, tenant=tenant, name=name, external_id=name, **fields),
            [Credential(kind=CT_TOKEN, value=token)],
        )

    async def put_product(self, **facets):
        return await self.stack.registry.put_product(Product(id="p1", tenant=TENANT, facets=facets))

    async def disable(self):
        await self.put_device(id=self.device.id, enabled=False)

    async def deploy(self, document):
        await self.stack.chains.save(TENANT, document)
        await self.stack.chains.deploy(TENANT, {document["chain"]: None}, root=document["chain"])

    async def points(self, device=None):
        """Every point of the device in order of time, as (key, value, ms, place)."""
        device = device or self.device
        await self.stack.idle()
        page = await self.stack.store.range(device.tenant, [device.id], None, 0, 2**53)
        return [
            (point.key, point.value, point.ts_ms, None if point.lat is None else {"lat": point.lat, "lon": point.lon})
            for point in page.points
        ]

    def rpc(self, name, payload, *, oneway=True):
        """The message that has the chain send a command to the device."""
        return self.stack.intake.message(
            self.device, "RPC_CALL_FROM_SERVER_TO_DEVICE", {"method": name, "params": payload},
            dialect="test", transport="test", ts_ms=now_ms(), metadata={"oneway": str(oneway).lower()},
        )  # fmt: skip

    async def command(self, name, payload, *, oneway=True):
        """Have the chain send a command to the device."""
        await self.stack.intake.submit([self.rpc(name, payload, oneway=oneway)])
        await self.stack.idle()

    def basic(self, user=DEVICE, password=TOKEN):
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@asynccontextmanager
async def running(url, *, work=True):
    """The site, with both connectors listening."""
    async with Stack(url, work=work) as stack:
        site = Site(stack)
        await stack.registry.put_tenant(Tenant(name=TENANT))
        await site.put_product(**ALL_FORMATS)
        site.device = await site.put_device()
        await site.service.start()
        try:
            http_chunks.install()
            stack.serve(CloudThingHttp(site.service))
            site.http_url = await stack.listen("ct_http", server="hypercorn")
            site.mqtt_port = await stack.mqtt(CloudThingMqtt(site.service))
            yield site
        finally:
            await site.service.stop()


async def call(program, *arguments):
    """Run a program; its exit code and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(20):
        output, _ = await process.communicate()
    return process.returncode, output


def answering(source):
    """A root chain that answers events with what a script gives."""
    return {
        "chain": "answers",
        "start": "by type",
        "nodes": {
            "by type": {
                "kind": "message_type_switch",
                "to": {"Device event": "think", "RPC Request to Device": "ask", "Post telemetry": "save"},
            },
            "think": {"kind": "script", "config": {"lang": "lua", "source": source}, "to": {"Success": "reply"}},
            "reply": {"kind": "rpc_reply"},
            "ask": {"kind": "rpc_request"},
            "save": {"kind": "save_timeseries"},
        },
    }
