"""The MQTT device API, with the clients that devices use."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiomqtt
import msgspec
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from api.dialects.thingsboard.settings import Settings
from api.transports.mqtt.packets import Puback, Publish
from engine.stores.registry import MQTT_BASIC, Credential
from tests.api.dialects.thingsboard.site import TOKEN, Site
from tests.api.dialects.thingsboard.test_http_polls import answering
from tests.api.dialects.thingsboard.test_http_uploads import FIXTURE, TS, same
from tests.api.stack import TENANT
from tests.api.transports.mqtt.harness import RawClient
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio

ME = "v1/devices/me/"


@asynccontextmanager
async def connected(site: Site, username: str | None = TOKEN, **options: Any) -> AsyncIterator[aiomqtt.Client]:
    async with aiomqtt.Client("127.0.0.1", site.mqtt_port, username=username, timeout=5, **options) as client:
        yield client


async def said(client: aiomqtt.Client) -> tuple[str, Any]:
    """Topic and JSON of the next publication."""
    async with asyncio.timeout(10):
        message = await anext(aiter(client.messages))
    assert isinstance(message.payload, bytes)
    return str(message.topic), msgspec.json.decode(message.payload)


async def subscribed(site: Site, client: aiomqtt.Client, *topics: str) -> None:
    for topic in topics:
        await client.subscribe(topic, qos=1)
    await asyncio.sleep(0.05)


# Logging in


@pytest.mark.spec("TB-X1", "G-10")
async def test_the_user_name_is_the_access_token(site: Site) -> None:
    answers = []
    for username in (TOKEN, "nobody", ""):
        client = await RawClient.open(site.mqtt_port)
        answers.append((await client.login(username=username, client_id="c")).code)
        await client.close()
    assert answers == [0, 5, 5]


@pytest.mark.spec("TB-S40", "G-10")
async def test_a_disabled_device_is_not_authorised(site: Site) -> None:
    await site.registry.put_device(msgspec.structs.replace(site.d1, enabled=False))
    await asyncio.sleep(0.1)
    client = await RawClient.open(site.mqtt_port)
    assert (await client.login(username=TOKEN)).code == 5
    await client.close()


@pytest.mark.spec("TB-X1", "G-9")
@pytest.mark.parametrize(
    ("credential", "good", "bad"),
    [
        (
            Credential(kind=MQTT_BASIC, username="u", value="secret"),
            [("u", "any")],
            [("x", "any")],
        ),
        (
            Credential(kind=MQTT_BASIC, client_id="c", value="secret"),
            [("", "c"), ("whoever", "c")],
            [("whoever", "other")],
        ),
        (
            Credential(kind=MQTT_BASIC, username="u", client_id="c", value="secret"),
            [("u", "c")],
            [("u", "other"), ("x", "c")],
        ),
    ],
)
async def test_mqtt_basic(site: Site, credential: Credential, good: Any, bad: Any) -> None:
    await site.device("d2", credentials=[credential])
    for pairs, wanted in ((good, 0), (bad, 5)):
        for username, client_id in pairs:
            client = await RawClient.open(site.mqtt_port)
            # The harness's password is "secret".
            assert (await client.login(username=username, client_id=client_id)).code == wanted
            await client.close()
    await site.registry.put_device(
        await site.registry.device(TENANT, "d2"), [msgspec.structs.replace(credential, value="another")]
    )
    await asyncio.sleep(0.1)
    for username, client_id in good:
        client = await RawClient.open(site.mqtt_port)
        assert (await client.login(username=username, client_id=client_id)).code == 5
        await client.close()


async def test_a_revoked_token_ends_the_session(site: Site) -> None:
    client = await RawClient.open(site.mqtt_port)
    assert (await client.login(username=TOKEN)).code == 0
    await site.registry.delete_device(TENANT, site.d1.id)
    assert await client.hear() is None
    await client.close()


# Uploads


@pytest.mark.spec("TB-X1", "TB-6", "TB-8", "TB-12")
@pytest.mark.parametrize("topic", [ME + "telemetry", "v2/t", "v2/t/j"])
@pytest.mark.parametrize("qos", [0, 1])
async def test_telemetry(site: Site, topic: str, qos: int) -> None:
    async with connected(site) as client:
        await client.publish(topic, json.dumps({"ts": TS, "values": FIXTURE}), qos)
        await client.publish(topic, "{temperature:42,humidity:73}", qos)
        await client.publish(topic, '[{"a":1},{"b":2}]', 1)
    wanted = {**FIXTURE, "temperature": 42, "humidity": 73, "a": 1, "b": 2}
    assert same(await site.latest(site.d1), wanted)


@pytest.mark.spec("TB-13", "G-18", "G-20")
async def test_the_acknowledgement_comes_after_storing(redis_url: str) -> None:
    async with Site(redis_url, work=False) as site, connected(site) as client:
        await client.publish(ME + "telemetry", '{"a":1}', 1)
        [message] = await site.messages()
        assert message.type == "POST_TELEMETRY_REQUEST"
        common = {"dialect": "tb", "transport": "mqtt", "deviceName": "d1", "deviceType": "default"}
        assert message.metadata == {**common, "ts": str(message.ts_ms)}


@pytest.mark.spec("G-22")
async def test_a_burst_keeps_its_order_and_no_two_times_are_the_same(redis_url: str) -> None:
    async with Site(redis_url, work=False) as site, connected(site) as client:
        await asyncio.gather(*[client.publish(ME + "telemetry", f'{{"n":{n}}}', 1) for n in range(200)])
        messages = await site.messages()
        assert [message.data["n"] for message in messages] == list(range(200))
        times = [message.ts_ms for message in messages]
        assert times == sorted(set(times))


@pytest.mark.spec("TB-X1", "TB-15")
@pytest.mark.parametrize("topic", [ME + "attributes", "v2/a", "v2/a/j"])
async def test_attributes(site: Site, topic: str) -> None:
    async with connected(site) as client:
        await client.publish(topic, '{"attribute1":"value1","attribute2":true}', 1)
    assert (await site.attributes_of(site.d1))["CLIENT"] == {"attribute1": "value1", "attribute2": True}


@pytest.mark.spec("TB-X1", "TB-20", "TB-S12")
@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (ME + "attributes/request/", ME + "attributes/response/"),
        ("v2/a/req/", "v2/a/res/"),
        ("v2/a/req/j/", "v2/a/res/j/"),
    ],
)
async def test_asking_for_attributes(site: Site, ask: str, answer: str) -> None:
    for scope in ("CLIENT", "SHARED", "SERVER"):
        await site.attributes.write(TENANT, site.d1.id, scope, {"a": scope, "b": 1})
    everything = {"client": {"a": "CLIENT", "b": 1}, "shared": {"a": "SHARED", "b": 1}}
    async with connected(site) as client:
        await subscribed(site, client, answer + "+")
        for id, (body, wanted) in enumerate(
            [
                ('{"clientKeys":"a,x","sharedKeys":"b"}', {"client": {"a": "CLIENT"}, "shared": {"b": 1}}),
                ('{"sharedKeys":"a"}', {"shared": {"a": "SHARED"}}),
                ('{"clientKeys":"x"}', {}),
                ("{}", everything),
                ("", everything),
            ]
        ):
            await client.publish(f"{ask}{id}", body, 1)
            assert await said(client) == (f"{answer}{id}", wanted)


@pytest.mark.spec("TB-X1", "TB-34", "TB-S19")
@pytest.mark.parametrize("topic", [ME + "attributes", "v2/a", "v2/a/j"])
async def test_changes_of_shared_attributes(site: Site, topic: str) -> None:
    async with connected(site) as client:
        await subscribed(site, client, topic)
        await site.attributes.write(TENANT, site.d1.id, "CLIENT", {"own": 1})
        await site.attributes.write(TENANT, site.d1.id, "SHARED", {"a": 1, "b": 42.0})
        assert same(await said(client), (topic, {"a": 1, "b": 42.0}))
        await site.attributes.delete(TENANT, site.d1.id, "SHARED", ["a", "b"])
        assert await said(client) == (topic, {"deleted": ["a", "b"]})
        await client.unsubscribe(topic)
        await site.attributes.write(TENANT, site.d1.id, "SHARED", {"unheard": 1})
        await subscribed(site, client, topic)
        await site.attributes.write(TENANT, site.d1.id, "SHARED", {"heard": 1})
        assert await said(client) == (topic, {"heard": 1})


@pytest.mark.spec("TB-X1", "G-11")
async def test_changes_while_a_persistent_client_is_away_are_told_when_it_is_back(site: Site) -> None:
    topic = ME + "attributes"
    options = {"identifier": "kept", "clean_session": False}
    await site.attributes.write(TENANT, site.d1.id, "SHARED", {"before": 1})
    await asyncio.sleep(0.01)
    async with connected(site, **options) as client:
        await subscribed(site, client, topic)
    await asyncio.sleep(0.05)
    await site.attributes.write(TENANT, site.d1.id, "SHARED", {"away": 1})
    async with connected(site, **options) as client:
        assert await said(client) == (topic, {"away": 1})
        await site.attributes.write(TENANT, site.d1.id, "SHARED", {"back": 1})
        assert await said(client) == (topic, {"back": 1})


# Commands and calls


@pytest.mark.spec("TB-X1", "TB-41", "TB-42", "TB-S20")
@pytest.mark.parametrize(
    ("ask", "answer"),
    [(ME + "rpc/request/", ME + "rpc/response/"), ("v2/r/req/", "v2/r/res/"), ("v2/r/req/j/", "v2/r/res/j/")],
)
async def test_a_command_and_its_answer(site: Site, ask: str, answer: str) -> None:
    async with connected(site) as client:
        await subscribed(site, client, ask + "+")
        operator = await site.command("setGpio", {"pin": "23", "value": 1})
        assert await said(client) == (ask + "1", {"method": "setGpio", "params": {"pin": "23", "value": 1}})
        await client.publish(answer + "1", '{"result":"ok"}', 1)
        got = await operator.next(5)
        assert got.data == {"result": "ok"}
        operator.__exit__()


@pytest.mark.spec("TB-X1", "TB-42", "TB-S21")
async def test_answers_and_questions_are_acknowledged_when_they_are_done(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And done again while Redis is away, before anything that the device says later."""
    failures = [1]
    for owner, name in ((site.commands, "answer"), (site.attributes, "read")):
        monkeypatch.setattr(owner, name, failing_once(getattr(owner, name), failures))
    async with connected(site) as client:
        await subscribed(site, client, ME + "rpc/request/+", ME + "attributes/response/+")
        operator = await site.command("turn", {})
        await said(client)
        telemetry = asyncio.create_task(client.publish(ME + "telemetry", '{"a":1}', 1))
        await client.publish(ME + "rpc/response/1", '{"done":1}', 1)
        assert failures == []
        assert (await operator.next(5)).data == {"done": 1}
        operator.__exit__()
        await client.publish(ME + "rpc/response/1", '{"too":"late"}', 1)
        await client.publish(ME + "attributes/request/1", "{}", 1)
        assert (await said(client))[0] == ME + "attributes/response/1"
        await telemetry


