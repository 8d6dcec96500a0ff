"""Operators' calls, with devices that poll and devices on MQTT."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Self

import aiomqtt
import httpx
import pytest
import pytest_asyncio

from api.dialects.thingsboard.operator_rpc import OperatorRpc, call_record
from api.server_messages import ServerMessages
from api.transports.http import Route
from engine.message import now_ms
from engine.stores import kept_call, kept_calls
from engine.stores.commands import Commands
from engine.stores.kept_calls import KeptCalls
from engine.stores.registry import Device
from tests.api.dialects.thingsboard.operator_site import OTHER, OperatorSite
from tests.api.dialects.thingsboard.site import TOKEN
from tests.api.stack import PARTITIONS, TENANT
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio

BODY = {"method": "setGpio", "params": {"pin": 7, "value": 1}}


class RpcSite(OperatorSite):
    """With operators' calls."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.ahead_ms = 0
        """How far the clock of kept calls is ahead."""
        self.kept = KeptCalls(self.wire, PARTITIONS, call_record, lambda: now_ms() + self.ahead_ms)
        self.commands = Commands(self.wire, PARTITIONS, self.kept)

    def routes(self) -> list[Route]:
        messages = ServerMessages(self.ingress, self.intake.stamp, "tb")
        return [*OperatorRpc(self.access, messages, self.replies, self.kept).routes]

    async def call(self, kind: str, body: Any = None, **more: Any) -> httpx.Response:
        return await self.admin.post(f"/api/rpc/{kind}/{self.d1.id}", json=(BODY if body is None else body) | more)

    async def keep(self, **more: Any) -> str:
        answer = await self.call(more.pop("kind", "twoway"), persistent=True, **more)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["rpcId"])

    async def status(self, id: str) -> str:
        return str((await self.admin.get(f"/api/rpc/persistent/{id}")).json()["status"])

    async def becomes(self, id: str, status: str) -> None:
        async def has() -> bool:
            return await self.status(id) == status

        await until(has)

    async def sweep(self) -> None:
        for id in await self.kept.due():
            await self.kept.look(id)


@pytest_asyncio.fixture
async def site(redis_url: str) -> AsyncIterator[RpcSite]:
    async with RpcSite(redis_url) as made:
        yield made


async def poll(site: RpcSite) -> Any:
    """The next command that the device gets over HTTP."""
    answer = await site.get("rpc?timeout=8000")
    assert answer.status_code == 200
    return answer.json()


@pytest.mark.spec("TB-X4", "TB-42", "TB-43")
@pytest.mark.parametrize("reply", [{"result": "ok"}, [1, 2.0], "text", 5, False])
async def test_a_two_way_call_gives_the_answer_of_the_device(site: RpcSite, reply: Any) -> None:
    calling = asyncio.create_task(site.call("twoway"))
    command = await poll(site)
    assert command == {"id": 1, **BODY}
    assert (await site.post("rpc/1", json.dumps(reply))).status_code == 200
    answer = await calling
    assert (answer.status_code, answer.json()) == (200, reply)


@pytest.mark.spec("TB-X4")
async def test_calls_have_their_first_names_too(site: RpcSite) -> None:
    for kind, works in (("oneway", b""), ("twoway", b"5")):
        where = f"/api/plugins/rpc/{kind}/{site.d1.id}"
        calling = asyncio.create_task(site.admin.post(where, json=BODY))
        command = await poll(site)
        await site.post(f"rpc/{command['id']}", "5")
        answer = await calling
        assert (answer.status_code, answer.content) == (200, works)


@pytest.mark.spec("TB-X4")
async def test_an_empty_answer_is_200_without_a_body(site: RpcSite) -> None:
    calling = asyncio.create_task(site.call("twoway"))
    await poll(site)
    await site.post("rpc/1", "null")
    answer = await calling
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.spec("TB-X4")
async def test_an_answer_that_is_no_json_is_406(site: RpcSite) -> None:
    calling = asyncio.create_task(site.call("twoway"))
    await poll(site)
    await site.commands.answer(TENANT, site.d1.id, 1, b"\xff")
    assert (await calling).status_code == 406


@pytest.mark.spec("TB-X4")
@pytest.mark.parametrize("first", ["call", "poll"])
async def test_a_one_way_call_is_answered_as_soon_as_it_is_delivered(site: RpcSite, first: str) -> None:
    works = {"call": lambda: site.call("oneway"), "poll": lambda: site.get("rpc?timeout=8000")}
    begun = asyncio.create_task(works[first]())
    await asyncio.sleep(0.2)
    assert not begun.done()
    second = await works["poll" if first == "call" else "call"]()
    called, polled = (await begun, second) if first == "call" else (second, await begun)
    assert (called.status_code, called.content) == (200, b"")
    assert polled.json()["method"] == "setGpio"


