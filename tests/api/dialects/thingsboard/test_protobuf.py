"""Protocol Buffers on the topics that end with `/p`, and wherever a product says so."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiomqtt
import msgspec
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from api.dialects.thingsboard.payload import Payloads
from api.dialects.thingsboard.protobuf import Proto
from api.dialects.thingsboard.settings import Settings
from api.flow.facets import check_facets
from api.transports.mqtt.packets import Publish
from engine.errors import BadInput
from engine.node import Product
from nodes.codecs.values import check_value
from tests.api.dialects.thingsboard.site import TOKEN, Site
from tests.api.dialects.thingsboard.test_http_polls import answering
from tests.api.dialects.thingsboard.test_http_uploads import FIXTURE, TS, same
from tests.api.dialects.thingsboard.test_mqtt import ME, connected, said, subscribed
from tests.api.stack import TENANT
from tests.api.transports.mqtt.harness import RawClient
from tests.engine.toy import until
from tests.nodes.codecs.definitions import Field, field, file, message_class, serialized

MSG, TEXT, INT32, INT64 = Field.TYPE_MESSAGE, Field.TYPE_STRING, Field.TYPE_INT32, Field.TYPE_INT64


def transport() -> bytes:
    """The messages of ThingsBoard's own transport that devices exchange with it, with its names and numbers."""
    made = file("transport.proto", package="transport")
    kind = made.enum_type.add(name="KeyValueType")
    for number, name in enumerate(("BOOLEAN_V", "LONG_V", "DOUBLE_V", "STRING_V", "JSON_V")):
        kind.value.add(name=name, number=number)

    def message(name: str, *fields: Field) -> None:
        made.message_type.add(name=name).field.extend(fields)

    message(
        "KeyValueProto",
        field("key", 1, TEXT), field("type", 2, Field.TYPE_ENUM, type_name=".transport.KeyValueType"),
        field("bool_v", 3, Field.TYPE_BOOL), field("long_v", 4, INT64), field("double_v", 5, Field.TYPE_DOUBLE),
        field("string_v", 6, TEXT), field("json_v", 7, TEXT),
    )  # fmt: skip
    message("TsKvProto", field("ts", 1, INT64), field("kv", 2, MSG, type_name=".transport.KeyValueProto"))
    message("TsKvListProto", field("ts", 1, INT64), repeating("kv", 2, "KeyValueProto"))
    message("PostTelemetryMsg", repeating("tsKvList", 1, "TsKvListProto"))
    message("PostAttributeMsg", repeating("kv", 1, "KeyValueProto"))
    message("AttributesRequest", field("clientKeys", 1, TEXT), field("sharedKeys", 2, TEXT))
    message(
        "GetAttributeResponseMsg", field("requestId", 1, INT32), repeating("clientAttributeList", 2, "TsKvProto"),
        repeating("sharedAttributeList", 3, "TsKvProto"),
    )  # fmt: skip
    message(
        "AttributeUpdateNotificationMsg", repeating("sharedUpdated", 1, "TsKvProto"),
        field("sharedDeleted", 2, TEXT, repeated=True),
    )  # fmt: skip
    message("RpcRequest", field("method", 1, TEXT), field("params", 2, TEXT))
    for name in ("ToDeviceRpcRequestMsg", "ToServerRpcResponseMsg", "ToDeviceRpcResponseMsg"):
        second, third = ("methodName", "params") if "Request" in name else ("payload", "error")
        message(name, field("requestId", 1, INT32), field(second, 2, TEXT), field(third, 3, TEXT))
    return serialized(made)


def repeating(name: str, number: int, type_name: str) -> Field:
    return field(name, number, MSG, type_name=f".transport.{type_name}", repeated=True)


TRANSPORT = transport()


def theirs(name: str, **fields: Any) -> Any:
    """A message of the transport."""
    return message_class(TRANSPORT, f"transport.{name}")(**fields)