def failing_once(real: Any, failures: list[int]) -> Any:
    """The call, which finds Redis away as often as there are failures left."""

    async def call(*args: Any) -> Any:
        if failures:
            failures.pop()
            raise RedisConnectionError("away")
        return await real(*args)

    return call


@pytest.mark.spec("TB-X1", "G-11")
async def test_nothing_is_retained(site: Site) -> None:
    async with connected(site) as client:
        await client.publish(ME + "telemetry", '{"a":1}', 1, retain=True)
        await client.publish(ME + "attributes", '{"own":1}', 1, retain=True)
    assert await site.latest(site.d1) == {"a": 1}
    async with connected(site) as client:
        await subscribed(site, client, ME + "attributes")
        await site.attributes.write(TENANT, site.d1.id, "SHARED", {"shared": 1})
        assert await said(client) == (ME + "attributes", {"shared": 1})


@pytest.mark.spec("TB-X1", "TB-S17")
async def test_commands_wait_for_the_device_and_come_once_in_their_order(site: Site) -> None:
    for method in ("a", "b"):
        await site.command(method, {})
        await site.idle()
    topic = ME + "rpc/request/+"
    async with connected(site, identifier="x") as client:
        await subscribed(site, client, topic)
        assert [(await said(client))[1]["method"] for _ in range(2)] == ["a", "b"]
    async with connected(site, identifier="x") as client:
        await subscribed(site, client, topic)
        for method in ("c", "d", "e"):
            await site.command(method, {}, oneway=True)
        assert [await said(client) for _ in range(3)] == [
            (f"{ME}rpc/request/{id}", {"method": method, "params": {}}) for id, method in ((3, "c"), (4, "d"), (5, "e"))
        ]
    await until(lambda: _left(site, 2))


