"""The whole endpoint: dialect choice, slow readers, other people's clients, TLS, a graceful end."""

import asyncio
import socket
import ssl

import aiomqtt
import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes

from api.certificate import asking_context
from api.transports.mqtt.dialect import CloseReason
from api.transports.mqtt.encoding import encode
from api.transports.mqtt.packets import Connack, Connect, Puback, Publish, Subscribe
from api.transports.mqtt.server import MqttServer
from api.transports.mqtt.sessions import SessionStore
from api.transports.mqtt.settings import Settings
from engine.config import Tls
from engine.errors import Refused
from tests.api.transports.mqtt.harness import MemoryStore, PlainDialect, RawClient, Site, publication, until
from tests.certificates import issued
from tests.services import require

pytestmark = pytest.mark.asyncio


@pytest.mark.spec("G-9")
async def test_a_name_unknown_to_one_dialect_is_tried_with_the_next():
    class Other(PlainDialect):
        async def login(self, connect, peer):
            if connect.password == b"other":
                return await super().login(Connect(username="o", password=b"secret"), peer)
            return (await super().login(connect, peer))._replace(code=5)

    first, second, store = PlainDialect(), Other(), MemoryStore()
    server = MqttServer(lambda connect, peer: (first, second), store.submit)
    [(_, port)] = await server.start(host="127.0.0.1", port=0, name="here")
    answers = {}
    for username, password in [("nobody", b"other"), ("nobody", b"wrong"), ("somebody", b"other")]:
        client = await RawClient.open(port)
        client.say(Connect(client_id="c", username=username, password=password))
        answers[username, password] = (await client.hear()).code
        await client.close()
    await server.stop()
    assert list(answers.values()) == [0, 4, 4]
    assert {peer.listener for peer in second.peers} == {"here"}
    nothing = MqttServer(lambda connect, peer: (), store.submit)
    [(_, port)] = await nothing.start(host="127.0.0.1", port=0)
    client = await RawClient.open(port)
    assert await client.login() == Connack(False, 5)
    await client.close()
    await nothing.stop()


@pytest.mark.spec("G-24")
@pytest.mark.parametrize("payload", [b"x", b"x" * 60_000])
async def test_a_slow_reader_is_cut_and_nobody_else_notices(payload):
    async with Site() as site:
        slow, quick = await site.logged_in(), await site.logged_in(client_id="quick")
        for client in (slow, quick):
            await client.subscribe("dev/a", qos=1)
        got = 0
        for _ in range(400):
            site.server.send("d1", "dev/a", payload)
            packet = await quick.hear()
            quick.say(Puback(packet.packet_id))
            got += 1
        await until(lambda: len(site.server._connections) == 1)
        assert got == 400
        assert site.dialect.logins[0].events[-1] == CloseReason.SLOW_READER
        assert site.dialect.logins[1].events[-1] == "subscribed dev/a 1"


async def test_a_client_that_never_reads_its_answers_is_not_read_and_then_cut():
    async with Site(settings=Settings(write_stall_s=0.2, write_buffer=1000)) as site:
        client = await site.client()
        client.writer.transport.pause_reading()
        client.say(Connect(client_id="c", username="d", password=b"secret"), Subscribe(1, (("dev/echoed", 0),)))
        one = encode(publication(b"x" * 60_000, qos=0, topic="dev/echo"))
        for _ in range(500):
            client.say(one)
        await until(lambda: site.dialect.logins and site.dialect.logins[0].events[-1] == CloseReason.SLOW_READER)
        assert site.server.counters.received < 500


async def test_a_client_that_reads_slowly_but_steadily_gets_a_large_packet():
    large = b"x" * 8_000_000
    async with Site(settings=Settings(write_stall_s=0.4)) as site:
        client = await site.logged_in()
        await client.subscribe("dev/a", qos=0)
        site.server.send("d1", "dev/a", large, 0)
        (connection,) = site.server._connections
        assert connection.unsent_bytes > 1_000_000
        got = 0
        while got < len(large):
            data = await client.reader.read(1_000_000)
            assert data, "cut"
            got += len(data)
            # In all it takes longer than a client may that does not read at all.
            await asyncio.sleep(0.05)
        assert connection.unsent_bytes == 0


