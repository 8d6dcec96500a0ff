"""Sigfox callbacks through real sockets, to the values that apps read and the downlinks in the answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

import pytest

from api.dialects.thethingsio.settings import Settings
from api.sigfox import MAX_BODY_BYTES
from engine.node import Product
from engine.stores.registry import Device
from tests.api.dialects.thethingsio.world import PRODUCT, World, world
from tests.api.stack import TENANT
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio

KEY = "only-sigfox-knows"
PATH = f"/sgfx/{PRODUCT}/{KEY}/"
TIME = 1_462_281_856
VALUES = """
if (metadata.ack === "true")
  return {[metadata.id]: {downlinkData: "00112233445566FF"}};
return [
  {key: "temperature", value: msg.bytes[1]},
  {key: "$geo", value: {type: "Point", coordinates: [2.15, 41.39]}},
];
"""


async def put_product(w: World, source: str = VALUES, **facet: Any) -> None:
    facets = {
        "thethingsio": {"public": ["temperature"]},
        "sgfx": {"key": KEY, **facet},
        "transform": {"lang": "js", "source": source},
    }
    await w.stack.registry.put_product(Product(id=PRODUCT, tenant=TENANT, facets=facets))


@asynccontextmanager
async def sigfox_world(redis_url: str, source: str = VALUES, **facet: Any) -> AsyncIterator[tuple[World, Device]]:
    # The network is no app: it needs no TLS.
    async with world(redis_url, Settings()) as w:
        await put_product(w, source, **facet)
        device = Device(id="", tenant=TENANT, name="far away", product=PRODUCT, links={"sigfox": "1A2B3C"})
        yield w, await w.stack.registry.put_device(device)


@pytest.mark.spec("TTI-X12")
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_function_says_what_is_kept(redis_url: str, method: str) -> None:
    async with sigfox_world(redis_url) as (w, device):
        told = await w.call(method, PATH, id="001a2b3c", data="0125", ack="false")
        assert (told.status_code, told.json()) == (201, {"status": "created", "message": "values created"})
        assert await w.stack.latest(device) == {"temperature": 37}
        assert await w.stack.attributes_of(device) == {
            "CLIENT": {}, "SHARED": {}, "SERVER": {"$geo": {"type": "Point", "coordinates": [2.15, 41.39]}},
        }  # fmt: skip


@pytest.mark.spec("TTI-X12")
async def test_a_device_that_listens_is_answered_and_its_uplink_is_not_kept(redis_url: str) -> None:
    async with sigfox_world(redis_url) as (w, device):
        told = await w.call("GET", PATH, id="1A2B3C", data="0125", ack="true")
        assert (told.status_code, told.json()) == (200, {"1A2B3C": {"downlinkData": "00112233445566ff"}})
        assert await w.stack.latest(device) == {}
        for source, status in (
            ("return null;", 204),
            ("return [];", 204),
            ('return {FF: {downlinkData: "0011223344556677"}};', 400),
            ('return {"1A2B3C": {downlinkData: "0011"}};', 400),
            ('return {"1A2B3C": "0011223344556677"};', 400),
            ('return [{key: "temperature", value: 1}];', 400),
            ('throw new Error("no frame of ours");', 400),
        ):
            await put_product(w, source)
            told = await w.call("GET", PATH, id="1A2B3C", data="0125", ack="true")
            assert told.status_code == status, (source, told.text)
        assert "no frame of ours" in told.json()["message"]
        assert await w.stack.latest(device) == {}


@pytest.mark.spec("TTI-X12")
async def test_an_uplink_sent_twice_is_kept_once(redis_url: str) -> None:
    async with sigfox_world(redis_url) as (w, device):
        for _ in range(2):
            told = await w.call("GET", PATH, id="1A2B3C", data="0125", time=TIME, seqNumber=7)
            assert told.status_code == 201
        assert await w.stack.points(device) == [("temperature", TIME * 1000, 37)]


@pytest.mark.spec("TTI-X12", "TTI-S2")
async def test_what_is_refused(redis_url: str) -> None:
    async with sigfox_world(redis_url) as (w, device):
        for path in (f"/sgfx/{PRODUCT}/wrong-key", "/sgfx/none/none", f"/sgfx/{PRODUCT}/%ff"):
            told = await w.call("GET", path, id="1A2B3C", data="0125")
            assert (told.status_code, told.json()["message"]) == (403, "Permission denied")
        for query in (
            {"data": "01"}, {"id": "{device}", "data": "01"}, {"id": "1A2B3C"}, {"id": "1A2B3C", "data": "012"},
            {"id": "1A2B3C", "data": "00" * 13}, {"id": "1A2B3C", "data": "01", "time": "yesterday"},
        ):  # fmt: skip
            told = await w.call("GET", PATH, **query)
            assert (told.status_code, told.json()["code"]) == (400, 400)
        assert (await w.call("GET", PATH, id="FF", data="01")).status_code == 404
        assert (await w.client.post(PATH, content=b" " * (MAX_BODY_BYTES + 1))).status_code == 413
        assert (await w.call("PUT", PATH)).status_code == 405
        assert (await w.call("GET", "/sgfx/")).status_code == 404
        for source, status in (
            ("return null;", 200),
            ("return 5;", 400),
            ("return {temperature: 5};", 400),
            ('return [{key: "$geo", value: [200, 0]}];', 400),
            ('return [{key: "$nothing", value: 1}];', 404),
        ):
            await put_product(w, source)
            assert (await w.call("GET", PATH, id="1A2B3C", data="0125")).status_code == status, source
        await put_product(w, enabled=False)
        assert (await w.call("GET", PATH, id="1A2B3C", data="0125")).status_code == 403
        assert await w.stack.latest(device) == {}


@pytest.mark.spec("TTI-X12")
async def test_unknown_devices_are_made_where_that_is_wanted(redis_url: str) -> None:
    async with sigfox_world(redis_url, autoGenerate=True) as (w, _):
        assert (await w.call("GET", PATH, id="00ff", data="0125")).status_code == 201
        made = await w.stack.registry.find_link(PRODUCT, "sigfox", "FF")
        assert made is not None
        assert await w.stack.latest(made) == {"temperature": 37}


@pytest.mark.spec("TTI-X12", "G-20")
async def test_the_network_is_told_to_come_back_when_nothing_answers(redis_url: str) -> None:
    async with sigfox_world(redis_url) as (w, device):
        w.stack.ingress.closed_reason = "storage is full"
        told = await w.call("GET", PATH, id="1A2B3C", data="0125", seqNumber=1)
        assert (told.status_code, told.json()["message"]) == (503, "storage is full")
        w.stack.ingress.closed_reason = ""
        assert (await w.call("GET", PATH, id="1A2B3C", data="0125", seqNumber=1)).status_code == 201
        assert await w.stack.latest(device) == {"temperature": 37}


@pytest.mark.spec("TTI-X12", "G-20")
@pytest.mark.parametrize("ack", ["true", "false"])
async def test_an_uplink_is_wanted_again_when_the_chain_does_not_answer(
    redis_url: str, ack: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Other than when the function gives nothing: then there is nothing to keep."""
    async with sigfox_world(redis_url) as (w, device):
        deaf = {"chain": "root", "title": "Deaf", "start": "log", "nodes": {"log": {"kind": "log"}}}
        await w.stack.deploy(deaf)
        uplink = {"id": "1A2B3C", "data": "0125", "ack": ack, "seqNumber": 1}
        for _ in range(2):
            told = await w.call("GET", PATH, **uplink)
            assert (told.status_code, told.json()["message"]) == (503, "the root chain does not answer parse requests")
        (warned,) = [each.getMessage() for each in caplog.records if "parse requests" in each.getMessage()]
        assert "wire `Parse request`" in warned
        chain = json.loads(resources.files("chains").joinpath("library", "root.json").read_bytes())
        await w.stack.deploy(chain)

        async def answered() -> bool:
            return (await w.call("GET", PATH, **uplink)).status_code in (200, 201)

        await until(answered)
        assert await w.stack.latest(device) == ({} if ack == "true" else {"temperature": 37})
