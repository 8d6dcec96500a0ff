"""The CoAP connector through a real socket, with aiocoap's client and libcoap's."""

import asyncio
import json

import cbor2
import pytest
import pytest_asyncio
from aiocoap import Context, Message
from aiocoap.numbers.codes import DELETE, GET, POST

from api.dialects.cloudthing.coap import MAX_BODY_BYTES, CloudThingCoap
from api.sockets import _listen_coap, shown
from api.transports.coap_server import CoapServer
from tests.api.dialects.cloudthing.fixtures import CUSTOM, ONE, ONE_CBOR, as_proto
from tests.api.dialects.cloudthing.site import DEVICE, TOKEN, answering, call, running
from tests.engine.toy import until
from tests.services import require

pytestmark = pytest.mark.asyncio


class Coap:
    """A server of the site, and a client of it."""

    def __init__(self, site, client, port):
        self.site, self.client, self.port = site, client, port
        self.tasks = []

    def uri(self, path="data", token=TOKEN, device=DEVICE):
        return f"coap://127.0.0.1:{self.port}/v1/{device}/{path}" + (f"?t={token}" if token else "")

    async def request(self, code, body=b"", path="data", format=None, **options):
        message = Message(code=code, uri=self.uri(path, **options), payload=body)
        if format is not None:
            message.opt.content_format = format
        async with asyncio.timeout(20):
            return await self.client.request(message).response

    async def post(self, body, format=50, path="data", **options):
        return await self.request(POST, body, path, format, **options)


async def serve(site, stack):
    listening = _listen_coap("127.0.0.1:0")
    port = int(shown(listening).rpartition(":")[2])
    server = CoapServer([CloudThingCoap(site.service)], listening)
    await server.start()
    stack.push_async_callback(server.stop, 1.0)
    return port


@pytest_asyncio.fixture
async def coap(site):
    port = await serve(site, site.stack._exit)
    client = await Context.create_client_context(transports=["udp6"])
    coap = Coap(site, client, port)
    try:
        yield coap
    finally:
        for task in coap.tasks:
            task.cancel()
        await asyncio.gather(*coap.tasks, return_exceptions=True)
        await coap.client.shutdown()


def code(response):
    return f"{response.code >> 5}.{response.code & 31:02}"


@pytest.mark.spec("CT-X4", "CT-62")
@pytest.mark.parametrize(
    ("body", "format"), [(ONE, 50), (ONE_CBOR, 60), (as_proto(json.loads(ONE)), 42), (CUSTOM, 0), (CUSTOM, None)]
)
async def test_data_in_each_format_is_stored_before_it_is_acknowledged(coap, body, format):
    response = await coap.post(body, format)
    assert (code(response), response.payload) == ("2.04", b"")
    assert await coap.site.points()


@pytest.mark.spec("CT-X4")
async def test_the_point_is_the_documented_one(coap):
    assert code(await coap.post(ONE)) == "2.04"
    assert [point[:2] for point in await coap.site.points()] == [("temp", 36.6)]


@pytest.mark.spec("CT-X4")
async def test_errors_have_codes_and_say_why(coap):
    site = coap.site
    big = json.dumps({"r": [{"k": "x", "v": "y" * MAX_BODY_BYTES}]}).encode()
    for wanted, request in (
        ("4.00", coap.post(b"{")),
        ("4.01", coap.post(ONE, token="wrong")),
        ("4.01", coap.post(ONE, token="")),
        ("4.01", coap.post(ONE, device="other")),
        ("4.04", coap.post(ONE, path="nothing")),
        ("4.05", coap.request(DELETE)),
        ("4.13", coap.post(big)),
        ("4.01", coap.post(big, token="wrong")),
    ):
        response = await request
        assert code(response) == wanted, response
        assert response.payload.decode()
    await site.disable()
    await until(lambda: said(coap, "4.03"))
    assert await site.points() == []


async def said(coap, wanted):
    return code(await coap.post(ONE)) == wanted


@pytest.mark.spec("CT-X4", "CT-S15")
async def test_credentials_can_be_checked(coap):
    assert code(await coap.request(GET)) == "2.05"
    assert code(await coap.request(GET, token="no")) == "4.01"


async def test_what_cannot_be_stored_is_refused_with_a_time(coap):
    coap.site.stack.ingress.closed_reason = "spool full"
    response = await coap.post(ONE)
    assert (code(response), response.payload, response.opt.max_age) == ("5.03", b"spool full", 1)


async def test_a_long_body_comes_in_blocks(coap):
    records = [{"k": f"key{n}", "v": n} for n in range(500)]
    assert code(await coap.post(cbor2.dumps({"r": records}), 60)) == "2.04"
    assert len(await coap.site.points()) == 500


@pytest.mark.spec("CT-X4")
async def test_an_event_is_answered_by_the_chain(coap):
    await coap.site.deploy(answering("return {msg = {twice = msg.n * 2}}"))
    response = await coap.post(b'{"n": 21}', path="events/sum")
    assert (code(response), response.payload, int(response.opt.content_format)) == ("2.04", b'{"twice":42}', 50)


async def test_a_long_answer_comes_in_blocks(coap):
    await coap.site.deploy(answering("return {msg = {long = string.rep('x', 5000)}}"))
    response = await coap.post(b"{}", path="events/long")
    assert json.loads(response.payload) == {"long": "x" * 5000}


