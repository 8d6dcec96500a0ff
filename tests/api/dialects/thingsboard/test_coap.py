"""The CoAP device API through a real socket, with aiocoap's client and libcoap's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Self

import pytest
import pytest_asyncio
from aiocoap import Context, Message
from aiocoap.numbers.codes import DELETE, GET, POST, PUT
from msgspec.structs import replace

from api import command_watch
from api.dialects.thingsboard import coap as coap_module
from api.dialects.thingsboard import coap_updates
from api.dialects.thingsboard.coap import MAX_BODY_BYTES, ThingsBoardCoap
from api.dialects.thingsboard.settings import Settings
from api.sockets import _listen_coap, shown
from api.transports.coap_server import CoapServer
from engine.node import Product
from engine.stores.registry import ACCESS_TOKEN, Credential
from tests.api.dialects.thingsboard.ota_site import IMAGE, OtaSite
from tests.api.dialects.thingsboard.site import TOKEN
from tests.api.stack import TENANT
from tests.engine.toy import until
from tests.services import require

pytestmark = pytest.mark.asyncio


class CoapSite(OtaSite):
    """A site that speaks CoAP too."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        listening = _listen_coap("127.0.0.1:0")
        self.port = int(shown(listening).rpartition(":")[2])
        self.surface = ThingsBoardCoap(self.parts)
        server = CoapServer([self.surface], listening)
        await server.start()
        self._exit.push_async_callback(self.surface.stop)
        self._exit.push_async_callback(server.stop, 1.0)
        self.coap = await Context.create_client_context(transports=["udp6"])
        self._exit.push_async_callback(self.coap.shutdown)
        self.pumps: list[asyncio.Task[None]] = []
        self._exit.push_async_callback(self.quiet)
        return self

    async def quiet(self) -> None:
        for pump in self.pumps:
            pump.cancel()
        await asyncio.gather(*self.pumps, return_exceptions=True)

    def uri(self, path: str, token: str = TOKEN) -> str:
        return f"coap://127.0.0.1:{self.port}/api/v1/{token}/{path}"

    async def ask(self, code: Any, path: str, body: bytes | str = b"", token: str = TOKEN) -> tuple[str, bytes]:
        """Code and payload of the answer; a path with a slash in front is the whole path."""
        uri = f"coap://127.0.0.1:{self.port}{path}" if path.startswith("/") else self.uri(path, token)
        message = Message(code=code, uri=uri, payload=body.encode() if isinstance(body, str) else body)
        async with asyncio.timeout(20):
            answer = await self.coap.request(message).response
        return said(answer), answer.payload

    async def observe(self, path: str) -> Observed:
        """Begin to observe; the first answer is there."""
        request = self.coap.request(Message(code=GET, uri=self.uri(path), observe=0))
        async with asyncio.timeout(10):
            first = await request.response
        observed = Observed(request, first)
        self.pumps.append(asyncio.create_task(observed.pump()))
        return observed


class Observed:
    """What a client that observes is told."""

    def __init__(self, request: Any, first: Any) -> None:
        self.request, self.first = request, first
        self.told: asyncio.Queue[Any] = asyncio.Queue()

    async def pump(self) -> None:
        async for notification in self.request.observation:
            self.told.put_nowait(notification)

    async def next(self) -> Any:
        """The JSON of the next notification, or its code when it is an error."""
        async with asyncio.timeout(20):
            notification = await self.told.get()
        return json.loads(notification.payload) if notification.code.is_successful() else said(notification)


def said(answer: Any) -> str:
    return f"{answer.code >> 5}.{answer.code & 31:02}"


@pytest_asyncio.fixture
async def site(redis_url: str) -> AsyncIterator[CoapSite]:
    async with CoapSite(redis_url) as made:
        yield made


@pytest.mark.spec("TB-X3", "TB-6", "TB-7", "TB-8", "TB-4")
@pytest.mark.parametrize(
    "body",
    [
        '{"temperature": 42, "flag": true}',
        '[{"temperature": 42}, {"flag": true}]',
        '{"ts": 1451649600512, "values": {"temperature": 42, "flag": true}}',
        "{temperature:42,flag:true}",
    ],
)
async def test_telemetry_in_its_forms_is_stored_before_it_is_acknowledged(site: CoapSite, body: str) -> None:
    assert await site.ask(POST, "telemetry", body) == ("2.01", b"")
    assert await site.latest(site.d1) == {"temperature": 42, "flag": True}


