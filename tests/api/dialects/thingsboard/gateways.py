"""What tests of gateways have in common."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiomqtt

from engine.message import Message, new_id, now_ms
from engine.stores.registry import Device
from tests.api.dialects.thingsboard.site import Site
from tests.api.dialects.thingsboard.test_mqtt import connected
from tests.api.stack import TENANT

GATEWAY_TOKEN = "GATEWAY_TOKEN"
GW = "v1/gateway/"
NEWS = "ENTITY_CREATED"


async def gateway_device(site: Site, name: str = "gw", token: str = GATEWAY_TOKEN, **fields: Any) -> Device:
    """A device that is a gateway."""
    return await site.device(name, token=token, is_gateway=True, **fields)


def gateway(site: Site, token: str = GATEWAY_TOKEN, **options: Any) -> AbstractAsyncContextManager[aiomqtt.Client]:
    """A gateway that is connected."""
    return connected(site, token, **options)


async def say(client: aiomqtt.Client, topic: str, value: Any) -> None:
    """Publish JSON and wait until it is acknowledged."""
    await client.publish(GW + topic, value if isinstance(value, (str, bytes)) else json.dumps(value), 1)


async def child(site: Site, name: str) -> Device:
    """The tenant's device of that name."""
    return await site.registry.device(TENANT, name)


async def command(site: Site, device: Device, method: str, params: Any) -> Any:
    """An operator's command to a device; returns where its answer can be waited for (leave it with `__exit__`)."""
    waiting = site.replies.wait()
    waiting.__enter__()
    message = Message(
        id=new_id(), ts_ms=now_ms(), tenant=TENANT, type="RPC_CALL_FROM_SERVER_TO_DEVICE", originator=device.id,
        data={"method": method, "params": params}, metadata={"timeout": "10000", "oneway": "false"},
        reply_to=waiting.to,
    )  # fmt: skip
    await site.ingress.submit([message])
    return waiting


def told(messages: list[Any], name: str) -> list[tuple[str, Any]]:
    """Type and data of the messages of a device, in their order; of the news of it only the name."""
    return [
        (message.type, message.data["name"] if message.type == NEWS else message.data)
        for message in messages
        if message.metadata["deviceName"] == name
    ]
