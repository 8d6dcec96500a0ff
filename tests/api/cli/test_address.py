"""How the verbs find their server, its token and the tenant, and what they say when they do not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.api.cli.serving import Demo, rulemill
from tests.services import free_port


@contextmanager
def stranger(body: bytes, status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """A server that answers everything alike; its address, and the Authorization of every request."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers.get("Authorization", ""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", heard
        finally:
            server.shutdown()
            thread.join()


def one_line(text: str) -> str:
    (line,) = text.splitlines()
    return line


def test_no_server_anywhere(tmp_path: Path) -> None:
    ran = rulemill(tmp_path / "data", "device", "list")
    assert (ran.code, ran.out) == (1, "")
    assert one_line(ran.err) == (
        f"rulemill: no server runs on {tmp_path / 'data'}: start one with `rulemill up`, "
        "or set RULEMILL_URL and RULEMILL_TOKEN"
    )


def test_the_server_that_is_named_is_not_there(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    ran = rulemill(tmp_path, "status", RULEMILL_URL=url, RULEMILL_TOKEN="t")
    assert ran.code == 1
    assert one_line(ran.err).startswith(f"rulemill: no server answers at {url} (")
    assert "`rulemill up`" in ran.err


@pytest.mark.parametrize("url", ["foo", "ftp://x", "http://", "http://[::1", "http://x:99999", "http://x:0"])
def test_what_is_no_address(tmp_path: Path, url: str) -> None:
    ran = rulemill(tmp_path, "status", "--url", url, "--token", "t")
    assert ran.code == 1
    assert "is no address of a server" in one_line(ran.err)


@pytest.mark.parametrize("token", ["grün", "a\nb"])
def test_what_is_no_token(tmp_path: Path, token: str) -> None:
    ran = rulemill(tmp_path, "status", "--url", "http://127.0.0.1:1", "--token", token)
    assert ran.code == 1
    assert "characters that no token has" in one_line(ran.err)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_ready_file_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "ready.json").write_text(text)
    ran = rulemill(tmp_path, "status")
    assert ran.code == 1
    assert "ready.json is no JSON object" in one_line(ran.err)


@pytest.mark.parametrize(("body", "status"), [(b"<html>", 200), (b"<html>", 404), (b"[]", 200), (b'{"a": 1}', 400)])
def test_another_kind_of_server(tmp_path: Path, body: bytes, status: int) -> None:
    with stranger(body, status) as (url, _):
        ran = rulemill(tmp_path, "tenant", "list", RULEMILL_URL=url, RULEMILL_TOKEN="t")
    assert ran.code == 1
    assert f"{url} answered {status}, but not as Rulemill does" in one_line(ran.err)


def test_the_token_of_this_machine_goes_to_no_other(demo: Demo) -> None:
    with stranger(b"{}") as (url, heard):
        ran = demo("status", RULEMILL_URL=url)
    assert ran.code == 1
    assert one_line(ran.err) == f"rulemill: there is no token for {url}: set RULEMILL_TOKEN, or give --token"
    assert heard == []


def test_address_and_token_from_variables_and_flags(demo: Demo, tmp_path: Path) -> None:
    url, token = demo.facts["http"], demo.facts["operator_token"]
    assert rulemill(tmp_path, "tenant", "list", RULEMILL_URL=url + "/", RULEMILL_TOKEN=token).code == 0
    flags = ("--url", url, "--token", token)
    assert rulemill(tmp_path, "tenant", "list", *flags, RULEMILL_URL="http://x", RULEMILL_TOKEN="y").code == 0
    assert demo("tenant", "list", http_proxy="http://127.0.0.1:1", HTTP_PROXY="http://127.0.0.1:1").code == 0


def test_a_wrong_token(demo: Demo) -> None:
    ran = demo("tenant", "list", "--token", "wrong")
    assert ran.code == 1
    assert one_line(ran.err) == "rulemill: the operator token is not right: look at --token or RULEMILL_TOKEN"


class TestTenant:
    def test_one_that_is_named(self, demo: Demo) -> None:
        demo("tenant", "add", "named")
        made = demo("device", "add", "there", "--tenant", "named", "--json").json
        assert made["tenant"] == "named"
        assert [one["name"] for one in demo("device", "list", "--json", RULEMILL_TENANT="named").json] == ["there"]

    def test_the_demo_if_there_are_several(self, demo: Demo) -> None:
        demo("tenant", "add", "several")
        assert demo("device", "show", "demo-sensor", "--json").json["tenant"] == "demo"

    def test_none_is_clear(self, tmp_path: Path) -> None:
        tenants = json.dumps({"tenants": [{"name": "farm"}, {"name": "mill"}]}).encode()
        with stranger(tenants) as (url, _):
            ran = rulemill(tmp_path, "device", "list", RULEMILL_URL=url, RULEMILL_TOKEN="t")
        assert ran.code == 1
        assert one_line(ran.err) == (
            "rulemill: there are several tenants: name one with --tenant or RULEMILL_TENANT (farm, mill)"
        )

    def test_there_is_none(self, tmp_path: Path) -> None:
        with stranger(b'{"tenants": []}') as (url, _):
            ran = rulemill(tmp_path, "chain", "list", RULEMILL_URL=url, RULEMILL_TOKEN="t")
        assert ran.code == 1
        assert "`rulemill tenant add NAME`" in one_line(ran.err)

    def test_one_that_does_not_exist(self, demo: Demo) -> None:
        ran = demo("alarm", "list", "--tenant", "nobody")
        assert (ran.code, ran.err) == (1, "rulemill: no tenant 'nobody'\n")