@pytest.mark.spec("TB-X3", "TB-62")
async def test_telemetry_of_a_products_own_making_goes_through_its_function(site: CoapSite) -> None:
    transform = {"lang": "js", "source": 'return {"temp": msg.bytes[0]}'}
    facets = {"payload": "custom", "transform": transform}
    await site.registry.put_product(Product(id="own", tenant=TENANT, facets=facets))
    device = await site.device("own", token="OWN", product="own")
    assert await site.ask(POST, "telemetry", b"\x2a", token="OWN") == ("2.01", b"")
    assert (await site.ask(POST, "telemetry", b"", token="OWN"))[0] == "4.00"
    assert await site.latest(device) == {"temp": 42}


@pytest.mark.spec("TB-X3", "TB-15", "TB-20", "TB-21")
async def test_attributes_are_set_and_asked_for(site: CoapSite) -> None:
    assert await site.ask(POST, "attributes", '{"attribute1": "value1", "attribute2": true}') == ("2.01", b"")
    await site.idle()
    await site.attributes.write(TENANT, site.d1.id, "SHARED", {"target": 21.0})
    await site.attributes.write(TENANT, site.d1.id, "SERVER", {"hidden": 1})
    code, body = await site.ask(GET, "attributes?clientKeys=attribute1,attribute2&sharedKeys=shared1")
    assert (code, json.loads(body)) == ("2.05", {"client": {"attribute1": "value1", "attribute2": True}})
    code, body = await site.ask(GET, "attributes")
    assert json.loads(body)["shared"] == {"target": 21.0}
    assert b"hidden" not in body


@pytest.mark.spec("TB-X3", "TB-S2", "TB-S4", "TB-S5", "TB-S10", "TB-S21", "TB-S22")
async def test_what_will_not_do_has_its_code_and_nothing_is_stored(site: CoapSite) -> None:
    for wanted, code, path, body in (
        ("4.00", POST, "telemetry", "{"),
        ("4.00", POST, "telemetry", "5"),
        ("4.00", POST, "telemetry", "[1]"),
        ("4.00", POST, "telemetry", b"\xff\xfe"),
        ("4.00", POST, "telemetry", ""),
        ("4.00", POST, "telemetry", json.dumps({"x" * 256: 1})),
        ("4.00", POST, "attributes", "[]"),
        ("4.00", POST, "rpc", "{}"),
        ("4.00", POST, "rpc", '{"method": "m"}'),
        ("4.00", POST, "rpc/x", "{}"),
        ("4.00", POST, "rpc/99999999999", "{}"),
        ("4.00", POST, "claim", "[]"),
        ("4.00", POST, "nothing", "{}"),
        ("4.00", GET, "nothing", ""),
        ("4.00", GET, "telemetry", ""),
        ("4.00", GET, "rpc", ""),
        ("4.00", GET, "/api/v1", ""),
        ("4.00", GET, f"/api/v1/{TOKEN}", ""),
        ("4.00", GET, "/api/v1/provision", ""),
        ("4.00", POST, "/api/v1/provision", "{}"),
        ("4.04", GET, "/api/v2", ""),
        ("4.04", GET, "/", ""),
        ("4.05", PUT, "telemetry", "{}"),
        ("4.05", DELETE, "attributes", ""),
        ("4.13", POST, "telemetry", json.dumps({"x": "y" * MAX_BODY_BYTES})),
        ("4.13", POST, "rpc/1", json.dumps("y" * 65_536)),
    ):
        answer = await site.ask(code, path, body)
        assert answer[0] == wanted, (path, body[:50], answer)
        assert answer[1].decode()
    assert await site.latest(site.d1) == {}


@pytest.mark.spec("TB-X3", "TB-S2", "TB-S40")
async def test_a_wrong_token_is_4_01_before_anything_else(site: CoapSite) -> None:
    large = json.dumps({"x": "y" * 5000})
    for code, path, body in (
        (POST, "telemetry", "{"), (POST, "telemetry", large), (GET, "attributes", ""), (POST, "rpc/1", "{"),
        (POST, "nothing", ""), (POST, "claim", ""), (GET, "/fw/WRONG?title=a&version=b", ""),
    ):  # fmt: skip
        assert (await site.ask(code, path, body, token="WRONG"))[0] == "4.01", path
    await site.registry.put_device(replace(site.d1, enabled=False))

    async def refused() -> bool:
        return (await site.ask(GET, "attributes"))[0] == "4.01"

    await until(refused)
    await site.registry.delete_device(TENANT, site.d1.id)
    assert (await site.ask(POST, "telemetry", "{}"))[0] == "4.01"


async def test_what_cannot_be_stored_is_refused_with_a_time(site: CoapSite) -> None:
    site.ingress.closed_reason = "spool full"
    assert await site.ask(POST, "telemetry", '{"a": 1}') == ("5.03", b"spool full")
    site.ingress.closed_reason = ""


