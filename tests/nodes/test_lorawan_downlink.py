from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from engine.stores import routes
from engine.stores.routes import Route
from nodes import BadInput, Retry
from nodes.lorawan_downlink import LorawanDownlink
from tests.nodes.context import DictContext, build, message
from tests.nodes.test_forward_http import Server

pytestmark = [pytest.mark.asyncio, pytest.mark.spec("CT-X2")]


@pytest_asyncio.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setenv("RULEMILL_OUTWARD_ALLOW", "127.0.0.0/8")
    made = Server()
    await made.open()
    yield made
    await made.close()


async def call(server: Server, data: Any, network: str = "ttn", known: bool = True, **config: Any) -> Any:
    ctx = DictContext()
    url = f"http://127.0.0.1:{server.port}"
    if known:
        route = Route(network, f"{url}/push", f"{url}/replace" if network == "ttn" else "", "KEY")
        ctx.state["dev1", routes.TABLE, routes.FIELD] = routes.encode(route)
    node = build(LorawanDownlink, **{"allow_private": True, **config})
    try:
        ((relation, sent),) = await node.call(message(data), ctx)
    finally:
        await node.close()
    assert (relation, sent.data) == ("Success", data)
    return sent


def seen(server: Server) -> tuple[str, Any]:
    line, headers, body = server.seen[-1]
    assert "KEY" in (headers.get("authorization", "") + headers.get("grpc-metadata-authorization", ""))
    return line.removesuffix(" HTTP/1.1"), json.loads(body) if body else None


@pytest.mark.parametrize(
    ("data", "entry"),
    [
        ({"method": "set", "params": "0125"}, {"frm_payload": "ASU="}),
        ("0125", {"frm_payload": "ASU="}),
        (b"\x01\x25", {"frm_payload": "ASU="}),
        ({"raw_b64": "ASU="}, {"frm_payload": "ASU="}),
        ({"method": "set", "params": {"hex": ""}}, {"frm_payload": ""}),
        ({"payload": "01", "f_port": 7, "confirmed": True, "priority": "HIGH"},
         {"frm_payload": "AQ==", "f_port": 7, "confirmed": True, "priority": "HIGH"}),
        ({"method": "set", "params": {"object": {"led": "on"}}}, {"decoded_payload": {"led": "on"}}),
    ],
)  # fmt: skip
async def test_what_is_pushed(server: Server, data: Any, entry: dict[str, Any]) -> None:
    sent = await call(server, data, f_port=15)
    defaults = {"f_port": 15, "priority": "NORMAL", "confirmed": False}
    assert seen(server) == ("POST /push", {"downlinks": [{**defaults, **entry}]})
    assert sent.metadata["statusCode"] == "204"


async def test_what_waits_in_the_network_can_be_replaced_and_cleared(server: Server) -> None:
    await call(server, "01", operation="replace")
    line, body = seen(server)
    assert (line, len(body["downlinks"])) == ("POST /replace", 1)
    await call(server, None, operation="clear")
    assert seen(server) == ("POST /replace", {"downlinks": []})
    await call(server, None, network="chirpstack", operation="clear")
    assert seen(server) == ("DELETE /push", None)
    await call(server, {"object": {"a": 1}}, network="chirpstack")
    assert seen(server) == ("POST /push", {"queueItem": {"confirmed": False, "fPort": 1, "object": {"a": 1}}})
    with pytest.raises(BadInput, match="clear it"):
        await call(server, "01", network="chirpstack", operation="replace")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (None, "hexadecimal"),
        ("012", "hexadecimal"),
        ({"method": "set", "params": 5}, "/params: "),
        ({"method": "set", "params": {"hex": "x"}}, "/params/hex: "),
        ({"raw_b64": "?"}, "/raw_b64: not base64"),
        ({"payload": "01", "f_port": 0}, "f_port"),
        ({"payload": "01", "port": 1}, "port"),
        ({"payload": None}, "/payload: "),
    ],
)
async def test_what_is_no_payload_is_not_sent(server: Server, data: Any, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        await call(server, data)
    assert server.seen == []


async def test_a_device_that_was_never_heard_of(server: Server) -> None:
    with pytest.raises(BadInput, match="no uplink"):
        await call(server, "01", known=False)


async def test_refusals_are_final_and_troubles_are_not(server: Server) -> None:
    server.says("403 Forbidden", b"no rights")
    with pytest.raises(BadInput, match="403: no rights"):
        await call(server, "01")
    for status in ("429 Too Many Requests", "503 Service Unavailable"):
        server.says(status, headers="Retry-After: 7\r\n")
        with pytest.raises(Retry) as retry:
            await call(server, "01")
        assert retry.value.after_s == 7


async def test_private_addresses_need_leave(server: Server) -> None:
    with pytest.raises(BadInput, match="may not connect"):
        await call(server, "01", allow_private=False)
    assert server.seen == []
