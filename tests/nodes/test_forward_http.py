from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_network
from typing import Any

import pytest
import pytest_asyncio

from nodes import BadInput, Retry
from nodes.forward_http import ForwardHttp
from nodes.outward.addresses import Guard, NotAllowed
from nodes.outward.http import Client, retry_after_s
from tests.nodes.context import DictContext, build, message

pytestmark = pytest.mark.asyncio

LOOPBACK = [ip_network("127.0.0.0/8")]


class Server:
    """Answers every request with `answer`, and keeps what it was sent."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
        self.connections = 0
        self.gate: asyncio.Event | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

    def says(self, status: str, body: bytes = b"", headers: str = "") -> None:
        self.answer = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *rest = head.strip().split("\r\n")
                headers = {name.lower(): text for name, _, text in (row.partition(": ") for row in rest)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.seen.append((line, headers, body))
                if self.gate is not None:
                    await self.gate.wait()
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    await made.open()
    yield made
    await made.close()


Call = Callable[..., Any]


@pytest_asyncio.fixture
async def forward(server: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Call]:
    """Builds a node with the given configuration and makes one call to the server."""
    monkeypatch.setenv("RULEMILL_OUTWARD_ALLOW", "127.0.0.0/8")
    made: list[ForwardHttp] = []

    async def call(given: Any = None, /, path: str = "/in", secrets: Any = None, **config: Any) -> Any:
        url = config.pop("url", f"http://127.0.0.1:{server.port}{path}")
        node = build(ForwardHttp, secrets=secrets, url=url, **{"allow_private": True, **config})
        made.append(node)
        ((relation, sent),) = await node.call(given or message({"t": 42.0}), DictContext(secrets))
        assert relation == "Success"
        return sent

    yield call
    for node in made:
        await node.close()


async def test_the_data_is_posted_as_json(server: Server, forward: Call) -> None:
    sent = await forward(message({"t": 42.0, "n": 73}, metadata={"k": "v"}))
    ((line, headers, body),) = server.seen
    assert line == "POST /in HTTP/1.1"
    assert body == b'{"t":42.0,"n":73}'
    assert headers["content-type"] == "application/json"
    assert headers["idempotency-key"] == "m1/node/"
    assert headers["host"] == f"127.0.0.1:{server.port}"
    assert (sent.data, sent.metadata) == (None, {"k": "v", "statusCode": "204"})


async def test_templates_and_secrets(server: Server, forward: Call) -> None:
    await forward(
        message({"text": 'say "hi"\n', "n": 1}, metadata={"name": "a b/../c?d"}),
        path="/x/${name}?n=$[n]",
        secrets={"KEY": "s3cret"},
        method="PUT",
        headers={"Authorization": "Bearer ${secret:KEY}", "Content-Type": "application/vnd.x+json"},
        body='{"text":"$[text]","n":$[n]}',
    )
    ((line, headers, body),) = server.seen
    assert line == "PUT /x/a%20b%2F..%2Fc%3Fd?n=1 HTTP/1.1"
    assert headers["authorization"] == "Bearer s3cret"
    assert headers["content-type"] == "application/vnd.x+json"
    assert body == b'{"text":"say \\"hi\\"\\n","n":1}'


async def test_bytes_go_as_they_are_and_get_has_no_body(server: Server, forward: Call) -> None:
    await forward(message(b"\x00\xff"))
    await forward(method="GET")
    assert server.seen[0][1]["content-type"] == "application/octet-stream"
    assert server.seen[0][2] == b"\x00\xff"
    assert "content-type" not in server.seen[1][1]
    assert server.seen[1][2] == b""


async def test_the_answer_becomes_the_data(server: Server, forward: Call) -> None:
    server.says("200 OK", b'{"a": 1.0}', "Content-Type: application/json; charset=utf-8\r\n")
    assert (await forward()).data == {"a": 1.0}
    assert (await forward(keep_data=True)).data == {"t": 42.0}
    server.says("201 Created", "grüß".encode(), "Content-Type: text/plain\r\n")
    assert (await forward()).data == "grüß"
    server.says("200 OK", b"\xff\xfe")
    assert (await forward()).data == b"\xff\xfe"


@pytest.mark.parametrize("status", ["408 X", "425 X", "429 X", "500 X", "503 X"])
async def test_what_may_pass_is_tried_again(server: Server, forward: Call, status: str) -> None:
    server.says(status, b"busy", "Retry-After: 7\r\n")
    with pytest.raises(Retry, match=f"{status[:3]}: busy") as caught:
        await forward()
    assert caught.value.after_s == 7.0


@pytest.mark.parametrize("status", ["400 X", "401 X", "404 X", "422 X"])
async def test_a_refusal_is_final(server: Server, forward: Call, status: str) -> None:
    server.says(status, b"no")
    with pytest.raises(BadInput, match=f"{status[:3]}: no"):
        await forward()


async def test_redirects_are_not_followed(server: Server, forward: Call) -> None:
    server.says("302 Found", b"", f"Location: http://127.0.0.1:{server.port}/other\r\n")
    with pytest.raises(BadInput, match="redirects"):
        await forward()
    assert len(server.seen) == 1


async def test_a_long_answer_is_an_error(server: Server, forward: Call) -> None:
    server.says("200 OK", b"x" * 1001)
    with pytest.raises(BadInput, match="1000 bytes"):
        await forward(max_response_bytes=1000)
    server.says("200 OK", b"x" * 1000)
    assert len((await forward(max_response_bytes=1000)).data) == 1000


@pytest.mark.parametrize("body", [b"{", b'"\xff"', b"[" * 5000, b"[1e999]"])
async def test_broken_json_is_an_error(server: Server, forward: Call, body: bytes) -> None:
    server.says("200 OK", body, "Content-Type: application/json\r\n")
    with pytest.raises(BadInput, match="broken JSON"):
        await forward()


async def test_no_answer_and_no_server_are_tried_again(server: Server, forward: Call) -> None:
    server.gate = asyncio.Event()
    with pytest.raises(Retry):
        await forward(timeout_s=0.1)
    server.gate.set()
    server.answer = b"junk\r\n\r\n"
    with pytest.raises(Retry):
        await forward()
    await server.close()
    with pytest.raises(Retry, match="ConnectError"):
        await forward()


async def test_a_connection_is_kept(server: Server) -> None:
    client = Client(Guard(LOOPBACK), connections=4)
    for _ in range(3):
        url = f"http://127.0.0.1:{server.port}/"
        assert (await client.request("GET", url, {}, None, timeout_s=5, max_bytes=10)).status == 204
    assert server.connections == 1
    await client.close()


async def test_private_addresses_are_refused(server: Server, forward: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotAllowed):
        await forward(allow_private=False)
    monkeypatch.setenv("RULEMILL_OUTWARD_ALLOW", "10.0.0.0/8")
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
        with pytest.raises(NotAllowed):
            await forward(url=f"http://{host}:{server.port}/")
    assert server.connections == 0


async def test_a_name_is_resolved_once_and_its_checked_address_is_connected_to(server: Server) -> None:
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.9.9.9"]

    client = Client(Guard(LOOPBACK, rebinding), connections=1)
    url = f"http://service.example:{server.port}/"
    assert (await client.request("GET", url, {}, None, timeout_s=5, max_bytes=10)).status == 204
    assert asked == ["service.example"]
    assert server.seen[0][1]["host"] == f"service.example:{server.port}"
    await client.close()


async def test_the_next_address_is_tried(server: Server) -> None:
    async def two(host: str, port: int) -> list[str]:
        return ["127.0.0.2" if host == "both.example" else "127.0.0.1", "127.0.0.1"]

    client = Client(Guard(LOOPBACK, two), connections=1)
    url = f"http://both.example:{server.port}/"
    assert (await client.request("GET", url, {}, None, timeout_s=5, max_bytes=10)).status == 204
    await client.close()


async def test_a_name_that_cannot_be_resolved_may_pass() -> None:
    async def nowhere(host: str, port: int) -> list[str]:
        raise OSError(-3, "Temporary failure in name resolution")

    client = Client(Guard((), nowhere), connections=1)
    with pytest.raises(Retry, match="Temporary failure"):
        await client.request("GET", "http://a.example/", {}, None, timeout_s=5, max_bytes=10)
    await client.close()


@pytest.mark.parametrize("url", ["ftp://h/", "http:///x", "/x", "http://u:p@h/", "http://h:99999/", "unix:/tmp/x"])
async def test_what_is_no_url_is_an_error(forward: Call, url: str) -> None:
    with pytest.raises(BadInput):
        await forward(url=url)


async def test_a_value_cannot_add_a_header(server: Server, forward: Call) -> None:
    for value in ("a\r\nX-Evil: 1", "ü€"):
        with pytest.raises(BadInput):
            await forward(message({}, metadata={"v": value}), headers={"X-Value": "${v}"})
    assert server.seen == []


@pytest.mark.parametrize(
    "config",
    [
        {"headers": {"Host": "x"}},
        {"headers": {"Content-Length": "5"}},
        {"headers": {"Bad Name": "x"}},
        {"headers": {"Authorization": "${secret:MISSING}"}},
        {"body": "${"},
    ],
)
async def test_wrong_configurations_are_found_when_it_is_built(config: Any) -> None:
    with pytest.raises(BadInput):
        build(ForwardHttp, url="http://h.example/", **config)


async def test_retry_after() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=100), usegmt=True)
    assert 90 < (retry_after_s({"retry-after": soon}) or 0) <= 100
    assert retry_after_s({"retry-after": past}) == 0.0
    assert retry_after_s({"retry-after": "999999"}) == 3600.0
    assert retry_after_s({"retry-after": "soon"}) is None
    assert retry_after_s({}) is None
