from __future__ import annotations

import asyncio
import hashlib
import re

import pytest

from api.dialects.thethingsio.settings import Settings
from tests.api.dialects.thethingsio.test_streams import SUBSCRIBED, stream
from tests.api.dialects.thethingsio.world import PRODUCT, world
from tests.api.stack import TENANT

pytestmark = pytest.mark.asyncio


@pytest.mark.spec("TTI-X1", "TTI-S1")
async def test_a_code_makes_one_thing(redis_url: str) -> None:
    async with world(redis_url, Settings()) as w:
        [code, other] = await w.parts.activations.make(TENANT, PRODUCT, 2)
        answers = await asyncio.gather(
            *(w.call("POST", f"/v2/things{end}", body={"activationCode": code}) for end in ("", "/", "", "/"))
        )
        assert sorted(each.status_code for each in answers) == [201, 400, 400, 400]
        told = next(each for each in answers if each.status_code == 201).json()
        assert (told["status"], told["message"]) == ("created", "thing activated")
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", told["thingToken"])
        [device] = await w.stack.registry.devices(TENANT)
        assert (device.id, device.product) == (told["thingId"], PRODUCT)
        for body in ({"activationCode": code}, {"activationCode": "x"}, {"activationCode": 5}, {}, []):
            answer = await w.call("POST", "/v2/things", body=body)
            assert (answer.status_code, answer.json()["status"]) == (400, "error")
        assert await w.parts.activations.left(PRODUCT) == 1
        assert (await w.call("POST", "/v2/things", body={"activationCode": other})).status_code == 201


@pytest.mark.spec("TTI-X2", "TTI-X3", "TTI-X4", "TTI-X6", "TTI-S11")
async def test_a_thing_writes_and_reads(redis_url: str) -> None:
    async with world(redis_url) as w:
        device, token = await w.thing("t1")
        base = f"/v2/things/{token}"
        assert (await w.call("GET", base + "/resources")).json() == {"status": "success", "resources": []}
        values = [
            {"key": "temperature", "value": 21, "datetime": "20140101000000", "geo": {"lat": 41.4, "long": 2.1}},
            {"key": "temperature", "value": 22.5, "datetime": "20140101T000001"},
            {"key": "door", "value": True},
            {"key": "$geo", "value": [2, 41]},
            {"key": "$settings.name", "value": "Mine"},
        ]
        answer = await w.call("POST", base, body={"values": values}, sync="true")
        assert (answer.status_code, answer.json()) == (201, {"status": "created", "message": "values created"})
        assert (await w.call("GET", base + "/resources")).json()["resources"] == ["door", "temperature"]
        newest = {"key": "temperature", "value": 22.5, "datetime": "2014-01-01T00:00:01.000Z"}
        oldest = {"key": "temperature", "value": 21, "datetime": "2014-01-01T00:00:00.000Z"}
        path = base + "/resources/temperature"
        assert (await w.call("GET", path)).json() == [newest]
        assert (await w.call("GET", path, limit="5")).json() == [newest, oldest]
        assert (await w.call("GET", path, endDate="20140101000001")).json() == [oldest]
        everything = (await w.call("GET", base + "/all_resources", limit="2")).json()
        assert [(each["key"], [value["value"] for value in each["values"]]) for each in everything] == [
            ("door", [True]),
            ("temperature", [22.5, 21]),
        ]
        kept = await w.stack.attributes_of(device)
        assert kept["SERVER"] == {"$geo": {"type": "Point", "coordinates": [2, 41]}, "$settings.name": "Mine"}
        assert (await w.call("GET", base + "/resources/description")).json() == []
        about = {"colour": "red", "parts": [1, 2]}
        assert (await w.call("PUT", base + "/resources/description", body=about)).json() == {
            "status": "success",
            "message": "updated",
        }
        assert (await w.call("GET", base + "/resources/description")).json() == [{"value": about}]
        bad_values = [{"value": 1}, {"key": "", "value": 1}, {"key": "$no", "value": 1}, {"key": "a/b", "value": 1}]
        for bad in bad_values:
            assert (await w.call("POST", base, body={"values": [bad]})).status_code in (400, 404)
        for method, where in (("POST", ""), ("GET", "/resources"), ("GET", "/resources/x"), ("GET", "")):
            body = {"values": [{"key": "a", "value": 1}]} if method == "POST" else None
            assert (await w.call(method, f"/v2/things/{'x' * 43}{where}", body=body)).status_code == 401


@pytest.mark.spec("TTI-X5")
async def test_a_thing_hears_of_its_own_values(redis_url: str) -> None:
    async with world(redis_url) as w:
        (device, token), (_, other) = await w.thing("t1"), await w.thing("t2")
        async with stream(w, f"/v2/things/{token}", keepAlive="1") as texts:
            assert await texts.next() == SUBSCRIBED
            assert await texts.next() == {}
            for one in (other, token):
                values = {"values": [{"key": "b", "value": 1, "datetime": "20140101000000"}]}
                await w.call("POST", f"/v2/things/{one}", body=values)
            assert await texts.value() == [{"key": "b", "value": 1, "datetime": "2014-01-01T00:00:00.000Z"}]
            await w.stack.registry.delete_device(TENANT, device.id)
            assert await texts.value() == {"status": "error", "code": 401, "message": "Invalid thing token"}
            assert await texts.ended()


@pytest.mark.spec("TTI-X7")
async def test_firmware(redis_url: str) -> None:
    async with world(redis_url) as w:
        _, token = await w.thing("t1")
        base = f"/v2/things/{token}/firmwares"
        assert (await w.call("GET", base + "/latest")).json() == {"status": "success", "firmwares": []}
        image = bytes(range(256)) * 2048
        await w.stack.firmware.put(PRODUCT, "1.0.0", b"old")
        await asyncio.sleep(0.002)
        await w.stack.firmware.put(PRODUCT, "1.1.0", image)
        md5 = hashlib.md5(image, usedforsecurity=False).hexdigest()
        told = (await w.call("GET", base + "/latest")).json()
        assert told["firmwares"] == [{"id": "1.1.0", "version": "1.1.0", "size": len(image), "md5": md5}]
        assert (await w.call("GET", base + "/download/1.1.0")).content == image
        assert (await w.call("GET", base + "/download/2.0.0")).status_code == 404
