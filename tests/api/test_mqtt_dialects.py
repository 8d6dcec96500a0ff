"""Which dialects an MQTT client may belong to, in which order, and who gets in by that."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple

import pytest

from api.mqtt_dialects import MqttDialects
from api.transports.mqtt.dialect import Peer, Refusal
from api.transports.mqtt.packets import Connack, Connect
from tests.api.test_up import running
from tests.api.transports.mqtt.harness import RawClient
from tests.certificates import Made, issued

pytestmark = pytest.mark.spec("G-9")


class Named(NamedTuple):
    """A dialect that nobody is known to."""

    name: str

    async def login(self, connect: Connect, peer: Peer) -> Refusal:
        return Refusal(5, self.name, unknown=True)


DIALECTS = MqttDialects(
    certificates=Named("certificates"), cloudthing=Named("cloudthing"), thingsboard=Named("thingsboard"),
    provisioning=Named("provisioning"), things=Named("things"),
)  # fmt: skip


def asked(username: str | None, client_id: str = "c", certificate: bytes | None = None) -> str:
    peer = Peer("192.0.2.1", "mqtt", certificate is not None, certificate)
    found = DIALECTS(Connect(4, client_id=client_id, username=username), peer)
    return " ".join(each.name for each in found if isinstance(each, Named))


@pytest.mark.parametrize(
    ("username", "client_id", "expected"),
    [
        ("tenant:device", "c", "cloudthing thingsboard"),
        ("provision", "c", "provisioning"),
        (None, "provision", "provisioning"),
        ("token", "c", "thingsboard"),
        (None, "c", "thingsboard things"),
        ("", "c", "thingsboard things"),
    ],
)
def test_the_form_of_a_login_tells_whose_it_may_be(username: str | None, client_id: str, expected: str) -> None:
    assert asked(username, client_id) == expected
    # Whoever has a certificate is no thing without a name, whether or not that is known.
    assert asked(username, client_id, b"DER") == f"certificates {expected.removesuffix(' things')}"


@pytest.mark.asyncio
@pytest.mark.spec("G-10", "TB-X1", "TTI-X8")
async def test_a_certificate_that_nobody_knows_makes_no_thing_of_a_client_of_a_whole_server(tmp_path: Path) -> None:
    certificate, key = issued("localhost", authority=True).write(tmp_path, "server")
    more = {
        "RULEMILL_LISTEN_MQTTS": "127.0.0.1:0", "RULEMILL_TLS_CERTIFICATE": certificate, "RULEMILL_TLS_KEY": key
    }  # fmt: skip
    with running(tmp_path / "data", "--demo", **more) as (_, facts):
        port = int(facts["listeners"]["mqtts"].rpartition(":")[2])
        token = facts["devices"]["thingsboard"]["token"]

        async def code(made: Made | None, username: str | None, level: int) -> int:
            """The code that a CONNECT is answered with."""
            context = ssl.create_default_context(cafile=certificate)
            if made is not None:
                context.load_cert_chain(*made.write(tmp_path, "device"))
            client = await RawClient.open(port, ssl=context, server_hostname="localhost")
            client.say(Connect(level, client_id="c", username=username))
            answer = await client.hear()
            await client.close()
            assert isinstance(answer, Connack)
            return answer.code

        stranger = issued("stranger")
        for level, refused in ((4, 5), (5, 0x87)):
            assert await code(stranger, None, level) == refused
            assert await code(stranger, "tenant:device", level) == refused
            # The other ways to log in are as open to it as to a client that shows none.
            for made in (stranger, None):
                assert await code(made, token, level) == 0
                assert await code(made, "provision", level) == 0
            assert await code(None, None, level) == 0
