from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import pytest_asyncio

from nodes import BadInput, Retry
from nodes.forward_mqtt import ForwardMqtt
from nodes.outward import mqtt
from nodes.outward.addresses import NotAllowed
from tests.nodes.context import DictContext, build, message
from tests.services import require

pytestmark = pytest.mark.asyncio

SECRETS = {"PASSWORD": "s3cret"}


class Broker:
    def __init__(self, directory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._configuration = directory / "mosquitto.conf"
        passwords = directory / "passwords"
        passwords.touch(mode=0o600)
        subprocess.run(
            [require("mosquitto_passwd"), "-b", str(passwords), "mill", "s3cret"], check=True, capture_output=True
        )
        self._configuration.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\nuser root\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self._process = subprocess.Popen(
            [require("mosquitto"), "-c", str(self._configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                assert self._process.poll() is None, "mosquitto did not start"
                await asyncio.sleep(0.02)
                continue
            writer.close()
            await writer.wait_closed()
            return
        raise AssertionError("mosquitto does not listen")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> aiomqtt.Client:
        return aiomqtt.Client("127.0.0.1", self.port, username="mill", password="s3cret")


@pytest_asyncio.fixture
async def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Broker]:
    monkeypatch.setenv("RULEMILL_OUTWARD_ALLOW", "127.0.0.1")
    monkeypatch.setattr(mqtt, "RECONNECT_AFTER_S", 0.05)
    made = Broker(tmp_path)
    await made.start()
    yield made
    made.stop()


def forwarder(broker: Broker, **config: Any) -> ForwardMqtt:
    login = {"username": "mill", "password": "${secret:PASSWORD}", "timeout_s": 5}
    return build(
        ForwardMqtt,
        secrets=SECRETS,
        **{"host": "127.0.0.1", "port": broker.port, "topic": "t", "allow_private": True, **login, **config},
    )


async def test_messages_arrive_over_one_connection(broker: Broker) -> None:
    async with broker.client() as listener:
        await listener.subscribe("#", qos=1)
        plain = forwarder(broker, topic="plant/${name}")
        text = forwarder(broker, topic="text", payload="${name}: $[t]", qos=0)
        given = message({"t": 42.0}, metadata={"name": "d1"})
        raw = message(b"\x00\xff", metadata={"name": "d2"})
        assert await plain.call(given, DictContext(SECRETS)) == [("Success", given)]
        first = plain._publisher and plain._publisher._link
        assert first is not None
        await plain.call(raw, DictContext(SECRETS))
        assert plain._publisher is not None
        assert plain._publisher._link is first
        await text.call(given, DictContext(SECRETS))
        found = {}
        async with asyncio.timeout(10):
            async for sent in listener.messages:
                found[str(sent.topic)] = (sent.payload, sent.qos)
                if len(found) == 3:
                    break
        await plain.close()
        await text.close()
    assert found == {"plant/d1": (b'{"t":42.0}', 1), "plant/d2": (b"\x00\xff", 1), "text": (b"d1: 42.0", 0)}


async def test_many_at_once_share_the_connection(broker: Broker) -> None:
    node = forwarder(broker)
    await asyncio.gather(*(node.call(message({"n": n}), DictContext(SECRETS)) for n in range(50)))
    await node.close()


async def test_a_broken_connection_is_tried_again_and_made_anew(broker: Broker) -> None:
    node = forwarder(broker)
    await node.call(message({}), DictContext(SECRETS))
    broker.stop()
    for _ in range(2):
        with pytest.raises(Retry):
            await node.call(message({}), DictContext(SECRETS))
    await broker.start()
    async with asyncio.timeout(10):
        while True:
            try:
                await node.call(message({}), DictContext(SECRETS))
                break
            except Retry as again:
                await asyncio.sleep(again.after_s or 0.02)
    await node.close()


async def test_a_changed_password_counts_from_the_next_connect_on(broker: Broker) -> None:
    node = forwarder(broker)
    with pytest.raises(Retry, match=r"[Nn]ot authori[sz]ed"):
        await node.call(message({}), DictContext({"PASSWORD": "wrong"}))
    await asyncio.sleep(0.1)
    await node.call(message({}), DictContext(SECRETS))
    await node.close()


async def test_private_addresses_are_refused(broker: Broker) -> None:
    node = forwarder(broker, allow_private=False)
    with pytest.raises(NotAllowed):
        await node.call(message({}), DictContext(SECRETS))


@pytest.mark.parametrize("name", ["a+b", "a#", "a\0", ""])
async def test_what_is_no_topic_is_an_error(name: str) -> None:
    node = build(ForwardMqtt, host="h.example", topic="${name}")
    with pytest.raises(BadInput, match="topic"):
        await node.call(message({}, metadata={"name": name}), DictContext())


@pytest.mark.parametrize(
    "config",
    [
        {"topic": "${"},
        {"topic": "${secret:PASSWORD}"},
        {"topic": "t", "password": "${secret:MISSING}"},
        {"topic": "t", "username": "${deviceName}"},
    ],
)
async def test_wrong_configurations_are_found_when_it_is_built(config: Any) -> None:
    with pytest.raises(BadInput):
        build(ForwardMqtt, secrets=SECRETS, host="h.example", **config)