def key_value(key: str, value: Any) -> dict[str, Any]:
    names = {bool: ("bool_v", 0), int: ("long_v", 1), float: ("double_v", 2), str: ("string_v", 3)}
    name, kind = names.get(type(value), ("json_v", 4))
    return {"key": key, "type": kind, name: msgspec.json.encode(value).decode() if kind == 4 else value}


def values_of(items: Any) -> dict[str, Any]:
    """The values of a list of `TsKvProto`."""
    found = {}
    for each in items:
        name = ("bool_v", "long_v", "double_v", "string_v", "json_v")[each.kv.type]
        value = getattr(each.kv, name)
        found[each.kv.key] = msgspec.json.decode(value) if name == "json_v" else value
    return found


async def heard(client: aiomqtt.Client, name: str) -> tuple[str, Any]:
    """Topic of the next publication, and the message of that type in it."""
    async with asyncio.timeout(10):
        message = await anext(aiter(client.messages))
    assert isinstance(message.payload, bytes)
    return str(message.topic), message_class(TRANSPORT, f"transport.{name}").FromString(message.payload)


# Without a word of the product: the platform's own messages


@pytest.mark.asyncio
@pytest.mark.spec("TB-X1", "TB-4")
async def test_uploads_in_the_platforms_messages(site: Site) -> None:
    values = [key_value(key, value) for key, value in FIXTURE.items()]
    async with connected(site) as client:
        one = theirs("TsKvListProto", ts=TS, kv=values)
        await client.publish("v2/t/p", one.SerializeToString(), 1)
        now = theirs("TsKvListProto", kv=[key_value("now", 1)])
        await client.publish("v2/t/p", now.SerializeToString(), 1)
        several = [{"ts": TS + 1, "kv": [key_value("a", 1)]}, {"kv": [key_value("b", 42.0)]}]
        await client.publish("v2/t/p", theirs("PostTelemetryMsg", tsKvList=several).SerializeToString(), 1)
        await client.publish("v2/a/p", theirs("PostAttributeMsg", kv=values).SerializeToString(), 1)
        await client.publish("v2/t/p", b"", 1)
    assert same(await site.latest(site.d1), {**FIXTURE, "now": 1, "a": 1, "b": 42.0})
    times = {key: ts_ms for key, ts_ms, _ in await site.points(site.d1)}
    assert {key: times[key] - TS for key in (*FIXTURE, "a")} == {**dict.fromkeys(FIXTURE, 0), "a": 1}
    assert same((await site.attributes_of(site.d1))["CLIENT"], FIXTURE)


@pytest.mark.asyncio
@pytest.mark.spec("TB-X1", "TB-S12")
async def test_attributes_are_asked_for_and_told_in_the_platforms_messages(site: Site) -> None:
    for scope in ("CLIENT", "SHARED", "SERVER"):
        await site.attributes.write(TENANT, site.d1.id, scope, {**FIXTURE, "scope": scope})
    async with connected(site) as client:
        await subscribed(site, client, "v2/a/res/p/+", "v2/a/p")
        asked = theirs("AttributesRequest", clientKeys="scope,longKey,none", sharedKeys="jsonKey")
        await client.publish("v2/a/req/p/7", asked.SerializeToString(), 1)
        topic, answer = await heard(client, "GetAttributeResponseMsg")
        assert (topic, answer.requestId) == ("v2/a/res/p/7", 7)
        assert values_of(answer.clientAttributeList) == {"scope": "CLIENT", "longKey": 73}
        assert values_of(answer.sharedAttributeList) == {"jsonKey": FIXTURE["jsonKey"]}
        assert all(each.ts > TS for each in answer.clientAttributeList)
        await client.publish("v2/a/req/p/8", b"", 1)
        answer = (await heard(client, "GetAttributeResponseMsg"))[1]
        assert same(values_of(answer.clientAttributeList), {**FIXTURE, "scope": "CLIENT"})
        assert same(values_of(answer.sharedAttributeList), {**FIXTURE, "scope": "SHARED"})
        await site.attributes.write(TENANT, site.d1.id, "SHARED", {"a": 1, "b": [True]})
        topic, update = await heard(client, "AttributeUpdateNotificationMsg")
        assert (topic, values_of(update.sharedUpdated)) == ("v2/a/p", {"a": 1, "b": [True]})
        await site.attributes.delete(TENANT, site.d1.id, "SHARED", ["a", "b"])
        update = (await heard(client, "AttributeUpdateNotificationMsg"))[1]
        assert list(update.sharedDeleted) == ["a", "b"]