@pytest.mark.spec("TB-X4")
@pytest.mark.parametrize(("asked", "granted_ms"), [({}, 10_000), ({"timeout": 1}, 5000), ({"timeout": 7000}, 7000)])
async def test_a_call_has_ten_seconds_unless_it_says_and_five_at_least(
    redis_url: str, asked: Any, granted_ms: int
) -> None:
    async with RpcSite(redis_url, work=False) as site:
        before = now_ms()
        shown = (await site.admin.get(f"/api/rpc/persistent/{await site.keep(**asked)}")).json()
        assert before + granted_ms <= shown["expirationTime"] <= now_ms() + granted_ms
        assert [each.metadata["timeout"] for each in await site.messages() if each.data == BODY] == [str(granted_ms)]


@pytest.mark.spec("TB-X4")
@pytest.mark.parametrize("kind", ["oneway", "twoway"])
async def test_nobody_there_is_504_when_the_time_is_over(site: RpcSite, kind: str) -> None:
    answer = await site.call(kind, expirationTime=now_ms() + 300)
    assert (answer.status_code, answer.content) == (504, b"")
    assert (await site.call(kind, expirationTime=now_ms() - 1)).status_code == 504
    assert (await site.get("rpc?timeout=50")).status_code == 408


@pytest.mark.spec("TB-X4")
async def test_a_chain_that_asks_no_device_is_504_at_once(site: RpcSite) -> None:
    await site.deploy({"chain": "root", "start": "log", "nodes": {"log": {"kind": "log"}}})
    assert (await site.call("twoway", timeout=30_000)).status_code == 504


@pytest.mark.spec("TB-X4")
@pytest.mark.parametrize(
    "body",
    [
        [], "x", {}, {"method": "x"}, {"method": "", "params": 1}, {"method": 5, "params": 1}, {"params": {}},
        {**BODY, "timeout": "soon"}, {**BODY, "timeout": True}, {**BODY, "timeout": 1e300},
        {**BODY, "persistent": "yes"}, {**BODY, "retries": -1}, {**BODY, "expirationTime": []},
        {**BODY, "persistent": True, "expirationTime": 10**15},
    ],
)  # fmt: skip
async def test_a_body_of_another_structure_is_400(site: RpcSite, body: Any) -> None:
    for kind in ("oneway", "twoway"):
        answer = await site.admin.post(f"/api/rpc/{kind}/{site.d1.id}", json=body)
        assert (answer.status_code, answer.json()["errorCode"]) == (400, 31), answer.text
    answer = await site.admin.post(f"/api/rpc/twoway/{site.d1.id}", content=b"{")
    assert answer.status_code == 400


@pytest.mark.spec("TB-X4", "TB-S9")
async def test_too_large_is_413_and_without_a_token_401(site: RpcSite) -> None:
    where = f"/api/rpc/oneway/{site.d1.id}"
    answer = await site.admin.post(where, content=b" " * 65_537)
    assert (answer.status_code, answer.json()) == (413, "Payload size exceeds the limit of 65536 bytes")
    for method, path in (("POST", where), ("GET", "/api/rpc/persistent/x"), ("DELETE", "/api/rpc/persistent/x")):
        answer = await site.http.request(method, path, content=b"x")
        assert (answer.status_code, answer.json()["errorCode"]) == (401, 10)


@pytest.mark.spec("TB-X4")
async def test_a_kept_call_is_followed_to_its_answer(site: RpcSite) -> None:
    id = await site.keep(additionalInfo={"ticket": 5}, retries=9)
    shown = (await site.admin.get(f"/api/rpc/persistent/{id}")).json()
    request = shown.pop("request")
    assert request["body"] == {"method": "setGpio", "params": '{"pin":7,"value":1}'}
    assert (request["oneway"], request["persisted"], request["retries"]) == (False, True, 5)
    assert (shown["id"], shown["status"], shown["response"], shown["additionalInfo"]) == (
        {"entityType": "RPC", "id": id}, "QUEUED", None, {"ticket": 5},
    )  # fmt: skip
    command = await poll(site)
    await site.becomes(id, "DELIVERED")
    assert (await site.post(f"rpc/{command['id']}", '{"result": "ok"}')).status_code == 200
    shown = (await site.admin.get(f"/api/rpc/persistent/{id}")).json()
    assert (shown["status"], shown["response"]) == ("SUCCESSFUL", {"result": "ok"})