async def _left(site: Site, count: int) -> bool:
    return len(await site.commands.open(TENANT, site.d1.id)) == count


async def test_what_the_bus_did_not_tell_is_given_when_it_is_back(site: Site) -> None:
    async with connected(site) as client:
        await subscribed(site, client, ME + "rpc/request/+", ME + "attributes")
        await site.live.stop()
        await site.command("unheard", {})
        await site.attributes.write(TENANT, site.d1.id, "SHARED", {"unheard": 1})
        await site.idle()
        await site.live.start()
        site.live._tell_lost()
        assert {json.dumps((await said(client))[1]) for _ in range(2)} == {
            '{"method": "unheard", "params": {}}',
            '{"unheard": 1}',
        }


@pytest.mark.spec("TB-X1", "TB-45", "TB-46")
async def test_a_call_is_answered_by_the_chain(site: Site) -> None:
    await site.deploy(answering("lua", "return {msg = {got = msg.params.n}}"))
    async with connected(site) as client:
        await subscribed(site, client, ME + "rpc/response/+", "v2/r/res/+")
        await client.publish(ME + "rpc/request/7", '{"method":"m","params":{"n":1}}', 1)
        assert await said(client) == (ME + "rpc/response/7", {"got": 1})
        await client.publish("v2/r/req/8", '{"method":"m","params":{"n":2}}', 1)
        assert await said(client) == ("v2/r/res/8", {"got": 2})
        await subscribed(site, client, "v2/r/res/j/+")
        await client.publish("v2/r/req/j/9", '{"method":"m","params":{"n":3}}', 1)
        assert await said(client) == ("v2/r/res/j/9", {"got": 3})