@pytest.mark.asyncio
@pytest.mark.spec("TB-X1", "TB-42", "TB-45", "TB-S22")
async def test_calls_in_both_directions_in_the_platforms_messages(site: Site) -> None:
    await site.deploy(answering("lua", "return {msg = {got = msg.params.n}}"))
    async with connected(site) as client:
        await subscribed(site, client, "v2/r/res/p/+", "v2/r/req/p/+")
        for method, params, wanted in (("m", '{"n":7}', {"got": 7}), ("getSessionLimits", "", None)):
            await client.publish(
                "v2/r/req/p/3", theirs("RpcRequest", method=method, params=params).SerializeToString(), 1
            )
            topic, answer = await heard(client, "ToServerRpcResponseMsg")
            assert (topic, answer.requestId, answer.error) == ("v2/r/res/p/3", 3, "")
            payload = msgspec.json.decode(answer.payload)
            assert payload == wanted if wanted else payload["maxPayloadSize"] == 65536
    await site.deploy({"chain": "root", "start": "call", "nodes": {"call": {"kind": "rpc_request"}}})
    async with connected(site) as client:
        await subscribed(site, client, "v2/r/req/p/+")
        operator = await site.command("turn", {"on": True})
        topic, told = await heard(client, "ToDeviceRpcRequestMsg")
        assert (topic, told.requestId, told.methodName, told.params) == ("v2/r/req/p/1", 1, "turn", '{"on":true}')
        answered = theirs("ToDeviceRpcResponseMsg", requestId=1, payload='{"done":1}')
        await client.publish("v2/r/res/p/1", answered.SerializeToString(), 1)
        assert (await operator.next(5)).data == {"done": 1}
        operator.__exit__()


# A product's own messages


def sensor() -> dict[str, dict[str, str]]:
    """The definitions of a product by use."""
    made = file("sensor.proto", package="sensor")

    def message(name: str, *fields: Field) -> None:
        made.message_type.add(name=name).field.extend(fields)

    message("Inner", field("inner_level", 1, INT32))
    message(
        "Telemetry", field("battery_level", 1, INT64), field("serial_number", 2, TEXT),
        field("inner", 3, MSG, type_name=".sensor.Inner"),
    )  # fmt: skip
    message("Timed", field("ts", 1, INT64), field("values", 2, MSG, type_name=".sensor.Telemetry"))
    message("Attributes", field("firmware_version", 1, TEXT))
    message("Request", field("method", 1, TEXT), field("requestId", 2, INT32), field("params", 3, TEXT))
    message("Strict", field("method", 1, TEXT), field("params", 2, INT32))
    message("Response", field("payload", 1, TEXT))
    descriptors = serialized(made)
    return {
        name: {"descriptor_set_b64": base64.b64encode(descriptors).decode(), "message": f"sensor.{message}"}
        for name, message in (
            ("telemetry", "Telemetry"), ("timed", "Timed"), ("attributes", "Attributes"), ("rpc_request", "Request"),
            ("strict", "Strict"), ("rpc_response", "Response"),
        )
    }  # fmt: skip


SENSOR = sensor()
OWN = {name: SENSOR[name] for name in ("telemetry", "attributes", "rpc_request", "rpc_response")}


def ours(name: str, **fields: Any) -> bytes:
    definition = base64.b64decode(SENSOR["telemetry"]["descriptor_set_b64"])
    return bytes(message_class(definition, f"sensor.{name}")(**fields).SerializeToString())


async def product(site: Site, **facet: Any) -> None:
    facets = {"mqtt_protobuf": facet}
    assert check_facets(facets) == []
    await site.registry.put_product(Product(id="p1", tenant=TENANT, facets=facets))