@pytest.mark.spec("TB-X4", "G-18")
async def test_the_chain_is_told_of_a_kept_call_at_each_step(site: RpcSite) -> None:
    kinds = ("RPC Queued", "RPC Sent", "RPC Delivered", "RPC Successful", "RPC Timeout", "RPC Expired", "RPC Deleted")
    script = {
        "kind": "script",
        "config": {"source": "return {msg = {[msgType] = msg.status}, msgType = 'POST_TELEMETRY_REQUEST'}"},
        "to": {"Success": "save"},
    }
    by_type = {"kind": "message_type_switch", "to": {"RPC Request to Device": "ask"} | dict.fromkeys(kinds, "told")}
    nodes = {"by type": by_type, "ask": {"kind": "rpc_request"}, "told": script, "save": {"kind": "save_timeseries"}}
    await site.deploy({"chain": "root", "start": "by type", "nodes": nodes})
    id = await site.keep()
    command = await poll(site)
    await site.post(f"rpc/{command['id']}", "1")
    other = await site.keep()
    await site.admin.delete(f"/api/rpc/persistent/{other}")
    late = await site.keep()
    site.ahead_ms = 60_000
    await site.sweep()
    assert await site.status(late) == "EXPIRED"
    assert await site.latest(site.d1) == {
        "RPC_QUEUED": "QUEUED", "RPC_DELIVERED": "DELIVERED", "RPC_SUCCESSFUL": "SUCCESSFUL", "RPC_DELETED": "QUEUED",
        "RPC_EXPIRED": "EXPIRED",
    }  # fmt: skip
    assert await site.status(id) == "SUCCESSFUL"


@pytest.mark.spec("TB-X4")
async def test_a_one_way_kept_call_ends_when_it_is_delivered(site: RpcSite) -> None:
    id = await site.keep(kind="oneway")
    await poll(site)
    await site.becomes(id, "DELIVERED")
    assert await site.commands.open(TENANT, site.d1.id) == []


