"""The examples on a real worker and a real Redis, from their bootstrap files to what comes out."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from api.bootstrap import apply
from api.dialects.cloudthing.http import CloudThingHttp
from api.dialects.cloudthing.service import CloudThing
from engine.message import now_ms
from engine.stores.alarm_store import AlarmStore
from engine.stores.registry import Device
from tests.api.stack import PARTITIONS, Stack
from tests.engine.toy import until
from tests.examples.folders import EXAMPLES, bootstrap
from tests.services import free_port

pytestmark = pytest.mark.asyncio


async def boot(stack: Stack, name: str, **replaced: str) -> None:
    text = json.dumps(bootstrap(EXAMPLES / name))
    for old, new in replaced.items():
        text = text.replace(old, new)
    await apply(json.loads(text), stack.registry, stack.chains)
    again = await apply(json.loads(text), stack.registry, stack.chains)
    assert (again.devices, again.chains, again.deployments) == ([], [], {})


@asynccontextmanager
async def cloudthing(stack: Stack) -> AsyncIterator[CloudThing]:
    service = CloudThing(
        stack.url, auth=stack.auth, registry=stack.registry, intake=stack.intake, replies=stack.replies,
        commands=stack.commands, live=stack.live, answers=stack.answers, firmware=stack.firmware,
    )  # fmt: skip
    await service.start()
    yield service
    await service.stop()


async def send(stack: Stack, device: Device, type: str, data: Any, **metadata: str) -> None:
    message = stack.intake.message(
        device, type, data, dialect="test", transport="test", ts_ms=stack.intake.stamp(device.id), metadata=metadata
    )
    await stack.intake.submit([message])


async def latest(stack: Stack, device: Device) -> dict[str, Any]:
    await stack.idle()
    return {point.key: point.value for point in await stack.store.latest(device.tenant, [device.id])}


async def alarms(stack: Stack, device: Device) -> list[tuple[str, str]]:
    await stack.idle()
    page = await AlarmStore(stack.wire, PARTITIONS).list(device.tenant)
    return sorted((alarm.type, alarm.status) for alarm in page.alarms if alarm.device == device.id)


async def test_thermostat(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RULEMILL_OUTWARD_ALLOW", "127.0.0.1")
    port, heard = free_port(), tmp_path / "heard"
    with heard.open("w") as output:
        command = [sys.executable, str(EXAMPLES / "thermostat/receiver.py"), str(port)]
        receiver = subprocess.Popen(command, stdout=output)
    try:
        async with Stack(redis_url) as stack:
            await boot(stack, "thermostat", **{"127.0.0.1:9000": f"127.0.0.1:{port}"})
            hall = await stack.registry.device("thermostat", "hall")
            for temperature in (21.5, 31, 33, 29, 27.9):
                await send(stack, hall, "POST_TELEMETRY_REQUEST", {"temperature": temperature})
            assert await latest(stack, hall) == {"temperature": 27.9, "fahrenheit": pytest.approx(82.22)}
            assert await alarms(stack, hall) == [("Too hot", "CLEARED_UNACK")]
            await until(lambda: len(heard.read_text().splitlines()) >= 2)
    finally:
        receiver.terminate()
        receiver.wait(10)
    readme = (EXAMPLES / "thermostat/README.md").read_text()
    for line in heard.read_text().splitlines():
        assert line in readme
    assert len(heard.read_text().splitlines()) == 2


async def test_clock(redis_url: str) -> None:
    async with Stack(redis_url) as stack:
        await boot(stack, "clock")
        watch = await stack.registry.device("clock", "watch")
        for method, key in (("getTime", "time"), ("getTimeLua", "time"), ("getDate", "error")):
            with stack.replies.wait() as waiting:
                message = stack.intake.message(
                    watch, "TO_SERVER_RPC_REQUEST", {"method": method, "params": {}}, dialect="test",
                    transport="test", ts_ms=now_ms(), reply_to=waiting.to,
                )  # fmt: skip
                await stack.intake.submit([message])
                answer = await asyncio.wait_for(waiting.next(15.0), 20)
            assert answer is not None
            assert answer.data.keys() == {key}
            assert answer.data[key]


async def test_sigfox_like(redis_url: str) -> None:
    async with Stack(redis_url) as stack:
        await boot(stack, "sigfox-like")
        shed = await stack.registry.device("sigfox-like", "1A2B3C")
        assert shed.name == "shed"
        product = await stack.registry.product("sigfox-like", shed.product)
        assert product.facets.keys() == {"transform", "sigfox"}
        frame = base64.b64decode("NP/8n6CM5w//////")
        await send(stack, shed, "RAW_UPLINK", frame, ct="custom", productId=shed.product)
        await send(stack, shed, "RAW_UPLINK", frame[:2], ct="custom", productId=shed.product)
        assert (await latest(stack, shed))["temperature_min"] == -40.0
        assert await alarms(stack, shed) == [("Battery", "ACTIVE_UNACK"), ("Tampered", "ACTIVE_UNACK")]
        (letter,) = await stack.dead.list("sigfox-like")
        assert (letter.node, letter.message.data) == ("sigfox-like/decode", frame[:2])


@pytest.mark.spec("CT-50", "CT-51", "CT-X5")
async def test_sigfox_like_as_the_readme_calls_it(redis_url: str) -> None:
    async with Stack(redis_url) as stack, cloudthing(stack) as service:
        await boot(stack, "sigfox-like")
        stack.serve(CloudThingHttp(service))
        client = await stack.client(await stack.listen("ct_sigfox"))
        shed = await stack.registry.device("sigfox-like", "shed")
        path = "/sigfox/tiny-sensor?id=1A2B3C&data="
        assert (await client.post(path + "28070d778da4fe00f80004d2")).status_code == 204
        assert (await latest(stack, shed))["temperature"] == 21.5
        command = {"method": "set", "params": "0102030405060708"}
        await send(stack, shed, "RPC_CALL_FROM_SERVER_TO_DEVICE", command, oneway="true")
        await stack.idle()
        answer = await client.post(path + "000800000000000000000000&ack=true")
        assert answer.json() == {"1A2B3C": {"downlinkData": "0102030405060708"}}


async def test_sub_chain(redis_url: str) -> None:
    async with Stack(redis_url) as stack:
        await boot(stack, "sub-chain")
        cellar = await stack.registry.device("sub-chain", "cellar")
        attic = await stack.registry.device("sub-chain", "attic")
        await send(stack, cellar, "POST_TELEMETRY_REQUEST", {"temperature": 12, "humidity": 65})
        await send(stack, attic, "POST_TELEMETRY_REQUEST", {"temperature": 21, "humidity": 65})
        assert await alarms(stack, cellar) == [("Mould", "ACTIVE_UNACK")]
        assert await alarms(stack, attic) == []
        assert (await latest(stack, attic))["humidity"] == 65
