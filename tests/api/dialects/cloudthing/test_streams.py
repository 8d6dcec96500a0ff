"""Commands as a stream: byte for byte on raw sockets, with curl, over HTTP/2, and in several processes at once."""

import asyncio
import contextlib
import json
import socket
import ssl
import time

import httpx
import pytest

from api.dialects.cloudthing import streams
from api.dialects.cloudthing.http import CloudThingHttp
from api.dialects.cloudthing.mqtt import CloudThingMqtt
from api.dialects.cloudthing.service import CloudThing
from api.live import Live
from api.transports.http import Front
from api.transports.http_deadlines import Deadlines
from api.transports.http_feed import MAX_QUEUED
from engine.config import Tls
from engine.stores.commands import Commands
from engine.wire import Wire
from tests.api.dialects.cloudthing.site import DEVICE, TENANT, TOKEN, answering, call
from tests.api.stack import PARTITIONS
from tests.certificates import certificate
from tests.engine.toy import until
from tests.services import require

pytestmark = pytest.mark.asyncio

PATH = f"/v1/{DEVICE}/commands"


class Raw:
    """An open stream as the bytes that come."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.head = b""

    async def read(self, count):
        async with asyncio.timeout(10):
            return await self.reader.readexactly(count)

    async def silent(self, seconds=0.3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.reader.readexactly(1)

    def close(self):
        self.writer.close()


@pytest.fixture
def opened(site):
    """Opens streams; closes them at the end."""
    made = []

    async def open_(query="stream=60000", *, url=None, headers="", context=None, version="1.1"):
        where = httpx.URL(url or site.http_url)
        reader, writer = await asyncio.open_connection(where.host, where.port, ssl=context)
        authorization = site.basic()["Authorization"]
        writer.write(
            f"GET {PATH}?{query} HTTP/{version}\r\nHost: x\r\nAuthorization: {authorization}\r\n{headers}\r\n".encode()
        )
        raw = Raw(reader, writer)
        made.append(raw)
        async with asyncio.timeout(10):
            raw.head = await reader.readuntil(b"\r\n\r\n")
        return raw

    yield open_
    for raw in made:
        raw.close()


def attached(site, count=1):
    """Whether that many sessions of the device wait for commands, and know what was queued."""
    delivery = site.service.deliveries._devices.get(site.device.id)
    return delivery is not None and [each.seen is not None for each in delivery.sessions] == [True] * count


@pytest.mark.spec("CT-40", "CT-44", "CT-S8", "CT-1", "CT-4", "G-1")
async def test_each_command_is_a_chunk_with_its_id_as_an_extension(site, opened):
    await site.command("turn", "ON")
    raw = await opened("stream=1000")
    head = raw.head.lower()
    assert head.startswith(b"http/1.1 200 ")
    assert b"\r\ncontent-type: application/octet-stream\r\n" in head
    assert b"\r\ncache-control: no-cache\r\n" in head
    assert b"\r\ntransfer-encoding: chunked\r\n" in head
    assert b"content-length" not in head
    queued = b"2;id=turn\r\nON\r\n"
    assert await raw.read(len(queued)) == queued
    await site.command("set-config", {"a": 1})
    live = b'7;id=set-config\r\n{"a":1}\r\n'
    assert await raw.read(len(live)) == live
    blank = b"1\r\n\n\r\n"
    assert await raw.read(len(blank)) == blank
    assert await site.stack.commands.open(TENANT, site.device.id) == []


@pytest.mark.spec("CT-44", "CT-S8", "CT-6")
@pytest.mark.parametrize(
    ("id", "payload", "chunk"),
    [
        ("set cfg", "1", b'1;id="set cfg"\r\n1\r\n'),
        ('a"b\\c', "1", b'1;id="a\\"b\\\\c"\r\n1\r\n'),
        ("größe", "1", b'1;id="gr\xc3\xb6\xc3\x9fe"\r\n1\r\n'),
        ("a/b;c=d", "1", b'1;id="a/b;c=d"\r\n1\r\n'),
        ("a\tb", "1", b'1;id="a\tb"\r\n1\r\n'),
        ("empty", "", b"1;id=empty\r\n\n\r\n"),
        ("crlf", "1\r\n0\r\n\r\n", b"8;id=crlf\r\n1\r\n0\r\n\r\n\r\n"),
        ("bytes", {"$base64": "/wA="}, b"2;id=bytes\r\n\xff\x00\r\n"),
        ("json", [1, None], b"8;id=json\r\n[1,null]\r\n"),
        ("long", "x" * 300, b"12c;id=long\r\n" + b"x" * 300 + b"\r\n"),
    ],
)
async def test_ids_are_tokens_or_quoted_and_payloads_are_untouched(site, opened, id, payload, chunk):
    raw = await opened()
    await site.command(id, payload)
    assert await raw.read(len(chunk)) == chunk


@pytest.mark.spec("CT-44", "CT-S8")
@pytest.mark.parametrize("id", ["a\r\nX: y\r\n\r\n", "a\nb", "a\rb", "nul\0", "del\x7f"])
async def test_an_id_cannot_break_out_of_its_chunk(site, opened, id):
    raw = await opened()
    await site.command(id, "bad")
    await site.command("good", "1")
    chunk = b"1;id=good\r\n1\r\n"
    assert await raw.read(len(chunk)) == chunk
    # It waits for whoever can be told its id.
    client = await site.stack.client(site.http_url)
    response = await client.get(PATH, headers=site.basic())
    assert [(each["id"], each["payload"]) for each in response.json()] == [(id, "bad")]


@pytest.mark.spec("CT-41", "CT-43")
async def test_blanks_come_after_silence_and_only_then(site, opened):
    raw = await opened("stream=1000")
    began = time.monotonic()
    blank = b"1\r\n\n\r\n"
    assert await raw.read(2 * len(blank)) == 2 * blank
    assert time.monotonic() - began >= 1.9
    await asyncio.sleep(0.5)
    await site.command("turn", "ON")
    chunk = b"2;id=turn\r\nON\r\n"
    got = await raw.read(len(blank))
    while got == blank:  # on a machine with little time
        got = await raw.read(len(blank))
    assert got + await raw.read(len(chunk) - len(blank)) == chunk
    sent = time.monotonic()
    assert await raw.read(len(blank)) == blank
    assert time.monotonic() - sent >= 0.9


@pytest.mark.spec("CT-S8")
@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1000", 1000),
        ("10000", 10_000),
        ("0", 1000),
        ("-5", 1000),
        ("999", 1000),
        ("300001", 300_000),
        ("9" * 20, 300_000),
    ],
)
async def test_milliseconds_are_kept_within_bounds(text, milliseconds):
    assert streams.keep_alive_ms(text) == milliseconds


@pytest.mark.spec("CT-S8", "CT-S10")
@pytest.mark.parametrize("query", ["stream=", "stream=1s", "stream=1.5", "stream=true", "stream=1000&format=xml"])
async def test_parameters_that_mean_nothing_are_400(site, query):
    client = await site.stack.client(site.http_url)
    response = await client.get(f"{PATH}?{query}", headers=site.basic())
    assert (response.status_code, response.json()["code"]) == (400, 400)


@pytest.mark.spec("CT-S8")
async def test_lines_of_json_for_those_who_cannot_see_extensions(site, opened):
    await site.command("turn", "ON")
    raw = await opened("stream=1000&format=json")
    for name, payload in (("a\r\nb", {"x": 1}), ("raw", {"raw_b64": "/wA="})):
        await site.command(name, payload)
    wanted = [
        {"id": "turn", "payload": "ON"},
        {"id": "a\r\nb", "payload": {"x": 1}},
        {"id": "raw", "payload": {"$base64": "/wA="}},
    ]
    for document in wanted:
        size = int((await raw.reader.readline()).strip(), 16)
        line = await raw.read(size)
        assert line.endswith(b"\n")
        assert json.loads(line) == document
        assert await raw.read(2) == b"\r\n"
    assert await raw.read(6) == b"1\r\n\n\r\n"


@pytest.mark.spec("CT-S8", "G-1")
async def test_no_extensions_on_the_other_listeners(site, opened):
    for server in ("uvicorn", "hypercorn"):
        url = await site.stack.listen("http", server=server)
        raw = await opened("stream=1000", url=url)
        assert b"transfer-encoding: chunked" in raw.head.lower()
        await site.command("turn", "ON")
        wanted = b"2\r\nON\r\n1\r\n\n\r\n"
        assert await raw.read(len(wanted)) == wanted
        raw.close()
        await until(lambda: site.device.id not in site.service.deliveries._devices)


@pytest.mark.spec("CT-40", "CT-S8")
async def test_a_client_of_http_1_0_gets_the_bytes_alone(site, opened):
    raw = await opened("stream=1000", version="1.0")
    await site.command("turn", "ON")
    assert await raw.read(3) == b"ON\n"


@pytest.mark.spec("CT-43", "CT-40")
async def test_the_documented_call_of_curl_and_what_it_shows(site):
    # As printed but for scheme, host and port; -N shows each chunk as it comes, --raw the chunks themselves.
    for options, wanted in (([], b"ON"), (["--raw"], b"2;id=turn\r\nON\r\n")):
        process = await asyncio.create_subprocess_exec(
            require("curl"), "-sS", "-N", *options, "-H", "Content-Type: application/json",
            "-u", "SoMEc0MpL1Cat3D1D:3xAmpLeT0K3n",
            "-X", "GET", f"{site.http_url}/v1/SoMEc0MpL1Cat3D1D/commands?stream=10000",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        await until(lambda: attached(site))
        await site.command("turn", "ON")
        async with asyncio.timeout(10):
            assert await process.stdout.readexactly(len(wanted)) == wanted
        process.terminate()
        await process.wait()
        await until(lambda: site.device.id not in site.service.deliveries._devices)


@pytest.mark.spec("CT-30", "CT-44", "CT-S8", "G-1")
async def test_over_tls_extensions_on_http_1_and_none_on_http_2(site, opened, tmp_path):
    tls = Tls(*certificate(tmp_path))
    context = ssl.create_default_context(cafile=tls.certificate)
    url = await site.stack.listen("ct_https", server="hypercorn", tls=tls)
    raw = await opened("stream=60000", url=url.replace("127.0.0.1", "localhost"), context=context)
    await site.command("turn", "ON")
    chunk = b"2;id=turn\r\nON\r\n"
    assert await raw.read(len(chunk)) == chunk
    raw.close()
    await until(lambda: site.device.id not in site.service.deliveries._devices)
    url = (await site.stack.listen("https", server="hypercorn", tls=tls)).replace("127.0.0.1", "localhost")
    for query, wanted in (("stream=1000", b"ON\n"), ("stream=1000&format=json", b'{"id":"turn","payload":"ON"}\n\n')):
        client = httpx.AsyncClient(http2=True, verify=context, timeout=10)
        async with client, client.stream("GET", f"{url}{PATH}?{query}", headers=site.basic()) as response:
            assert (response.http_version, response.status_code) == ("HTTP/2", 200)
            await site.command("turn", "ON")
            heard = b""
            async with asyncio.timeout(10):
                async for part in response.aiter_raw():
                    heard += part
                    if len(heard) >= len(wanted):
                        break
        assert heard == wanted
        await until(lambda: site.device.id not in site.service.deliveries._devices)


@pytest.mark.spec("CT-S8", "CT-S10")
async def test_the_stream_ends_when_the_device_is_disabled_deleted_or_has_another_token(site, opened):
    async def disable():
        await site.disable()

    async def delete():
        await site.stack.registry.delete_device(TENANT, site.device.id)

    async def rotate():
        await site.put_device(id=site.device.id, token="another")

    client = await site.stack.client(site.http_url)

    async def accepted():
        return (await client.get(f"/v1/{DEVICE}/data", headers=site.basic())).status_code == 200

    for change in (disable, rotate, delete):
        raw = await opened()
        await change()
        assert await raw.read(5) == b"0\r\n\r\n"
        await until(lambda: site.device.id not in site.service.deliveries._devices)
        site.device = await site.put_device(id=site.device.id)
        await until(accepted)
    assert site.service.deliveries._devices == {}
    assert site.service.logins._logins == {}


@pytest.mark.spec("CT-S8")
async def test_when_the_client_goes_nothing_of_its_stream_stays(site, opened):
    for query in ("stream=1000", "stream=300000"):
        raw = await opened(query)
        await until(lambda: attached(site))
        raw.close()
        await until(lambda: site.device.id not in site.service.deliveries._devices)
    assert site.service.logins._logins == {}
    assert all(entry.stream is None for entry in site.service.keepalives._heap)
    assert site.stack.front._held.open == set()


@pytest.mark.spec("CT-S8")
async def test_when_the_server_stops_the_stream_ends_properly(site, opened):
    raw = await opened()
    site.stack.front.drain()
    assert await raw.read(5) == b"0\r\n\r\n"


@pytest.mark.spec("G-24", "CT-S8")
@pytest.mark.parametrize("server", ["hypercorn", "uvicorn"])
async def test_a_client_that_does_not_read_is_cut_off(site, server):
    url = httpx.URL(await site.stack.listen("ct_http", server=server, deadlines=Deadlines(write_stall_s=1.0)))
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, (url.host, url.port))
        head = f"GET {PATH}?stream=1000 HTTP/1.1\r\nHost: x\r\nAuthorization: {site.basic()['Authorization']}\r\n\r\n"
        await loop.sock_sendall(slow, head.encode())
        await until(lambda: attached(site))
        (session,) = site.service.deliveries._devices[site.device.id].sessions
        payload = b"x" * 65_536
        taken = 0
        while session.receiver.command("turn", payload):
            taken += 1
            assert taken < 10_000
            await asyncio.sleep(0)
        assert taken >= MAX_QUEUED
        await until(lambda: site.device.id not in site.service.deliveries._devices)
        received = 0
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(20):
                while part := await loop.sock_recv(slow, 1 << 20):
                    received += len(part)
        assert received < taken * len(payload)
    # What nobody took still waits for the device.
    await site.command("turn", "OFF")
    assert [each.command.payload for each in await site.stack.commands.undelivered(TENANT, site.device.id)] == ["OFF"]


@contextlib.asynccontextmanager
async def other_process(site):
    """A second API process, as far as the dialect is concerned: its own subscriptions, sessions and sockets."""
    stack, live, wire = site.stack, Live(site.stack.url), Wire(site.stack.url, "other")
    service = CloudThing(
        stack.url, auth=stack.auth, registry=stack.registry, intake=stack.intake, replies=stack.replies,
        commands=Commands(wire, PARTITIONS), live=live, answers=stack.answers, firmware=stack.firmware,
    )  # fmt: skip
    await live.start()
    await service.start()
    front = Front([CloudThingHttp(service)])
    url = await stack.listen("ct_http", server="hypercorn", app=front)
    mqtt_port = await stack.mqtt(CloudThingMqtt(service))
    try:
        yield service, url, mqtt_port
    finally:
        front.drain()
        await service.stop()
        await live.stop()
        await wire.close()


async def listening(port, lines):
    """mosquitto_sub, which prints that many commands."""
    return asyncio.create_task(
        call(
            require("mosquitto_sub"), "-h", "127.0.0.1", "-p", str(port), "-u", f"{TENANT}:{DEVICE}", "-P", TOKEN,
            "-t", f"v1/{DEVICE}/commands/+", "-C", str(lines), "-v", "-W", "15",
        )
    )  # fmt: skip


@pytest.mark.spec("CT-73", "CT-26", "CT-40")
async def test_every_live_session_of_every_process_gets_each_command_once_in_order(site, opened):
    count = 20
    async with other_process(site) as (service, url, mqtt_port):
        raws = [await opened(), await opened(), await opened(url=url)]
        programs = [await listening(site.mqtt_port, count), await listening(mqtt_port, count)]
        await until(lambda: attached(site, 3))
        here = site.service
        site.service = service
        await until(lambda: attached(site, 2))
        site.service = here
        for n in range(count):
            await site.command("n", str(n).zfill(2))
        chunks = b"".join(b"2;id=n\r\n%02d\r\n" % n for n in range(count))
        for raw in raws:
            assert await raw.read(len(chunks)) == chunks
            await raw.silent()
        lines = b"".join(b"v1/%s/commands/n %02d\n" % (DEVICE.encode(), n) for n in range(count))
        for program in programs:
            assert await program == (0, lines)
        assert await site.stack.commands.open(TENANT, site.device.id) == []
        late = await opened(url=url)
        await late.silent()


@pytest.mark.spec("CT-73")
async def test_a_process_that_missed_the_hint_gives_the_command_when_it_looks_again(site, opened):
    async with other_process(site) as (service, url, _):
        here, there = await opened(), await opened(url=url)
        await until(lambda: attached(site))
        deaf = service.deliveries._devices[site.device.id]
        await until(lambda: deaf.sessions[0].seen is not None)
        deaf.unlisten()
        await site.command("turn", "ON")
        chunk = b"2;id=turn\r\nON\r\n"
        assert await here.read(len(chunk)) == chunk
        await there.silent()
        service.deliveries.wake_all()
        assert await there.read(len(chunk)) == chunk


@pytest.mark.spec("CT-73", "CT-S9")
async def test_only_a_hundred_commands_wait_and_the_oldest_go_first(site, opened):
    await site.deploy(answering("return {msg = msg}"))
    for n in range(105):
        await site.stack.intake.submit([site.rpc("n", str(n).zfill(3))])
    await site.stack.idle()
    raw = await opened()
    chunks = b"".join(b"3;id=n\r\n%03d\r\n" % n for n in range(5, 105))
    assert await raw.read(len(chunks)) == chunks