@pytest.mark.spec("TB-X3", "TB-30", "TB-34")
async def test_observing_attributes_tells_what_is_shared_and_what_changes(site: CoapSite) -> None:
    write = site.attributes.write
    await write(TENANT, site.d1.id, "SHARED", {"target": 21})
    observed = await site.observe("attributes")
    assert (observed.first.opt.observe, json.loads(observed.first.payload)) == (0, {"target": 21})
    await write(TENANT, site.d1.id, "SHARED", {"target": 22, "mode": {"a": [1]}})
    assert await observed.next() == {"target": 22, "mode": {"a": [1]}}
    await write(TENANT, site.d1.id, "CLIENT", {"own": 1})
    await site.attributes.delete(TENANT, site.d1.id, "SHARED", ["mode"])
    assert await observed.next() == {"deleted": ["mode"]}
    observed.request.observation.cancel()


@pytest.mark.spec("TB-X3")
async def test_changes_that_the_bus_did_not_tell_are_found(site: CoapSite) -> None:
    observed = await site.observe("attributes")
    await site.live.stop()  # deaf, like a connection that hangs
    await site.attributes.write(TENANT, site.d1.id, "SHARED", {"unheard": 1})
    await site.live.start()
    site.live._tell_lost()
    assert await observed.next() == {"unheard": 1}
    observed.request.observation.cancel()


@pytest.mark.spec("TB-X3", "TB-41", "TB-42", "TB-43")
async def test_observing_rpc_is_a_subscription_to_commands(site: CoapSite) -> None:
    operator = await site.command("setGpio", {"pin": "23", "value": 1})
    observed = await site.observe("rpc")
    assert (said(observed.first), observed.first.opt.observe) == ("2.03", 0)
    assert await observed.next() == {"id": 1, "method": "setGpio", "params": {"pin": "23", "value": 1}}
    await site.command("second", "x" * 3000, oneway=True)
    assert (await observed.next())["params"] == "x" * 3000
    assert await site.ask(POST, "rpc/1", '{"result":"ok"}') == ("2.01", b"")
    assert (await operator.next(5)).data == {"result": "ok"}
    operator.__exit__()
    assert await site.ask(POST, "rpc/77", "{}") == ("2.01", b"")

    async def delivered() -> bool:
        return not await site.commands.open(TENANT, site.d1.id)

    await until(delivered)
    observed.request.observation.cancel()


@pytest.mark.spec("TB-X3", "TB-S18")
@pytest.mark.parametrize("path", ["rpc", "attributes"])
async def test_observing_ends_when_the_device_is_deleted(site: CoapSite, path: str) -> None:
    observed = await site.observe(path)
    await site.registry.delete_device(TENANT, site.d1.id)
    assert await observed.next() == "4.03"
    assert site.surface._watches == {}


@pytest.mark.spec("TB-X3")
@pytest.mark.parametrize("path", ["rpc", "attributes"])
async def test_observing_ends_when_the_token_is_another_one(
    site: CoapSite, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_watch, "LOOK_AGAIN_S", 0.05)
    monkeypatch.setattr(coap_updates, "LOOK_AGAIN_S", 0.05)
    observed = await site.observe(path)
    await asyncio.sleep(0.1)
    await site.registry.put_device(site.d1, [Credential(kind=ACCESS_TOKEN, value="NEW")])
    assert await observed.next() == "4.01"


@pytest.mark.spec("TB-X3", "TB-45", "TB-46", "TB-S22")
async def test_a_call_of_the_device_is_answered_by_the_chain(site: CoapSite) -> None:
    script = {"kind": "script", "config": {"source": "return {msg = {twice = msg.params.n * 2}}"}}
    nodes = {"ask": {**script, "to": {"Success": "reply"}}, "reply": {"kind": "rpc_reply"}}
    await site.deploy({"chain": "root", "start": "ask", "nodes": nodes})
    code, body = await site.ask(POST, "rpc", '{"method": "double", "params": {"n": 21}}')
    assert (code, json.loads(body)) == ("2.05", {"twice": 42})
    code, body = await site.ask(POST, "rpc", '{"method": "getSessionLimits", "params": {}}')
    assert "maxPayloadSize" in json.loads(body)


@pytest.mark.spec("TB-X3", "TB-S22")
async def test_a_call_that_nobody_answers_is_5_04(redis_url: str) -> None:
    async with CoapSite(redis_url, settings=Settings(rpc_s=0.3)) as site:
        assert (await site.ask(POST, "rpc", '{"method": "m", "params": {}}'))[0] == "5.04"


@pytest.mark.spec("TB-X3", "TB-50", "TB-S25")
async def test_claiming(site: CoapSite) -> None:
    assert await site.ask(POST, "claim", '{"secretKey": "s", "durationMs": 60000}') == ("2.01", b"")
    assert await site.claims.matches(site.d1.id, "s") is True
    await site.registry.set_owner(TENANT, site.d1.id, "somebody")
    code, reason = await site.ask(POST, "claim", "")
    assert (code, b"already claimed" in reason) == ("4.00", True)


