"""The front: ownership, routing, errors, streams, CORS; each over real sockets with both servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

import httpx
import pytest
import pytest_asyncio

from api.transports import http_exchange
from api.transports.http import Front, Gone, HttpError, Request, Response, Route, Stream
from engine.errors import BadInput, Refused
from tests.api.transports.serving import Served, serving
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio


class Things:
    """A surface below /things that tells what it saw."""

    name = "things"
    cors = True

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.gone = asyncio.Event()
        self.future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.routes = (
            Route("POST", "/things/{a}/echo", self.echo),
            Route("GET", "/things/{a}/echo", self.echo),
            Route("GET", "/things/fixed/echo", self.fixed),
            Route("GET", "/things/{a}/stream", self.stream),
            Route("GET", "/things/raise/{what}", self.fail),
            Route("GET", "/things/wait", self.wait),
            Route("GET", "/things/client", self.client),
        )

    def owns(self, request: Request) -> bool:
        return request.segments[:1] == ("things",)

    def error(self, request: Request, status: int, reason: str, headers: Any = ()) -> Response:
        return Response(status, f"things: {reason}".encode(), headers)

    async def echo(self, request: Request, params: dict[str, str]) -> Response:
        body = await request.body(10)
        shown = (params["a"], body, request.query, request.listener, request.tls, request.header("X-Own"))
        return Response(200, repr(shown).encode(), ((b"x-made", b"1"),))

    async def client(self, request: Request, params: dict[str, str]) -> Response:
        return Response(200, request.client.encode())

    async def fixed(self, request: Request, params: dict[str, str]) -> Response:
        return Response(204)

    async def stream(self, request: Request, params: dict[str, str]) -> Stream:
        async def chunks() -> AsyncIterator[bytes]:
            try:
                for i in range(3 if params["a"] == "short" else 10_000):
                    yield b"%d\n" % i
                    await asyncio.sleep(0.01)
            finally:
                self.closed.set()

        return Stream(200, ((b"x-made", b"2"),), chunks())

    async def fail(self, request: Request, params: dict[str, str]) -> Response:
        errors = {
            "input": BadInput("wrong", "/a"), "refused": Refused("full", 7), "http": HttpError(418, "tea"),
            "bug": ZeroDivisionError(),
        }  # fmt: skip
        raise errors[params["what"]]

    async def wait(self, request: Request, params: dict[str, str]) -> Response:
        try:
            return Response(200, str(await request.wait(asyncio.shield(self.future), 0.3)).encode())
        except Gone:
            self.gone.set()
            raise


Server = Literal["uvicorn", "hypercorn"]


@pytest_asyncio.fixture(params=["uvicorn", "hypercorn"])
async def served(request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    things = Things()
    async with serving(Front([things]), request.param) as made:
        made.surface = things
        yield made


@pytest.mark.spec("G-27")
async def test_a_request_as_handlers_see_it(served: Served) -> None:
    answer = await served.http.post(
        "/things/a%2Fb%20c/echo/?q=1&q=2&e=&u=a%20b+c", content=b"body", headers={"x-own": "y"}
    )
    assert answer.status_code == 200
    assert answer.text == repr(("a/b c", b"body", {"q": "1", "e": "", "u": "a b c"}, "http", False, "y"))
    assert answer.headers["x-made"] == "1"


async def test_a_spelled_out_part_wins(served: Served) -> None:
    answer = await served.http.get("/things/fixed/echo")
    assert (answer.status_code, answer.content) == (204, b"")
    # The method is another's: the place of the spelled-out part decides.
    assert (await served.http.post("/things/fixed/echo", content=b"")).status_code == 405


@pytest.mark.spec("G-7", "G-27")
@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/", 404, b'{"message":"Not Found"}'),
        ("GET", "/other", 404, b'{"message":"Not Found"}'),
        ("GET", "/thing%73", 404, b"things: Not Found"),
        ("GET", "/things", 404, b"things: Not Found"),
        ("GET", "/things//echo", 404, b"things: Not Found"),
        ("GET", "/things/a/echo//", 404, b"things: Not Found"),
        ("DELETE", "/things/a/echo", 405, b"things: Method Not Allowed"),
        ("POST", "/things/a/echo", 413, b"things: Payload size exceeds the limit of 10 bytes"),
        ("GET", "/things/raise/input", 400, b"things: /a: wrong"),
        ("GET", "/things/raise/refused", 503, b"things: full"),
        ("GET", "/things/raise/http", 418, b"things: tea"),
        ("GET", "/things/raise/bug", 500, b"things: Internal Server Error"),
    ],
)
async def test_errors_take_the_owners_shape(served: Served, method: str, path: str, status: int, body: bytes) -> None:
    answer = await served.http.request(method, path, content=b"x" * 11 if status == 413 else b"")
    assert (answer.status_code, answer.content) == (status, body)
    assert answer.headers.get("allow") == ("GET, POST" if status == 405 else None)
    assert answer.headers.get("retry-after") == ("7" if status == 503 else None)


async def test_a_stream_flows_and_is_closed_at_its_end(served: Served) -> None:
    answer = await served.http.get("/things/short/stream")
    assert (answer.content, answer.headers["transfer-encoding"]) == (b"0\n1\n2\n", "chunked")
    assert served.surface.closed.is_set()


async def test_a_stream_is_closed_when_its_reader_leaves(served: Served) -> None:
    async with served.http.stream("GET", "/things/long/stream") as answer:
        assert await anext(answer.aiter_bytes()) == b"0\n"
    async with asyncio.timeout(5):
        await served.surface.closed.wait()


async def test_waiting_ends_with_the_event_the_time_or_the_client(served: Served) -> None:
    assert (await served.http.get("/things/wait")).content == b"None"
    waiting = asyncio.create_task(served.http.get("/things/wait"))
    await until(lambda: served.front._held.waiting)
    waiting.cancel()
    async with asyncio.timeout(5):
        await served.surface.gone.wait()
    assert not served.front._held.waiting
    served.surface.future.set_result("now")
    assert (await served.http.get("/things/wait")).content == b"now"


async def test_bodies_together_have_a_limit(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_exchange, "MAX_BODIES_BYTES", 4)

    async def parts() -> AsyncIterator[bytes]:
        yield b"abc"
        await asyncio.sleep(0.05)
        yield b"def"

    assert (await served.http.post("/things/a/echo", content=parts())).status_code == 503
    assert served.front._held.body_bytes == 0
    monkeypatch.undo()
    assert (await served.http.post("/things/a/echo", content=parts())).status_code == 200


@pytest.mark.spec("G-28")
@pytest.mark.parametrize(("origin", "allowed"), [("https://good", "https://good"), ("https://bad", None), (None, None)])
async def test_only_listed_origins(origin: str | None, allowed: str | None) -> None:
    async with serving(Front([Things()], cors_origins=["https://good"])) as made:
        headers = {} if origin is None else {"origin": origin}
        answer = await made.http.get("/things/a/echo", headers=headers)
        assert answer.headers.get("access-control-allow-origin") == allowed
        assert answer.headers["vary"] == "Origin"


@pytest.mark.spec("G-28")
async def test_a_preflight_is_for_what_exists(served: Served) -> None:
    asks = {"origin": "https://x", "access-control-request-method": "POST"}
    answer = await served.http.options("/things/a/echo", headers=asks)
    assert (answer.status_code, answer.headers["access-control-allow-methods"]) == (204, "GET, POST")
    assert "content-length" not in answer.headers
    assert (await served.http.options("/things/nothing", headers=asks)).status_code == 404
    assert (await served.http.options("/things/a/echo")).status_code == 405


@pytest.mark.spec("G-3")
@pytest.mark.parametrize(("proxies", "tls"), [(["127.0.0.1"], True), (["10.0.0.1"], False), ([], False)])
async def test_a_forwarded_scheme_counts_only_from_a_trusted_proxy(proxies: list[str], tls: bool) -> None:
    async with serving(Front([Things()], trusted_proxies=proxies)) as made:
        answer = await made.http.get("/things/a/echo", headers={"x-forwarded-proto": "https"})
        assert answer.text == repr(("a", b"", {}, "http", tls, None))


@pytest.mark.spec("G-3")
@pytest.mark.parametrize(
    ("proxies", "told", "scheme"),
    [
        (["127.0.0.1"], "https", "https"), (["127.0.0.1"], "http", "http"), (["127.0.0.1"], None, "http"),
        (["10.0.0.1"], "https", "http"),
    ],
)  # fmt: skip
async def test_a_mounted_application_is_told_of_tls_by_a_trusted_proxy_too(
    proxies: list[str], told: str | None, scheme: str
) -> None:
    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["scheme"].encode()})

    async with serving(Front([Things()], trusted_proxies=proxies, mounts={"live": mounted})) as made:
        headers = {} if told is None else {"x-forwarded-proto": told}
        assert (await made.http.get("/live/x", headers=headers)).text == scheme


@pytest.mark.parametrize(
    ("proxies", "told", "client"),
    [
        ([], "10.9.9.9", "127.0.0.1"),
        (["10.0.0.1"], "10.9.9.9", "127.0.0.1"),
        (["127.0.0.1"], "10.9.9.9", "10.9.9.9"),
        (["127.0.0.1"], "1.2.3.4, 10.9.9.9", "10.9.9.9"),
        (["127.0.0.1", "10.0.0.1"], "1.2.3.4,10.9.9.9, 10.0.0.1", "10.9.9.9"),
        (["127.0.0.1"], "", "127.0.0.1"),
        (["127.0.0.1"], None, "127.0.0.1"),
    ],
)
async def test_a_forwarded_address_counts_only_from_a_trusted_proxy(
    proxies: list[str], told: str | None, client: str
) -> None:
    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["client"][0].encode()})

    async with serving(Front([Things()], trusted_proxies=proxies, mounts={"live": mounted})) as made:
        headers = {} if told is None else {"x-forwarded-for": told}
        for path in ("/things/client", "/live/x"):
            assert (await made.http.get(path, headers=headers)).text == client


async def test_paths_of_the_management_api_go_behind() -> None:
    async def behind(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    async with serving(Front([Things()], behind)) as made:
        for path in ("/flow/v1/x/", "/livez", "/readyz", "/healthz", "/metrics"):
            assert (await made.http.get(path)).text == path
        assert (await made.http.get("/flows")).status_code == 404


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
async def test_stopping_lets_a_request_end(server: Server) -> None:
    things = Things()
    async with serving(Front([things]), server) as made:
        waiting = asyncio.create_task(made.http.get("/things/wait"))
        await until(lambda: made.front._held.waiting)
        await made.listener.stop(5.0)
        assert (await waiting).status_code == 200
        with pytest.raises(httpx.ConnectError):
            await made.http.get("/things/wait")


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
async def test_stopping_cuts_what_does_not_end(server: Server) -> None:
    things = Things()
    async with serving(Front([things]), server) as made:

        async def read() -> None:
            async with made.http.stream("GET", "/things/long/stream") as answer:
                async for _ in answer.aiter_bytes():
                    pass

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.1)
        await made.listener.stop(0.2)
        with pytest.raises(httpx.HTTPError):
            await reading
        assert things.closed.is_set()


async def test_two_routes_in_one_place_are_a_mistake() -> None:
    """Told when the front is made, not when the path is asked for."""

    class Twice:
        name, cors = "twice", False
        routes = (Route("GET", "/a/{b}", None), Route("GET", "/a/{c}", None))

    with pytest.raises(ValueError, match="two routes for GET"):
        Front([Twice()])


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
@pytest.mark.parametrize("target", [b"a", b"*", b"things,x", b"%2f", b"?x", b"//", b"http://x", b"http:/x"])
async def test_a_target_that_is_no_path_is_the_clients_mistake(server: Any, target: bytes) -> None:
    async with serving(Front([Things()], mounts={"live": Front([])}), server) as made:
        reader, writer = await made.raw(b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target)
        async with asyncio.timeout(5):
            answer = await reader.read()
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))
        writer.close()