@pytest.mark.spec("TB-X4")
async def test_a_deleted_call_is_not_given_to_the_device(site: RpcSite) -> None:
    id = await site.keep()
    await site.idle()
    answer = await site.admin.delete(f"/api/rpc/persistent/{id}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert (await site.get("rpc?timeout=100")).status_code == 408
    for method in ("GET", "DELETE"):
        answer = await site.admin.request(method, f"/api/rpc/persistent/{id}")
        assert (answer.status_code, answer.json()["errorCode"]) == (404, 32)


@pytest.mark.spec("TB-X4")
async def test_a_call_that_is_too_late_already_is_kept_as_expired(site: RpcSite) -> None:
    id = await site.keep(expirationTime=now_ms() - 1)
    assert await site.status(id) == "EXPIRED"


@pytest.mark.spec("TB-X4")
async def test_kept_calls_are_listed_in_pages(site: RpcSite) -> None:
    ids = [await site.keep(method=f"m{n}") for n in range(3)]
    await poll(site)
    await site.becomes(ids[0], "DELIVERED")
    where = f"/api/rpc/persistent/device/{site.d1.id}"

    async def listed(query: str) -> tuple[list[str], int, int, bool]:
        page = (await site.admin.get(f"{where}?{query}")).json()
        shown = [each["request"]["body"]["method"] for each in page["data"]]
        return shown, page["totalPages"], page["totalElements"], page["hasNext"]

    assert await listed("pageSize=2&page=0") == (["m2", "m1"], 2, 3, True)
    assert await listed("pageSize=2&page=1") == (["m0"], 2, 3, False)
    assert await listed("pageSize=9&page=0&rpcStatus=DELIVERED") == (["m0"], 1, 1, False)
    assert await listed("pageSize=9&page=0&textSearch=M1") == (["m1"], 1, 1, False)
    for query in ("", "pageSize=2", "pageSize=0&page=0", "pageSize=x&page=0", "pageSize=9&page=0&rpcStatus=DELETED"):
        assert (await site.admin.get(f"{where}?{query}")).status_code == 400


async def test_too_many_kept_calls_are_429(site: RpcSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_calls, "MOST_OPEN", 1)
    await site.keep()
    answer = await site.call("twoway", persistent=True)
    assert (answer.status_code, answer.json()["errorCode"]) == (429, 33)


async def test_what_cannot_be_stored_is_503(site: RpcSite) -> None:
    site.ingress.closed_reason = "spool full"
    for more in ({}, {"persistent": True}):
        answer = await site.call("twoway", **more)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    site.ingress.closed_reason = ""


@pytest.mark.spec("TB-X4")
async def test_devices_of_other_tenants_cannot_be_called(site: RpcSite) -> None:
    theirs = await site.registry.put_device(Device(id="", tenant=OTHER, name="theirs"))
    for path in (f"/api/rpc/oneway/{theirs.id}", f"/api/rpc/twoway/{theirs.id}", "/api/rpc/oneway/nobody"):
        assert (await site.admin.post(path, json=BODY)).status_code == 404
    id = await site.keep()
    _, stranger = await site.customer("eve", OTHER)
    _, customer = await site.customer("bob")
    for client, status in ((stranger, 404), (customer, 403)):
        assert (await client.post(f"/api/rpc/oneway/{site.d1.id}", json=BODY)).status_code == status
        for method in ("GET", "DELETE"):
            assert (await client.request(method, f"/api/rpc/persistent/{id}")).status_code == status
    for id in ("x", "12345678-1234-1234-1234-12345678ffff"):
        assert (await site.admin.get(f"/api/rpc/persistent/{id}")).status_code == (400 if id == "x" else 404)


async def test_a_customer_calls_their_own_device_and_may_not_delete_a_call(site: RpcSite) -> None:
    bob, client = await site.customer("bob")
    await site.registry.set_owner(TENANT, site.d1.id, bob.id)
    site.auth._forget_all()
    made = await client.post(f"/api/rpc/twoway/{site.d1.id}", json={**BODY, "persistent": True})
    where = f"/api/rpc/persistent/{made.json()['rpcId']}"
    assert (await client.get(where)).json()["status"] == "QUEUED"
    assert (await client.delete(where)).status_code == 403


class Device1(aiomqtt.Client):
    """The device on MQTT, subscribed to its commands."""

    def __init__(self, site: RpcSite) -> None:
        super().__init__("127.0.0.1", site.mqtt_port, username=TOKEN, identifier="d1")

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self.subscribe("v1/devices/me/rpc/request/+", qos=1)
        return self

    async def command(self) -> tuple[str, Any]:
        async with asyncio.timeout(8):
            message = await anext(aiter(self.messages))
        return str(message.topic).rpartition("/")[2], json.loads(message.payload)


@pytest.mark.spec("TB-X4", "TB-X1")
async def test_calls_reach_a_device_on_mqtt(site: RpcSite) -> None:
    async with Device1(site) as device:
        assert (await site.call("oneway")).status_code == 200
        assert await device.command() == ("1", BODY)
        calling = asyncio.create_task(site.call("twoway"))
        number, _ = await device.command()
        await device.publish(f"v1/devices/me/rpc/response/{number}", b'{"ok":true}', qos=1)
        assert (await calling).json() == {"ok": True}


@pytest.mark.spec("TB-X4", "TB-X1")
@pytest.mark.parametrize("oneway", [False, True])
async def test_a_kept_call_is_delivered_when_mqtt_acknowledges_it(site: RpcSite, oneway: bool) -> None:
    id = await site.keep(kind="oneway" if oneway else "twoway")
    async with Device1(site) as device:
        number, _ = await device.command()
        await site.becomes(id, "DELIVERED")
        if not oneway:
            await device.publish(f"v1/devices/me/rpc/response/{number}", b"5", qos=1)
            await site.becomes(id, "SUCCESSFUL")
    assert await site.commands.open(TENANT, site.d1.id) == []


@pytest.mark.spec("TB-X4", "TB-X1")
async def test_a_kept_call_that_mqtt_does_not_acknowledge_is_sent_to_the_next_session(site: RpcSite) -> None:
    id = await site.keep(timeout=60_000)
    async with Silent(site) as silent:
        assert await silent.publish_packet() == b"v1/devices/me/rpc/request/1"
        await site.becomes(id, "SENT")
        site.ahead_ms = kept_call.CONFIRM_MS + 100
        await site.sweep()
        assert await site.status(id) == "TIMEOUT"
    async with Device1(site) as device:
        assert await device.command() == ("1", BODY)
        await site.becomes(id, "DELIVERED")


class Silent:
    """A client that subscribes to commands and acknowledges nothing."""

    def __init__(self, site: RpcSite) -> None:
        self._port = site.mqtt_port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        name = TOKEN.encode()
        connect = b"\0\4MQTT\4\x82\0\x3c\0\1s" + len(name).to_bytes(2, "big") + name
        self._writer.write(b"\x10" + bytes([len(connect)]) + connect)
        assert (await self._reader.readexactly(4))[3] == 0
        subscribe = b"\0\1\0\x1bv1/devices/me/rpc/request/+\1"
        self._writer.write(b"\x82" + bytes([len(subscribe)]) + subscribe)
        assert (await self._reader.readexactly(5))[4] == 1
        return self

    async def publish_packet(self) -> bytes:
        """The topic of the next publication."""
        async with asyncio.timeout(8):
            head = await self._reader.readexactly(2)
            assert head[0] >> 4 == 3
            body = await self._reader.readexactly(head[1])
        return body[2 : 2 + int.from_bytes(body[:2], "big")]

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()
