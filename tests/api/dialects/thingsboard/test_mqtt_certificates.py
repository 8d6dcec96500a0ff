"""Devices that log in by the certificate of their TLS connection."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import pytest
import pytest_asyncio

from api.certificate import asking_context
from api.dialects.thingsboard.mqtt import ThingsBoardMqtt
from api.transports.mqtt.packets import Connack, Connect
from api.transports.mqtt.server import MqttServer
from engine.config import Tls
from engine.stores.certificates import X509_CERTIFICATE
from engine.stores.registry import Credential, Device
from tests.api.dialects.thingsboard.sdk import sdk
from tests.api.dialects.thingsboard.site import TOKEN, Site
from tests.api.stack import TENANT
from tests.api.transports.mqtt.harness import RawClient
from tests.certificates import Made, issued
from tests.services import require

pytestmark = [pytest.mark.asyncio, pytest.mark.spec("TB-X1", "G-9")]

ME = "v1/devices/me/"


class SecureSite(Site):
    """A site with a TLS listener at `mqtts_port`; `files` are the server's certificate and key."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url)
        self.folder = folder
        self.files = issued("localhost", authority=True).write(folder, "server")
        self.mqtts_port = 0

    async def __aenter__(self) -> SecureSite:
        await super().__aenter__()
        mqtt = ThingsBoardMqtt(self.parts)
        server = MqttServer(lambda connect, peer: (mqtt.by_certificate, mqtt), self.intake.submit)
        [(_, self.mqtts_port)] = await server.start(host="127.0.0.1", port=0, tls=asking_context(Tls(*self.files)))
        self._exit.push_async_callback(mqtt.stop)
        self._exit.push_async_callback(server.stop, 1.0)
        return self

    async def owner(self, name: str, value: str) -> Device:
        """A device with this certificate."""
        return await self.device(name, credentials=[Credential(kind=X509_CERTIFICATE, value=value)])

    def context(self, made: Made | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.files[0])
        if made is not None:
            context.load_cert_chain(*made.write(self.folder, "device"))
        return context

    async def login(self, made: Made | None, username: str | None, level: int = 4) -> tuple[RawClient, int]:
        """A connected client, and the code of its CONNACK."""
        raw = await RawClient.open(self.mqtts_port, ssl=self.context(made), server_hostname="localhost")
        raw.say(Connect(level, client_id="c", username=username))
        answer = await raw.hear()
        assert isinstance(answer, Connack)
        return raw, answer.code


@pytest_asyncio.fixture
async def secure(redis_url: str, tmp_path: Path) -> AsyncIterator[SecureSite]:
    async with SecureSite(redis_url, tmp_path) as made:
        yield made


def theirs(made: Made) -> str:
    """The fingerprint that ThingsBoard gives a certificate."""
    return hashlib.sha3_256(base64.b64encode(made.der)).hexdigest()


@pytest.mark.spec("TB-S32")
@pytest.mark.parametrize("form", [lambda made: made.pem, lambda made: hashlib.sha256(made.der).hexdigest(), theirs])
async def test_a_device_is_known_by_its_certificate_whatever_its_name(secure: SecureSite, form: Any) -> None:
    own = issued("device")
    device = await secure.owner("d2", form(own))
    for username in (None, "?SDK=JavaScript&Version=2.2.11", TOKEN, "tenant:device"):
        client, code = await secure.login(own, username)
        assert code == 0
        await client.close()
    async with aiomqtt.Client("localhost", secure.mqtts_port, tls_context=secure.context(own)) as talking:
        await talking.publish(ME + "telemetry", '{"temperature":42}', 1)
    assert await secure.latest(device) == {"temperature": 42}
    assert await secure.latest(secure.d1) == {}


@pytest.mark.spec("G-10")
@pytest.mark.parametrize("level", [4, 5])
async def test_an_unknown_certificate_leaves_the_other_ways_to_log_in(secure: SecureSite, level: int) -> None:
    await secure.owner("d2", issued("another").pem)
    refused = 5 if level == 4 else 0x87
    for made in (issued("stranger"), None):
        for username, expected in ((TOKEN, 0), (None, refused), ("nobody", refused)):
            client, code = await secure.login(made, username, level)
            assert code == expected
            await client.close()


@pytest.mark.spec("G-10")
async def test_a_disabled_device_is_not_authorised(secure: SecureSite) -> None:
    own = issued("device")
    device = await secure.owner("d2", own.pem)
    await secure.registry.put_device(msgspec.structs.replace(device, enabled=False))
    client, code = await secure.login(own, TOKEN)
    assert code == 5
    await client.close()


async def test_a_certificate_that_is_taken_away_ends_its_session(secure: SecureSite) -> None:
    own, fresh = issued("device"), issued("device")
    device = await secure.owner("d2", own.pem)
    client, code = await secure.login(own, None)
    assert code == 0
    await secure.registry.put_device(device, [Credential(kind=X509_CERTIFICATE, value=fresh.pem)])
    assert await client.hear() is None
    await client.close()
    for made, expected in ((own, 5), (fresh, 0)):
        client, code = await secure.login(made, None)
        assert code == expected
        await client.close()


async def test_two_devices_cannot_have_one_certificate(secure: SecureSite) -> None:
    own = issued("device")
    await secure.owner("d2", own.pem)
    with pytest.raises(Exception, match="another device has the credential"):
        await secure.owner("d3", hashlib.sha256(own.der).hexdigest())


@pytest.mark.parametrize("version", ["311", "5"])
async def test_mosquitto(secure: SecureSite, version: str) -> None:
    own = issued("device")
    device = await secure.owner("d2", own.pem)
    made, key = own.write(secure.folder, "device")
    process = await asyncio.create_subprocess_exec(
        require("mosquitto_pub"), "-h", "localhost", "-p", str(secure.mqtts_port), "-V", version, "-q", "1",
        "--cafile", secure.files[0], "--cert", made, "--key", key, "-t", ME + "telemetry", "-m", '{"a":1}',
    )  # fmt: skip
    assert await asyncio.wait_for(process.wait(), 10) == 0
    assert await secure.latest(device) == {"a": 1}


async def test_the_vendors_sdk(secure: SecureSite) -> None:
    own = issued("device")
    device = await secure.owner("d2", own.pem)
    made, key = own.write(secure.folder, "device")
    async with sdk(host="localhost", port=secure.mqtts_port, username="") as client:
        await client.connect(tls=True, ca_certs=secure.files[0], cert_file=made, key_file=key)
        assert await client.call("send_telemetry", {"a": 1}) == 0
    assert await secure.latest(device) == {"a": 1}


@pytest.mark.spec("TB-S32")
async def test_a_certificate_stays_the_tenants_own_matter(secure: SecureSite) -> None:
    own = issued("device")
    await secure.owner("d2", own.pem)
    await secure.registry.delete_device(TENANT, "d2")
    client, code = await secure.login(own, None)
    assert code == 5
    await client.close()
