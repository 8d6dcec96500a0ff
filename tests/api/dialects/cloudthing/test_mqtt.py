"""The MQTT connector through real sockets, to the points in the store."""

import asyncio
import json
import logging

import cbor2
import pytest
import pytest_asyncio

from api.dialects.cloudthing.mqtt import MAX_PAYLOAD_BYTES
from api.dialects.cloudthing.service import print_of
from api.transports.mqtt.packets import BAD_LOGIN, NOT_AUTHORISED, Connect, Puback, Pubcomp, Publish, Pubrec, Pubrel
from tests.api.dialects.cloudthing.fixtures import (
    BAD_CBOR,
    BAD_JSON,
    BAD_PROTO,
    CUSTOM,
    DOCUMENTED,
    ONE,
    ONE_CBOR,
    T0,
    as_proto,
)
from tests.api.dialects.cloudthing.site import DEVICE, TENANT, TOKEN, answering, call
from tests.api.transports.mqtt.harness import RawClient
from tests.engine.toy import until
from tests.services import require

pytestmark = pytest.mark.asyncio

DATA = f"v1/{DEVICE}/data"
USER = f"{TENANT}:{DEVICE}"


@pytest_asyncio.fixture
async def clients(site):
    """Opens raw connections to the site; closes them at the end."""
    opened = []

    async def connect(user=USER, password=TOKEN, *, client_id="c1", clean=True, level=4):
        client = await RawClient.open(site.mqtt_port)
        opened.append(client)
        client.say(
            Connect(
                level, clean, 0, client_id, None, user, password.encode() if isinstance(password, str) else password
            )
        )
        client.connack = await client.hear()
        return client

    yield connect
    for client in opened:
        await client.close()


def data(payload, packet_id=1, *, ct="json", qos=1, topic=None, retain=False):
    return Publish(topic or (f"{DATA}?ct={ct}" if ct else DATA), payload, qos, packet_id, retain)


async def stored(client, *packets):
    """Publish at QoS 1; returns when all are acknowledged."""
    client.say(*packets)
    for packet in packets:
        assert await client.hear() == Puback(packet.packet_id)