@pytest.mark.spec("TB-S22")
async def test_a_call_without_an_answer_is_told_so(redis_url: str) -> None:
    async with Site(redis_url, settings=Settings(rpc_s=0.2)) as site, connected(site) as client:
        await subscribed(site, client, ME + "rpc/response/+")
        await client.publish(ME + "rpc/request/1", '{"method":"m","params":{}}', 1)
        assert await said(client) == (ME + "rpc/response/1", {"error": "timeout"})
        assert site.replies.waiting == {}


async def test_who_leaves_waits_for_nothing(site: Site) -> None:
    async with connected(site) as client:
        await client.publish(ME + "rpc/request/1", '{"method":"m","params":{}}', 1)
        assert len(site.replies.waiting) == 1
    await until(lambda: not site.replies.waiting)


@pytest.mark.spec("TB-X1")
async def test_what_the_vendors_sdk_does_after_connecting(redis_url: str) -> None:
    async with Site(redis_url, work=False) as site, connected(site) as client:
        topics = ("attributes", "attributes/response/+", "rpc/request/+", "rpc/response/+")
        await subscribed(site, client, *[ME + topic for topic in topics])
        await client.publish(ME + "rpc/request/1", '{"method":"getSessionLimits","params":{"timeout":5000}}', 1)
        limits = {"maxPayloadSize": 65536, "maxInflightMessages": 100, "rateLimits": {}}
        assert await said(client) == (ME + "rpc/response/1", limits)
        assert await site.messages() == []


# What is wrong

CLOSED = [
    (ME + "telemetry", "{"),
    (ME + "telemetry", ""),
    (ME + "telemetry", "5"),
    (ME + "telemetry", '{"":1}'),
    (ME + "telemetry", b"\xff"),
    (ME + "telemetry", '{"ts":"1","values":{}}'),
    (ME + "attributes", "[]"),
    ("v2/t", "["),
    ("v2/a", "1"),
    (ME + "attributes/request/x", "{}"),
    (ME + "attributes/request/", "{}"),
    (ME + "attributes/request/1", "[]"),
    (ME + "attributes/request/1", '{"clientKeys":1}'),
    (ME + "rpc/request/1", "{}"),
    (ME + "rpc/request/-1", '{"method":"a","params":1}'),
    (ME + "rpc/request/1111111111111111111", '{"method":"a","params":1}'),
    (ME + "rpc/response/1", "{"),
    (ME + "nothing", "{}"),
    ("v1/devices/other/telemetry", "{}"),
    ("v1/gateway/telemetry", "{}"),
    ("v2/x", "{}"),
    ("anything", "{}"),
]