@pytest.mark.spec("TB-X3", "TB-55", "TB-S30")
async def test_provisioning(site: CoapSite) -> None:
    facet = {"key": "k", "secret": "s", "strategy": "allow_new"}
    await site.registry.put_product(Product(id="p", tenant=TENANT, facets={"provision": facet}))
    asked = {"deviceName": "fresh", "provisionDeviceKey": "k", "provisionDeviceSecret": "s"}
    code, body = await site.ask(POST, "/api/v1/provision", json.dumps(asked))
    answer = json.loads(body)
    assert (code, answer["status"], answer["credentialsType"]) == ("2.01", "SUCCESS", "ACCESS_TOKEN")
    token = answer["credentialsValue"]
    assert await site.ask(POST, "telemetry", '{"a": 1}', token=token) == ("2.01", b"")
    code, body = await site.ask(POST, "/api/v1/provision", json.dumps({**asked, "provisionDeviceSecret": "stolen"}))
    assert (code, json.loads(body)["status"]) == ("4.00", "NOT_FOUND")


@pytest.mark.spec("TB-X3", "TB-61", "TB-S35", "TB-S36", "TB-S38")
@pytest.mark.parametrize(("root", "kind"), [("fw", "FIRMWARE"), ("sw", "SOFTWARE")])
async def test_packages_come_whole_and_in_chunks(site: CoapSite, root: str, kind: str) -> None:
    where = f"/{root}/{TOKEN}?title=fw&version=v2"
    assert (await site.ask(GET, where))[0] == "4.04"
    image = await site.upload(body=IMAGE[:5000], kind=kind)
    await site.assign(image, kind)
    assert await site.ask(GET, where) == ("2.05", IMAGE[:5000])
    chunks = [await site.ask(GET, f"{where}&size=2048&chunk={n}") for n in range(4)]
    assert [(code, len(body)) for code, body in chunks] == [("2.05", 2048), ("2.05", 2048), ("2.05", 904), ("2.05", 0)]
    assert b"".join(body for _, body in chunks) == IMAGE[:5000]
    for query in ("title=fw&version=v1", "title=x&version=v2", "title=fw", "version=v2", "title=fw&version=v2&size=-1",
                  "title=fw&version=v2&chunk=x"):  # fmt: skip
        assert (await site.ask(GET, f"/{root}/{TOKEN}?{query}"))[0] == "4.00", query


async def test_a_package_that_is_too_large_for_one_piece_says_so(
    site: CoapSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coap_module, "MOST_WHOLE_BYTES", 1000)
    await site.assign(await site.upload())
    code, reason = await site.ask(GET, f"/fw/{TOKEN}?title=fw&version=v2")
    assert (code, b"ask for chunks" in reason) == ("4.00", True)
    code, chunk = await site.ask(GET, f"/fw/{TOKEN}?title=fw&version=v2&size=1000&chunk=1")
    assert (code, chunk) == ("2.05", IMAGE[1000:2000])


async def libcoap(*arguments: str) -> bytes:
    """What libcoap's client prints."""
    process = await asyncio.create_subprocess_exec(
        require("coap-client-notls"), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(20):
        output, errors = await process.communicate()
    return output + errors


@pytest.mark.spec("TB-X3")
async def test_libcoap_sends_asks_and_fetches(site: CoapSite) -> None:
    assert await libcoap("-m", "post", "-B", "10", "-e", '{"temperature":42}', site.uri("telemetry")) == b""
    assert await site.latest(site.d1) == {"temperature": 42}
    assert await libcoap("-m", "post", "-B", "10", "-e", '{"own":"x"}', site.uri("attributes")) == b""
    await site.idle()
    shown = await libcoap("-m", "get", "-B", "10", site.uri("attributes?clientKeys=own"))
    assert json.loads(shown) == {"client": {"own": "x"}}
    assert (await libcoap("-m", "get", "-B", "10", site.uri("attributes", "WRONG"))).startswith(b"4.01")
    await site.assign(await site.upload(body=IMAGE[:3000]))
    where = f"coap://127.0.0.1:{site.port}/fw/{TOKEN}?title=fw&version=v2"
    assert (await libcoap("-m", "get", "-B", "10", where)).startswith(IMAGE[:3000])


@pytest.mark.spec("TB-X3")
async def test_libcoap_observes_commands(site: CoapSite) -> None:
    observing = asyncio.create_task(libcoap("-m", "get", "-s", "2", site.uri("rpc")))

    async def watching() -> bool:
        return bool(site.surface._watches)

    await until(watching)
    await site.command("turn", "ON")
    told = await observing
    assert b'"method":"turn"' in told
    assert b"4.0" not in told
    assert not await watching()
