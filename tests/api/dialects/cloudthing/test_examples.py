"""The scripts of examples/cloudthing against a server that was made with their bootstrap file."""

import asyncio
import json
import os

import pytest

from api.bootstrap import apply
from api.bootstrap_schema import check_shape
from engine.node import Product
from tests.api.dialects.cloudthing.site import DEVICE, TENANT
from tests.engine.toy import until
from tests.examples.folders import EXAMPLES
from tests.services import require

pytestmark = pytest.mark.asyncio

FOLDER = EXAMPLES / "cloudthing"


async def start(site, script, *arguments):
    for program in ("curl", "mosquitto_pub", "mosquitto_sub"):
        require(program)
    return await asyncio.create_subprocess_exec(
        str(FOLDER / script), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "CT_URL": site.http_url, "MQTT_PORT": str(site.mqtt_port)},
    )  # fmt: skip


async def run(site, script, *arguments):
    process = await start(site, script, *arguments)
    async with asyncio.timeout(20):
        output, _ = await process.communicate()
    assert process.returncode == 0, output
    return output


@pytest.fixture
def document():
    return json.loads((FOLDER / "bootstrap.json").read_text())


async def boot(site, document):
    assert check_shape(document) == []
    await apply(document, site.stack.registry, site.stack.chains)
    product = await site.stack.registry.product(TENANT, "weather-station")
    assert isinstance(product, Product)
    site.device = await site.stack.registry.device(TENANT, DEVICE)


@pytest.mark.spec("CT-24", "CT-33", "CT-37")
async def test_data(site, document):
    await boot(site, document)
    assert await run(site, "data.sh") == b""
    assert [point[:2] for point in await site.points()] == [("temp", 36.6)] * 2


@pytest.mark.spec("CT-3", "CT-5", "CT-25", "CT-34")
@pytest.mark.parametrize(("arguments", "answer"), [((), b'{"allowed":true}'), (("8",), b'{"allowed":false}')])
async def test_event(site, document, arguments, answer):
    await boot(site, document)
    output = await run(site, "event.sh", *arguments)
    assert output == (answer + b"\n") * 2


@pytest.mark.spec("CT-26", "CT-40", "CT-43", "CT-44")
@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("stream",), b"ON"),
        (("stream", "--raw"), b"2;id=turn\r\nON\r\n"),
        (("json",), b'{"id":"turn","payload":"ON"}\n'),
        (("mqtt",), b"v1/SoMEc0MpL1Cat3D1D/commands/turn ON\n"),
    ],
)
async def test_commands(site, document, arguments, shown):
    await boot(site, document)
    process = await start(site, "commands.sh", *arguments)
    try:
        await until(lambda: site.device.id in site.service.deliveries._devices)
        await site.command("turn", "ON")
        async with asyncio.timeout(15):
            assert await process.stdout.readexactly(len(shown)) == shown
    finally:
        process.terminate()
        await process.wait()