@pytest_asyncio.fixture
async def sensor_site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        await product(site, **OWN)
        await site.registry.put_device(msgspec.structs.replace(site.d1, product="p1"))
        yield site


@pytest.mark.asyncio
@pytest.mark.spec("TB-X1")
async def test_a_product_has_messages_of_its_own(sensor_site: Site) -> None:
    site = sensor_site
    async with connected(site) as client:
        telemetry = {"battery_level": 7, "serial_number": "42", "inner": {"inner_level": 5}}
        await client.publish("v2/t/p", ours("Telemetry", **telemetry), 1)
        await client.publish("v2/a/p", ours("Attributes", firmware_version="v1"), 1)
        # Other topics stay JSON.
        await client.publish(ME + "telemetry", '{"json":1}', 1)
        await client.publish("v2/t", '{"json2":1}', 1)
        await client.publish("v2/t/j", '{"json3":1}', 1)
        await subscribed(site, client, "v2/r/req/p/+")
        operator = await site.command("turn", {"on": True})
        async with asyncio.timeout(10):
            told = await anext(aiter(client.messages))
        assert told.payload == ours("Request", method="turn", requestId=1, params='{"on":true}')
        await client.publish("v2/r/res/p/1", ours("Response", payload="done"), 1)
        assert (await operator.next(5)).data == {"payload": "done"}
        operator.__exit__()
    values = {"batteryLevel": 7, "serialNumber": 42, "inner": {"innerLevel": 5}, "json": 1, "json2": 1, "json3": 1}
    assert same(await site.latest(site.d1), values)
    assert (await site.attributes_of(site.d1))["CLIENT"] == {"firmwareVersion": "v1"}


@pytest.mark.asyncio
@pytest.mark.spec("TB-X1", "TB-8")
async def test_a_changed_product_counts_from_the_next_publication(sensor_site: Site) -> None:
    site = sensor_site
    async with connected(site) as client:
        await client.publish("v2/t/p", ours("Telemetry", battery_level=1), 1)
        await product(site, telemetry=SENSOR["timed"], default=True)
        await until(lambda: _is_forgotten(site))
        body = ours("Timed", ts=TS, values={"battery_level": 2})
        await client.publish(ME + "telemetry", body, 1)
        await site.idle()
        page = await site.store.range(TENANT, [site.d1.id], ["batteryLevel"], TS, TS + 1)
        assert [(point.ts_ms, point.value) for point in page.points] == [(TS, 2)]
        await product(site)
        await until(lambda: _is_forgotten(site))
        await client.publish(ME + "telemetry", '{"json":1}', 1)
    assert (await site.latest(site.d1))["json"] == 1


async def _is_forgotten(site: Site) -> bool:
    return not isinstance(site.auth.known_product(TENANT, "p1"), Product)


@pytest.mark.asyncio
@pytest.mark.spec("TB-X1")
async def test_all_topics_may_be_protocol_buffers_and_json_too(sensor_site: Site) -> None:
    site = sensor_site
    await product(site, default=True, json_too=True, json_downlinks=True, **OWN)
    async with connected(site) as client:
        await client.publish(ME + "telemetry", ours("Telemetry", battery_level=1), 1)
        await client.publish("v2/t", '{"json":1}', 1)
        await subscribed(site, client, ME + "rpc/request/+", "v2/a/p", ME + "attributes/response/+")
        await site.command("turn", 1, oneway=True)
        assert await said(client) == (ME + "rpc/request/1", {"method": "turn", "params": 1})
        await client.publish(ME + "attributes/request/1", '{"sharedKeys":"x"}', 1)
        assert await said(client) == (ME + "attributes/response/1", {})
        await site.attributes.write(TENANT, site.d1.id, "SHARED", {"a": 1})
        assert (await heard(client, "AttributeUpdateNotificationMsg"))[0] == "v2/a/p"
    assert await site.latest(site.d1) == {"batteryLevel": 1, "serialNumber": "", "json": 1}