async def test_sockets_bound_before_and_several_listeners():
    dialect, store = PlainDialect(), MemoryStore()
    server = MqttServer(lambda connect, peer: (dialect,), store.submit)
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    addresses = await server.start(sockets=[bound], name="one")
    addresses += await server.start(host="127.0.0.1", port=0, name="two")
    for i, (host, port) in enumerate(addresses):
        assert host == "127.0.0.1"
        client = await RawClient.open(port)
        await client.login(client_id=f"c{i}")
        await client.close()
    await server.stop()
    assert [peer.listener for peer in dialect.peers] == ["one", "two"]


async def test_a_graceful_stop_answers_what_gets_stored_in_time():
    store = MemoryStore()
    store.manual = True
    site = Site(store=store)
    await site.__aenter__()
    idle, busy = await site.logged_in(client_id="idle"), await site.logged_in(client_id="busy")
    busy.say(publication(b"1", 1))
    await until(lambda: store.waiting)
    stopping = asyncio.create_task(site.server.stop(10))
    assert await idle.hear() is None
    with pytest.raises(OSError, match=r"refused|Connect"):
        await RawClient.open(site.port)
    store.store()
    assert await busy.hear() == Puback(1)
    assert await busy.hear() is None
    await stopping
    assert site.dialect.logins[1].events[-1] == CloseReason.STOPPING
    for client in (idle, busy):
        await client.close()


async def test_a_stop_does_not_wait_for_ever():
    store = MemoryStore()
    site = Site(store=store)
    await site.__aenter__()
    stuck, refused = await site.logged_in(client_id="stuck"), await site.logged_in(client_id="refused")
    store.refusals = [Refused("full", 3600)]
    refused.say(publication(b"1", 1))
    await until(lambda: site.server.counters.refused)
    store.manual = True
    stuck.say(publication(b"2", 1))
    await until(lambda: store.waiting)
    await site.server.stop(0.05)
    assert await stuck.hear() is None
    assert await refused.hear() is None
    store.store()
    for client in (stuck, refused):
        await client.close()


async def test_tls_shows_the_dialect_the_clients_certificate(tmp_path):
    place, device = issued("localhost", authority=True), issued("device")
    files = place.write(tmp_path, "server")
    outside = ssl.create_default_context(cafile=files[0])
    dialect, store = PlainDialect(), MemoryStore()
    server = MqttServer(lambda connect, peer: (dialect,), store.submit)
    [(_, port)] = await server.start(host="127.0.0.1", port=0, tls=asking_context(Tls(*files)), name="mqtts")
    for _ in range(2):
        client = await RawClient.open(port, ssl=outside, server_hostname="localhost")
        await client.login()
        client.say(publication(b"x" * 60_000, 1))
        assert await client.hear() == Puback(1)
        await client.close()
        outside.load_cert_chain(*device.write(tmp_path, "device"))
    await server.stop()
    with_none, with_one = dialect.peers
    assert (with_none.tls, with_none.certificate) == (True, None)
    assert with_one.certificate == device.der


async def test_who_does_not_shake_hands_is_cut(tmp_path):
    tls = asking_context(Tls(*issued("localhost", authority=True).write(tmp_path, "server")))
    server = MqttServer(lambda connect, peer: (), MemoryStore().submit, settings=Settings(handshake_s=0.1))
    [(_, port)] = await server.start(host="127.0.0.1", port=0, tls=tls)
    client = await RawClient.open(port)
    assert await client.hear() is None
    await client.close()
    await server.stop()


# Other people's clients.


@pytest.mark.parametrize("protocol", [paho.MQTTv31, paho.MQTTv311, paho.MQTTv5])
async def test_paho(protocol):
    async with Site() as site:
        got = []

        def subscribed(client, *_):
            for i in range(50):
                client.publish("dev/echo" if i == 0 else "dev/data", b"%d" % i, qos=i % 3)

        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="p", protocol=protocol)
        client.username_pw_set("d1", "secret")
        client.max_inflight_messages_set(100)  # over the limit the client itself lets QoS 0 overtake
        client.on_connect = lambda c, *_: c.subscribe("dev/echoed", 1)
        client.on_subscribe = subscribed
        client.on_message = lambda _client, _data, message: got.append((message.topic, message.payload, message.qos))
        client.connect_async("127.0.0.1", site.port, keepalive=5)
        client.loop_start()
        await until(lambda: len(site.store.stored) == 49 and got)
        await until(lambda: not client._out_messages)
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)
        assert site.store.payloads == [b"%d" % i for i in range(1, 50)]
        assert got == [("dev/echoed", b"0", 1)]
        assert site.dialect.logins[0].events[-1] == CloseReason.DISCONNECT


