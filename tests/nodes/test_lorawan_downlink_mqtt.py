"""Downlinks to the brokers of LoRaWAN networks: a real broker gets what the network would."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from engine.stores import routes
from engine.stores.routes import Broker, Route
from nodes import BadInput, Retry
from nodes.lorawan_downlink import LorawanDownlink
from nodes.outward import mqtt, publishers
from nodes.outward.addresses import NotAllowed
from tests.nodes.context import DictContext, build, message
from tests.nodes.test_forward_http import Server
from tests.nodes.test_forward_mqtt import SECRETS, broker
from tests.nodes.test_forward_mqtt import Broker as Mosquitto

__all__ = ["broker"]
pytestmark = [pytest.mark.asyncio, pytest.mark.spec("CT-X2", "CT-X3")]

TTN = "v3/app1@tenant/devices/dev1/down"
CHIRPSTACK = "application/a1/device/70b3d57ed0001234/command/down"
ENTRY = {"frm_payload": "ASU=", "f_port": 15, "priority": "NORMAL", "confirmed": False}
ITEM = {"devEui": "70b3d57ed0001234", "confirmed": False, "fPort": 15, "data": "ASU="}


def context(mosquitto: Mosquitto, network: Any, url: str = "", secrets: dict[str, str] = SECRETS) -> DictContext:
    where = ("127.0.0.1", mosquitto.port, False, "mill", "${secret:PASSWORD}")
    if network == "ttn":
        place = Broker(*where, f"{TTN}/push", f"{TTN}/replace")
    else:
        place = Broker(*where, CHIRPSTACK, dev_eui="70b3d57ed0001234")
    ctx = DictContext(secrets)
    ctx.state["dev1", routes.TABLE, routes.FIELD] = routes.encode(Route(network, url, broker=place))
    return ctx


def downlink(**config: Any) -> LorawanDownlink:
    return build(LorawanDownlink, **{"allow_private": True, "f_port": 15, "timeout_s": 5, **config})


@pytest.mark.parametrize(
    ("network", "operation", "data", "expected"),
    [
        ("ttn", "push", "0125", (f"{TTN}/push", {"downlinks": [ENTRY]})),
        ("ttn", "replace", {"method": "set", "params": "0125"}, (f"{TTN}/replace", {"downlinks": [ENTRY]})),
        ("ttn", "clear", None, (f"{TTN}/replace", {"downlinks": []})),
        ("chirpstack", "push", {"method": "set", "params": "0125"}, (CHIRPSTACK, ITEM)),
        ("chirpstack", "push", {"payload": "0125", "f_port": 7, "confirmed": True},
         (CHIRPSTACK, {**ITEM, "fPort": 7, "confirmed": True})),
    ],
)  # fmt: skip
async def test_what_the_network_gets(
    broker: Mosquitto, network: str, operation: str, data: Any, expected: tuple[str, Any]
) -> None:
    node, given = downlink(operation=operation), message(data)
    async with broker.client() as listener:
        await listener.subscribe("#", qos=1)
        assert await node.call(given, context(broker, network)) == [("Success", given)]
        async with asyncio.timeout(10):
            sent = await anext(aiter(listener.messages))
    await node.close()
    assert isinstance(sent.payload, bytes)
    assert (str(sent.topic), json.loads(sent.payload)) == expected
    assert (sent.qos, sent.retain) == (1, False)


@pytest.mark.parametrize("network", ["ttn", "chirpstack"])
async def test_a_broker_that_is_down_is_tried_again(broker: Mosquitto, network: str) -> None:
    node, ctx = downlink(), context(broker, network)
    broker.stop()
    with pytest.raises(Retry):
        await node.call(message("01"), ctx)
    await broker.start()
    async with broker.client() as listener:
        await listener.subscribe("#", qos=1)
        async with asyncio.timeout(10):
            while True:
                try:
                    await node.call(message("0125"), ctx)
                    break
                except Retry as again:
                    await asyncio.sleep(again.after_s or 0.02)
            sent = await anext(aiter(listener.messages))
    await node.close()
    assert isinstance(sent.payload, bytes)
    assert json.loads(sent.payload) == ({"downlinks": [ENTRY]} if network == "ttn" else ITEM)


async def test_what_a_broker_cannot_do_goes_over_http_where_that_is_known(broker: Mosquitto) -> None:
    for operation, data in (("clear", None), ("replace", "01")):
        with pytest.raises(BadInput, match=f"takes no {operation}"):
            await downlink(operation=operation).call(message(data), context(broker, "chirpstack"))
    server = Server()
    await server.open()
    try:
        node = downlink(operation="clear")
        await node.call(message(), context(broker, "chirpstack", f"http://127.0.0.1:{server.port}/queue"))
        await node.close()
    finally:
        await server.close()
    assert [line for line, *_ in server.seen] == ["DELETE /queue HTTP/1.1"]


async def test_a_changed_password_counts_and_a_missing_one_is_told(broker: Mosquitto) -> None:
    node = downlink()
    with pytest.raises(BadInput, match="no secret 'PASSWORD'"):
        await node.call(message("01"), context(broker, "ttn", secrets={}))
    with pytest.raises(Retry, match=r"[Nn]ot authori[sz]ed"):
        await node.call(message("01"), context(broker, "ttn", secrets={"PASSWORD": "wrong"}))
    await node.call(message("01"), context(broker, "ttn"))
    await node.close()


async def test_idle_connections_are_few(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishers, "IDLE", 1)
    monkeypatch.setattr(mqtt, "RECONNECT_AFTER_S", 0.0)
    node = downlink()
    for password in ("wrong", "false"):
        with pytest.raises(Retry):
            await node.call(message("01"), context(broker, "ttn", secrets={"PASSWORD": password}))
    await asyncio.gather(*(node.call(message("01"), context(broker, "ttn")) for _ in range(20)))
    assert [place.password for place in node._publishers._made] == ["s3cret"]
    await node.close()


async def test_private_addresses_need_leave(broker: Mosquitto) -> None:
    with pytest.raises(NotAllowed):
        await downlink(allow_private=False).call(message("01"), context(broker, "ttn"))