@pytest.mark.asyncio
async def test_a_command_that_does_not_fit_its_message_stays_and_is_told_of(
    sensor_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site = sensor_site
    await product(site, rpc_request=SENSOR["strict"])
    async with connected(site) as client:
        await subscribed(site, client, "v2/r/req/p/+")
        await site.command("turn", "no number")
        await until(lambda: "command 1 of device" in caplog.text)
        assert [entry.command.delivered for entry in await site.commands.open(TENANT, site.d1.id)] == [False]
        await site.command("turn", 5)
        async with asyncio.timeout(10):
            assert (await anext(aiter(client.messages))).payload == ours("Strict", method="turn", params=5)


# What is wrong


@pytest.mark.asyncio
@pytest.mark.spec("TB-X1", "G-10")
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    "topic", ["v2/t/p", "v2/a/p", "v2/a/req/p/1", "v2/r/req/p/1", "v2/r/res/p/1", "v2/t/x", "v2/a/req/x/1", "v2/t/p/1"]
)
async def test_what_is_no_message_closes_the_connection(redis_url: str, topic: str, own: bool) -> None:
    async with Site(redis_url, work=False) as site:
        if own:
            await product(site, **OWN)
            await site.registry.put_device(msgspec.structs.replace(site.d1, product="p1"))
        client = await RawClient.open(site.mqtt_port)
        await client.login(username=TOKEN)
        client.say(Publish(topic, b"\xff\xff\xff", 1, 1, False, False))
        assert await client.hear() is None
        assert await site.messages() == []
        await client.close()


@pytest.mark.parametrize(
    ("facet", "pointer"),
    [
        (5, "/mqtt_protobuf"),
        ({"unknown": 1}, "/mqtt_protobuf"),
        ({"default": "yes"}, "/mqtt_protobuf/default"),
        ({"telemetry": {"message": "x"}}, "/mqtt_protobuf/telemetry"),
        ({"telemetry": {"message": "x", "descriptor_set_b64": "!"}}, "/mqtt_protobuf/telemetry/descriptor_set_b64"),
        ({"attributes": {**SENSOR["attributes"], "message": "sensor.None"}}, "/mqtt_protobuf/attributes"),
        ({"rpc_request": {**SENSOR["attributes"], "descriptor_set_b64": "AAAA"}}, "/mqtt_protobuf/rpc_request"),
    ],
)
def test_a_facet_that_does_not_hold_is_told_where_it_is_written(facet: Any, pointer: str) -> None:
    assert [finding.pointer for finding in check_facets({"mqtt_protobuf": facet})] == [pointer]


@pytest.mark.asyncio
async def test_a_definition_that_does_not_build_leaves_json_alone(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot be written by the management API; this is for what was written before that looked at it."""
    async with Site(redis_url) as site:
        facets = {"mqtt_protobuf": {"telemetry": {"message": "x", "descriptor_set_b64": "!"}}}
        await site.registry.put_product(Product(id="p1", tenant=TENANT, facets=facets))
        await site.registry.put_device(msgspec.structs.replace(site.d1, product="p1"))
        async with connected(site) as client:
            await client.publish(ME + "telemetry", '{"a":1}', 1)
        assert await site.latest(site.d1) == {"a": 1}
        assert "product p1: " in caplog.text


PROTO = Proto(None, Payloads(Settings()))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    readers: list[Callable[[bytes], Any]] = [
        lambda body: list(dict(PROTO.telemetry(body)).values()),
        PROTO.attributes,
        PROTO.call,
        PROTO.answer,
        PROTO.wanted,
    ]
    for read in readers:
        with contextlib.suppress(BadInput):
            found = read(body)
            check_value(list(found) if type(found) is tuple else found)


def test_kinds_of_values_that_are_not_known_are_refused() -> None:
    for fields in (
        {"type": 0, "key": ""},
        {"type": 4, "key": "a", "json_v": "["},
        {"type": 2, "key": "a", "double_v": 1e999},
    ):
        with pytest.raises(BadInput):
            PROTO.attributes(theirs("PostAttributeMsg", kv=[fields]).SerializeToString())
    with pytest.raises(BadInput, match="no kind of value 9"):
        PROTO.attributes(b"\x0a\x05\x0a\x01a\x10\x09")