KEPT_5 = paho.Properties(PacketTypes.CONNECT)
KEPT_5.SessionExpiryInterval = 60


@pytest.mark.parametrize(
    "kept",
    [
        {"clean_session": False},
        {"protocol": aiomqtt.ProtocolVersion.V5, "clean_start": False, "properties": KEPT_5},
    ],
    ids=["3.1.1", "5"],
)
async def test_aiomqtt(redis, kept):
    async with Site(SessionStore(redis)) as site:
        options = {"username": "d1", "password": "secret", "identifier": "a", **kept}
        async with aiomqtt.Client("127.0.0.1", site.port, **options) as client:
            await client.subscribe("dev/#", qos=1)
            for qos in range(3):
                await client.publish("dev/data", b"%d" % qos, qos=qos)
        await until(lambda: not site.server._connections)
        await site.server.enqueue("d1", "dev/later", b"kept", 1)
        async with aiomqtt.Client("127.0.0.1", site.port, **options) as client:
            async for message in client.messages:
                assert (str(message.topic), message.payload) == ("dev/later", b"kept")
                break
        with pytest.raises(aiomqtt.MqttError):
            async with aiomqtt.Client("127.0.0.1", site.port, username="d1", password="wrong"):
                pass
        assert site.store.payloads == [b"0", b"1", b"2"]


@pytest.mark.parametrize("version", ["311", "5"])
@pytest.mark.parametrize("qos", ["0", "1", "2"])
async def test_mosquitto(qos, version):
    publish, subscribe = require("mosquitto_pub"), require("mosquitto_sub")
    async with Site() as site:
        common = ["-h", "127.0.0.1", "-p", str(site.port), "-u", "d1", "-P", "secret", "-q", qos, "-V", version]
        listening = await asyncio.create_subprocess_exec(
            subscribe, *common, "-t", "dev/+", "-C", "1", "-F", "%t %p %q", stdout=asyncio.subprocess.PIPE
        )
        await until(lambda: any("subscribed" in event for login in site.dialect.logins for event in login.events))
        talking = await asyncio.create_subprocess_exec(
            publish, *common, "-t", "dev/data", "-l", stdin=asyncio.subprocess.PIPE
        )
        lines = [b"line %d" % i for i in range(300)]
        await talking.communicate(b"\n".join(lines) + b"\n")
        assert talking.returncode == 0
        await until(lambda: len(site.store.stored) == 300)
        assert site.store.payloads == lines
        assert site.server.send("d1", "dev/a", b"hello") == 1
        said, _ = await asyncio.wait_for(listening.communicate(), 10)
        assert said == b"dev/a hello %d\n" % min(int(qos), 1)


async def test_what_the_server_tells_of_itself():
    async with Site() as site:
        client = await site.logged_in()
        await client.subscribe("dev/a", 0)
        client.say(publication(b"1", 1), publication(b"2", qos=0))
        assert await client.hear() == Puback(1)
        assert site.server.send("d1", "dev/a", b"x") == 1
        assert site.server.send("d2", "dev/a", b"x") == 0
        assert await client.hear() == Publish("dev/a", b"x")
        told = site.server.counters.read()
        assert {name: told[name] for name in ("connections", "opened", "received", "acked", "sent", "dropped")} == {
            "connections": 1, "opened": 1, "received": 2, "acked": 2, "sent": 1, "dropped": 0,
        }  # fmt: skip
        [connection] = site.server.clients("d1")
        connection.close(CloseReason.KICKED)
        assert await client.hear() is None
        assert await site.server.enqueue("d1", "dev/a", b"x") == 0