async def mosquitto(site, *arguments):
    return await call(
        require("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(site.mqtt_port), "-u", "short-name:SoMEc0MpL1Cat3D1D",
        "-P", "3xAmpLeT0K3n", *arguments,
    )  # fmt: skip


@pytest.mark.spec("CT-20", "CT-21", "CT-22", "CT-24", "CT-S17")
@pytest.mark.parametrize(
    "more",
    [
        [],
        ["-q", "1"],
        ["-q", "2"],
        ["-i", "any id"],
        ["-q", "1", "-r"],
        ["-V", "mqttv31"],
        ["-V", "5", "-q", "1", "-r"],
    ],
)
async def test_the_documented_call_of_mosquitto(site, more):
    # As printed but for the host and the port.
    code, output = await mosquitto(
        site, "-t", "v1/SoMEc0MpL1Cat3D1D/data?ct=json", "-m", '{"r":[{"k":"temp","v":36.6}]}', *more
    )
    assert (code, output) == (0, b"")
    await until(lambda: _one_point(site))


async def _one_point(site):
    return [point[:2] for point in await site.points()] == [("temp", 36.6)]


@pytest.mark.parametrize("ct", ["json", "cbor", "proto"])
@pytest.mark.parametrize(("name", "document", "expected"), DOCUMENTED, ids=[each[0] for each in DOCUMENTED])
@pytest.mark.spec("CT-7", "CT-8", "CT-10", "CT-11", "CT-12", "CT-13", "CT-14", "CT-15", "CT-22", "CT-70", "CT-71")
async def test_documented_examples_store_the_same_points_in_every_format(site, clients, name, document, expected, ct):
    bodies = {"json": json.dumps(document).encode(), "cbor": cbor2.dumps(document), "proto": as_proto(document)}
    client = await clients()
    await stored(client, data(bodies[ct], ct=ct))
    found = {key: (value, ms, place) for key, value, ms, place in await site.points()}
    assert {key: (value, place) for key, (value, _, place) in found.items()} == {
        key: (value, place) for key, value, _, place in expected
    }
    times = {key: found[key][1] - T0 for key, _, ms, _ in expected if ms is not None}
    assert times == {key: ms for key, _, ms, _ in expected if ms is not None}
    assert len({found[key][1] for key, _, ms, _ in expected if ms is None}) <= 1


@pytest.mark.spec("CT-16", "CT-23", "CT-S13")
async def test_data_of_no_known_type_is_custom(site, clients):
    client = await clients()
    suffixes = ["", "?", "?ct=custom", "?ct=xml", "?x=1", "?x=1&ct=custom&y"]
    await stored(client, *[data(CUSTOM, number, topic=DATA + suffix) for number, suffix in enumerate(suffixes, 1)])
    points = sorted(point[:2] for point in await site.points())
    assert points == [("bat", 3.5)] * len(suffixes) + [("temp", 36.6)] * len(suffixes)


@pytest.mark.spec("CT-22", "CT-S13")
async def test_other_parameters_are_ignored(site, clients):
    await stored(await clients(), data(ONE, topic=f"{DATA}?a=b&ct=json&ct=cbor&"))
    assert len(await site.points()) == 1


@pytest.mark.spec("CT-S17")
async def test_every_qos_is_stored_and_nothing_is_retained(site, clients):
    client = await clients()
    client.say(data(ONE, 0, qos=0), data(ONE, 7, retain=True), data(ONE, 8, qos=2), Pubrel(8))
    assert await client.hear_many(3) == [Puback(7), Pubrec(8), Pubcomp(8)]
    await client.subscribe(f"v1/{DEVICE}/commands/+")
    assert len(await site.points()) == 3


@pytest.mark.spec("CT-22", "G-10")
async def test_mqtt_5_says_why_data_was_not_stored(site, clients):
    client = await clients(level=5)
    assert client.connack.properties.maximum_packet_bytes == MAX_PAYLOAD_BYTES
    client.say(data(b"{", 1), data(ONE, 2))
    refused, stored = await client.hear_many(2)
    assert (refused.packet_id, refused.reason, stored) == (1, 0x99, Puback(2))
    assert "data of device" in refused.properties.reason
    client.say(data(ONE, 3, topic="v1/another/data"))
    goodbye = await client.hear()
    assert (goodbye.reason, "is not of device" in goodbye.properties.reason) == (0x87, True)
    assert (await clients(password="wrong", level=5)).connack.code == 0x86


@pytest.mark.spec("CT-21", "CT-S13", "G-10")
async def test_wrong_logins_are_refused_with_code_4(clients):
    for user, password in [
        (f"nobody:{DEVICE}", TOKEN),
        (f"acme:{DEVICE}", TOKEN),
        (f"{TENANT}:nobody", TOKEN),
        (USER, "wrong"),
        (USER, ""),
        (USER, None),
        (USER, b"\xff\xfe"),
        (f"{TENANT}:", TOKEN),
        (f":{DEVICE}", TOKEN),
        (":", ":"),
        (f"{USER}:x", TOKEN),
        (f"{TENANT.upper()}:{DEVICE}", TOKEN),
    ]:
        client = await clients(user, password)
        assert client.connack.code == BAD_LOGIN, (user, password)
        assert await client.hear() is None


@pytest.mark.spec("CT-S13", "G-10")
async def test_a_disabled_device_is_refused_with_code_5_and_one_that_is_connected_is_cut_off(site, clients):
    client = await clients()
    await client.subscribe(f"v1/{DEVICE}/commands/+")
    await site.disable()
    assert await client.hear() is None

    async def refused():
        return (await clients()).connack.code == NOT_AUTHORISED

    await until(refused)
    assert (await clients(password="wrong")).connack.code == BAD_LOGIN


@pytest.mark.spec("CT-21", "G-17")
async def test_with_a_new_token_the_old_connection_ends(site, clients):
    client = await clients()
    await stored(client, data(ONE))
    await site.put_device(id=site.device.id, token="another")
    assert await client.hear() is None
    assert (await clients(password="another")).connack.code == 0


async def test_a_change_that_leaves_the_login_alone_leaves_the_connection_alone(site, clients):
    client = await clients()
    await stored(client, data(ONE))  # activates, which is a change
    await site.put_device(id=site.device.id, product="")
    await until(lambda: getattr(site.stack.auth.known(print_of(DEVICE, TOKEN)), "product", "p1") == "")
    await stored(client, data(ONE, 2), data(CUSTOM, 3, ct=""))
    assert len(await site.points()) == 2  # without its product there is no transform function


@pytest.mark.spec("CT-21", "G-29")
async def test_the_client_id_plays_no_part(clients):
    for client_id in ("", "x" * 300, DEVICE, "some:one"):
        client = await clients(client_id=client_id)
        assert client.connack.code == 0
        await stored(client, data(ONE))


@pytest.mark.spec("CT-S13")
async def test_a_topic_that_is_not_the_devices_closes_the_connection(site, clients):
    for topic in [
        "v1/other/data?ct=json",
        f"v1/{DEVICE}x/data",
        f"v1/{DEVICE.lower()}/data",
        f"v1/{DEVICE}/",
        f"v1/{DEVICE}/data/",
        f"v1/{DEVICE}/data/more?ct=json",
        f"v1/{DEVICE}/datax",
        f"v1/{DEVICE}/commands/turn",
        f"v1/{DEVICE}/events/",
        f"v1/{DEVICE}/events",
        f"v1/{DEVICE}/events/a/b",
        f"/v1/{DEVICE}/data",
        "v1/devices/me/telemetry",
        "anything",
    ]:
        client = await clients()
        client.say(data(ONE, topic=topic))
        assert await client.hear() is None, topic
    assert await site.points() == []


@pytest.mark.spec("CT-S10", "CT-S12", "CT-S13")
async def test_bad_data_is_dropped_acknowledged_and_logged_with_its_place(site, clients, caplog):
    caplog.set_level(logging.INFO, "rulemill.mqtt")
    client = await clients()
    cases = [
        *[("json", *each) for each in BAD_JSON],
        *[("cbor", *each) for each in BAD_CBOR],
        *[("proto", *each) for each in BAD_PROTO],
        *[("cbor", ONE_CBOR[:length], "") for length in range(len(ONE_CBOR))],
    ]
    for number, (ct, body, why) in enumerate(cases, 1):
        caplog.clear()
        await stored(client, data(body, number, ct=ct))
        (line,) = [record.getMessage() for record in caplog.records if "dropped" in record.getMessage()]
        assert f"data of device {DEVICE}" in line
        assert why in line
    await site.put_product()

    def heard():
        formats = site.service.products.known(TENANT, "p1")
        return formats is not None and not formats.transforms

    await until(heard)
    caplog.clear()
    await stored(client, data(CUSTOM, 1, ct=""))
    assert "transform function" in caplog.text
    await stored(client, data(ONE, 2))
    assert [point[:2] for point in await site.points()] == [("temp", 36.6)]


@pytest.mark.spec("G-12")
async def test_a_payload_of_256_kib_is_taken_and_a_longer_one_closes(site, clients):
    client = await clients()
    filler = b'{"r":[{"k":"a","v":"%s"}]}'
    fits = filler % (b"x" * (MAX_PAYLOAD_BYTES - len(filler) + 2))
    await stored(client, data(fits))
    client.say(data(fits + b" ", 2))
    assert await client.hear() is None
    assert len(await site.points()) == 1


@pytest.mark.spec("CT-S14")
async def test_the_first_message_that_is_accepted_activates_the_device(site, clients):
    client = await clients()
    await stored(client, data(b"{", 1))
    assert not (await site.stack.registry.find_device(site.device.id)).activated_ms
    await stored(client, data(ONE, 2))

    async def activated():
        return (await site.stack.registry.find_device(site.device.id)).activated_ms

    await until(activated)


async def test_nothing_is_acknowledged_before_it_is_stored(site, clients):
    client = await clients()
    site.stack.ingress.closed_reason = "storage is full"
    client.say(data(ONE))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await client.hear()
    site.stack.ingress.closed_reason = ""
    assert await client.hear() == Puback(1)
    assert len(await site.points()) == 1


@pytest.mark.spec("CT-26", "CT-1", "G-9")
async def test_what_a_device_may_subscribe_to(clients):
    client = await clients()
    for topic_filter, code in [
        (f"v1/{DEVICE}/commands/+", 1),
        (f"v1/{DEVICE}/commands/#", 1),
        (f"v1/{DEVICE}/commands/turn", 1),
        (f"v1/{DEVICE}/responses/+", 1),
        (f"v1/{DEVICE}/commands", 0x80),
        (f"v1/{DEVICE}/commands/", 0x80),
        (f"v1/{DEVICE}/commands/+/x", 0x80),
        (f"v1/{DEVICE}/+/turn", 0x80),
        (f"v1/{DEVICE}/events/+", 0x80),
        (f"v1/{DEVICE}/data", 0x80),
        ("v1/+/commands/+", 0x80),
        ("v1/other/commands/+", 0x80),
        ("#", 0x80),
    ]:
        assert (await client.subscribe(topic_filter, qos=2)).codes == bytes([code]), topic_filter


@pytest.mark.spec("CT-4", "CT-6", "CT-26", "CT-73", "CT-S9")
async def test_commands_come_queued_ones_first_and_then_as_they_are_sent(site, clients):
    for name, payload in (("turn", "ON"), ("set", {"a": 1}), ("raw", {"raw_b64": "/wA="})):
        await site.command(name, payload)
    client = await clients()
    await client.subscribe(f"v1/{DEVICE}/commands/+")
    await site.command("turn", "OFF")
    heard = await client.hear_many(4)
    assert [(each.topic.rpartition("/")[2], each.payload, each.qos) for each in heard] == [
        ("turn", b"ON", 1),
        ("set", b'{"a":1}', 1),
        ("raw", b"\xff\x00", 1),
        ("turn", b"OFF", 1),
    ]
    assert heard[0].topic == f"v1/{DEVICE}/commands/turn"
    again = await clients(client_id="c2")
    await again.subscribe(f"v1/{DEVICE}/commands/+")
    await site.command("last", "1")
    assert (await again.hear()).payload == b"1"


@pytest.mark.spec("CT-73", "CT-S9")
async def test_every_session_that_wants_a_command_gets_it_and_one_that_nobody_wants_waits(site, clients):
    first, second = await clients(client_id="a"), await clients(client_id="b")
    await first.subscribe(f"v1/{DEVICE}/commands/turn", qos=0)
    await second.subscribe(f"v1/{DEVICE}/commands/+")
    await site.command("turn", "ON")
    assert [(each.payload, each.qos) for each in (await first.hear(), await second.hear())] == [(b"ON", 0), (b"ON", 1)]
    await second.close()
    await site.command("other", "1")
    await site.command("a/b", "2")
    await site.command("turn", "OFF")
    assert (await first.hear()).payload == b"OFF"
    late = await clients(client_id="c")
    await late.subscribe(f"v1/{DEVICE}/commands/+")
    assert (await late.hear()).payload == b"1"
    waiting = await site.stack.commands.undelivered(TENANT, site.device.id)
    assert [each.command.name for each in waiting] == ["a/b"]


@pytest.mark.spec("CT-26", "CT-24")
async def test_commands_reach_mosquitto_sub(site):
    await site.command("turn", "ON")
    code, output = await call(
        require("mosquitto_sub"), "-h", "127.0.0.1", "-p", str(site.mqtt_port), "-u", USER, "-P", TOKEN,
        "-t", f"v1/{DEVICE}/commands/+", "-C", "1", "-v", "-W", "10",
    )  # fmt: skip
    assert (code, output) == (0, f"v1/{DEVICE}/commands/turn ON\n".encode())


@pytest.mark.spec("CT-3", "CT-5", "CT-25", "CT-72", "CT-S4")
async def test_the_chains_answer_to_an_event_comes_on_responses(site, clients):
    await site.deploy(answering("return {msg = {n = msg.n + 1, event = metadata.eventId}}"))
    client = await clients()
    await client.subscribe(f"v1/{DEVICE}/responses/+")
    await stored(client, data(b'{"n":1}', 5, topic=f"v1/{DEVICE}/events/open"))
    answer = await client.hear()
    assert answer.topic == f"v1/{DEVICE}/responses/open"
    assert json.loads(answer.payload) == {"n": 2, "event": "open"}


@pytest.mark.spec("CT-6", "CT-25")
async def test_an_event_is_opaque_and_needs_no_answer(site, clients):
    client = await clients()
    await stored(client, data(b"\xff\x00", 5, topic=f"v1/{DEVICE}/events/open"))
    await site.stack.idle()
    await until(lambda: not site.stack.replies.waiting)


@pytest.mark.spec("CT-5", "CT-S4")
async def test_a_device_answers_a_command_and_does_not_hear_itself(site, clients):
    await site.deploy(answering("return {msg = msg}"))
    client = await clients()
    await client.subscribe(f"v1/{DEVICE}/commands/+")
    await client.subscribe(f"v1/{DEVICE}/responses/+")
    with site.stack.replies.wait() as waiting:
        message = site.stack.intake.message(
            site.device, "RPC_CALL_FROM_SERVER_TO_DEVICE", {"method": "turn", "params": "ON"},
            dialect="test", transport="test", ts_ms=1, reply_to=waiting.to,
        )  # fmt: skip
        await site.stack.intake.submit([message])
        command = await client.hear()
        assert command.payload == b"ON"
        await stored(client, data(b'{"was":"OFF"}', 9, topic=f"v1/{DEVICE}/responses/turn"))
        assert (await waiting.next(10)).data == {"was": "OFF"}
    await stored(client, data(ONE, 10))  # and nothing else came in between


@pytest.mark.spec("CT-S9")
async def test_what_could_not_be_marked_as_delivered_is_not_sent_twice(site, clients, monkeypatch):
    from redis.exceptions import ConnectionError as RedisConnectionError

    from api import deliveries

    monkeypatch.setattr(deliveries, "TRY_AGAIN_S", 0.01)
    real, failures = site.stack.commands.delivered, [1, 1]

    async def delivered(*arguments, **named):
        if failures:
            failures.pop()
            raise RedisConnectionError("away")
        await real(*arguments, **named)

    monkeypatch.setattr(site.stack.commands, "delivered", delivered)
    client = await clients()
    await client.subscribe(f"v1/{DEVICE}/commands/+")
    await site.command("turn", "ON")
    await site.command("turn", "OFF")
    assert [each.payload for each in await client.hear_many(2)] == [b"ON", b"OFF"]

    async def none_left():
        return not await site.stack.commands.open(TENANT, site.device.id)

    await until(none_left)
    await stored(client, data(ONE))