async def test_an_event_that_nobody_answers(coap):
    response = await coap.post(b"{}", path="events/void")
    assert (code(response), response.payload) == ("2.04", b"")


@pytest.mark.spec("CT-X4")
async def test_waiting_commands_are_listed_once(coap):
    await coap.site.command("turn", "ON")
    [listed] = json.loads((await coap.request(GET, path="commands")).payload)
    assert (listed["id"], listed["payload"]) == ("turn", "ON")
    assert (await coap.request(GET, path="commands")).payload == b"[]"


async def pump(observation, notifications):
    async for notification in observation:
        notifications.put_nowait(notification)


async def observing(coap):
    request = coap.client.request(Message(code=GET, uri=coap.uri("commands"), observe=0))
    async with asyncio.timeout(10):
        first = await request.response
    notifications = asyncio.Queue()
    task = asyncio.create_task(pump(request.observation, notifications))
    coap.tasks.append(task)
    return request, first, notifications


async def take(notifications):
    async with asyncio.timeout(20):
        return await notifications.get()


@pytest.mark.spec("CT-X4", "CT-73")
async def test_commands_are_told_to_who_observes_and_queued_ones_first(coap):
    site = coap.site
    await site.command("queued", {"n": 1})
    request, first, notifications = await observing(coap)
    assert (first.opt.observe, first.payload) == (0, b"[]")
    await site.command("turn", "ON")
    await site.command("long", "x" * 3000)
    told = [json.loads((await take(notifications)).payload)[0] for _ in range(3)]
    assert [(each["id"], each["payload"]) for each in told] == [
        ("queued", {"n": 1}),
        ("turn", "ON"),
        ("long", "x" * 3000),
    ]

    async def delivered():
        return not await site.service.commands.undelivered(site.device.tenant, site.device.id)

    await until(delivered)
    request.observation.cancel()


async def test_a_command_that_the_device_does_not_confirm_stays_queued(coap):
    site = coap.site
    request, _, _ = await observing(coap)
    await coap.client.shutdown()
    await site.command("turn", "ON")
    [entry] = await site.service.commands.undelivered(site.device.tenant, site.device.id)
    assert entry.command.name == "turn"
    coap.client = await Context.create_client_context(transports=["udp6"])
    # The port is another one now: the old exchange goes on in vain beside this.
    request, _, notifications = await observing(coap)
    [told] = json.loads((await take(notifications)).payload)
    assert told["id"] == "turn"
    request.observation.cancel()


async def test_observing_ends_when_the_device_is_disabled(coap):
    _, _, notifications = await observing(coap)
    await coap.site.disable()
    last = await take(notifications)
    assert code(last) == "4.03"


async def test_an_answer_to_a_command_reaches_the_chain(coap):
    site = coap.site
    await site.command("ask", {}, oneway=False)
    assert code(await coap.post(b'{"ok": true}', path="responses/ask")) == "2.04"
    await site.stack.idle()
    assert await site.service.commands.open(site.device.tenant, site.device.id) == []


@pytest.mark.spec("CT-X4")
async def test_libcoap_sends_data_and_gets_the_answer_to_an_event(coap):
    program = require("coap-client-notls")
    status, output = await call(program, "-m", "post", "-t", "50", "-B", "10", "-e", ONE.decode(), coap.uri())
    assert (status, output) == (0, b"")
    assert [point[:2] for point in await coap.site.points()] == [("temp", 36.6)]
    await coap.site.deploy(answering("return {msg = {twice = msg.n * 2}}"))
    _, output = await call(program, "-m", "post", "-t", "50", "-B", "10", "-e", '{"n":2}', coap.uri("events/sum"))
    assert output.strip() == b'{"twice":4}'
    _, output = await call(program, "-m", "post", "-B", "10", "-e", "x", coap.uri(token="no"))
    assert output.startswith(b"4.01 wrong device id or token")


async def test_libcoap_observes_commands(coap):
    program = require("coap-client-notls")
    process = await asyncio.create_subprocess_exec(
        program, "-m", "get", "-s", "4", coap.uri("commands"), stdout=asyncio.subprocess.PIPE
    )
    await asyncio.sleep(1)
    await coap.site.command("turn", "ON")
    async with asyncio.timeout(20):
        output, _ = await process.communicate()
    assert b'"id":"turn"' in output


async def test_a_server_that_stops_answers_what_it_has_in_hand(redis_url):
    async with running(redis_url) as site:
        listening = _listen_coap("127.0.0.1:0")
        server = CoapServer([CloudThingCoap(site.service)], listening)
        port = int(shown(listening).rpartition(":")[2])
        await server.start()
        client = await Context.create_client_context(transports=["udp6"])
        slow = {"chain": "slow", "start": "wait", "nodes": {
            "wait": {"kind": "delay", "config": {"delay_s": 1}, "to": {"Success": "reply"}},
            "reply": {"kind": "rpc_reply"},
        }}  # fmt: skip
        await site.deploy(slow)
        uri = f"coap://127.0.0.1:{port}/v1/{DEVICE}/events/e?t={TOKEN}"
        pending = client.request(Message(code=POST, uri=uri, payload=b'{"n":1}')).response
        await asyncio.sleep(0.5)
        await server.stop(10.0)
        async with asyncio.timeout(5):
            assert (await pending).payload == b'{"n":1}'
        await server.stop(1.0)
        await client.shutdown()