@pytest.mark.spec("TB-X1", "G-10", "TB-S4", "TB-S5")
async def test_what_cannot_be_read_or_is_not_the_devices_closes_the_connection(redis_url: str) -> None:
    async with Site(redis_url, work=False) as site:
        for topic, body in CLOSED:
            client = await RawClient.open(site.mqtt_port)
            await client.login(username=TOKEN)
            payload = body if isinstance(body, bytes) else body.encode()
            client.say(Publish(topic, payload, 1, 1, False, False))
            assert await client.hear() is None, (topic, body)
            await client.close()
        assert await site.messages() == []


@pytest.mark.spec("G-12")
async def test_a_payload_that_is_too_long_closes_the_connection(redis_url: str) -> None:
    async with Site(redis_url, work=False) as site:
        for size, closes in ((65_536, False), (65_537, True)):
            client = await RawClient.open(site.mqtt_port)
            await client.login(username=TOKEN)
            body = b'{"a":"' + b"x" * (size - 8) + b'"}'
            client.say(Publish(ME + "telemetry", body, 1, 1, False, False))
            assert (await client.hear() is None) == closes
            await client.close()
        assert len(await site.messages()) == 1


@pytest.mark.spec("G-10")
@pytest.mark.parametrize(
    ("topic", "granted"),
    [
        (ME + "attributes", 1),
        (ME + "rpc/request/+", 1),
        (ME + "rpc/request/#", 1),
        (ME + "rpc/response/1", 1),
        ("v2/a/res/+", 1),
        ("#", 128),
        ("v1/#", 128),
        (ME + "#", 128),
        (ME + "telemetry", 128),
        ("v1/devices/other/attributes", 128),
        ("v1/devices/+/attributes", 128),
        ("v1/gateway/rpc", 128),
    ],
)
async def test_what_may_be_subscribed_to(redis_url: str, topic: str, granted: int) -> None:
    async with Site(redis_url, work=False) as site:
        client = await RawClient.open(site.mqtt_port)
        await client.login(username=TOKEN)
        assert (await client.subscribe(topic, 2)).codes == bytes([granted])
        await client.close()


@pytest.mark.spec("TB-X1")
async def test_a_device_gets_answers_that_it_did_not_subscribe_to(site: Site) -> None:
    """As by the vendor's server; what was not asked for needs a subscription."""
    client = await RawClient.open(site.mqtt_port)
    await client.login(username=TOKEN)
    await site.command("unasked", {})
    await site.attributes.write(TENANT, site.d1.id, "SHARED", {"a": 1})
    client.say(Publish(ME + "attributes/request/1", b"{}", 0, 0, False, False))
    client.say(Publish(ME + "rpc/request/2", b'{"method":"getSessionLimits","params":{}}', 0, 0, False, False))
    answers = [await client.hear() for _ in range(2)]
    topics = {answer.topic for answer in answers if isinstance(answer, Publish)}
    assert topics == {ME + "attributes/response/1", ME + "rpc/response/2"}
    await client.close()


async def test_a_device_has_so_many_sessions_and_the_oldest_ends(redis_url: str) -> None:
    async with Site(redis_url, work=False, settings=Settings(max_sessions=2)) as site:
        clients = []
        for number in range(3):
            clients.append(await RawClient.open(site.mqtt_port))
            assert (await clients[-1].login(username=TOKEN, client_id=f"c{number}")).code == 0
        assert await clients[0].hear() is None
        for client in clients[1:]:
            client.say(Publish(ME + "telemetry", b'{"a":1}', 1, 1, False, False))
            assert isinstance(await client.hear(), Puback)
        for client in clients:
            await client.close()


async def test_too_many_questions_at_once_close_the_connection(site: Site) -> None:
    client = await RawClient.open(site.mqtt_port)
    await client.login(username=TOKEN)
    body = b'{"method":"m","params":{}}'
    client.say(*[Publish(f"{ME}rpc/request/{i}", body, 0, 0, False, False) for i in range(101)])
    assert await client.hear() is None
    await until(lambda: not site.replies.waiting)
    await client.close()
