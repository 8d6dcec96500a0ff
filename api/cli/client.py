"""The management API as the verbs use it: where the server is, with which token, for which tenant."""

from __future__ import annotations

import functools
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Self
from urllib.parse import quote

import click

from api.cli.address import START, complete, is_local
from api.cli.output import Failed

if TYPE_CHECKING:
    import httpx

P = ParamSpec("P")

BASE: Final = "/flow/v1"
CONNECT_S: Final = 5.0
ANSWER_S: Final = 30.0
PAGE: Final = 1000
"""Entries that a list gives at a time, at most."""
DEMO: Final = "demo"


def with_server(*, tenant: bool = True, token: str = "--token") -> Callable[..., Callable[..., None]]:
    """Give a verb the flags that say which server, and that Server as its first argument.

    A verb that has a `--token` of its own takes the operator's as `--operator-token` only.
    """

    def decorate(verb: Callable[Concatenate[Server, P], None]) -> Callable[..., None]:
        @functools.wraps(verb)
        def with_flags(
            *args: Any, url: str | None, operator_token: str | None, tenant: str | None = None, **kwargs: Any
        ) -> None:
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):
                    # A terminal that cannot show a character is no reason to fail.
                    stream.reconfigure(errors="backslashreplace")
            with Server(url, operator_token, tenant) as server:
                verb(server, *args, **kwargs)

        names = dict.fromkeys((token, "--operator-token"))
        options = [
            click.option("--url", metavar="URL", envvar="RULEMILL_URL", help="The server (or RULEMILL_URL)."),
            click.option(*names, "operator_token", metavar="TOKEN", envvar="RULEMILL_TOKEN",
                         help="The operator's token (or RULEMILL_TOKEN)."),
        ]  # fmt: skip
        if tenant:
            options.append(
                click.option("--tenant", metavar="NAME", envvar="RULEMILL_TENANT", help="Whose (or RULEMILL_TENANT).")
            )
        command: Callable[..., None] = with_flags
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class Server:
    """A server's management API. What it answers that is no success is raised as Failed, one line for each finding.

    Whatever is not given is taken from the `ready.json` of a server that runs on this data folder. Its token goes to
    its own address only.
    """

    def __init__(self, url: str | None, token: str | None, tenant: str | None) -> None:
        self._url, self._token, self._tenant = url or "", token or "", tenant
        self._client: httpx.Client | None = None
        self._names: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()

    @property
    def url(self) -> str:
        """Where the server is."""
        self._connect()
        return self._url

    @property
    def tenant(self) -> str:
        """The tenant as named, else the only one, else the demo's; Failed when none of these is clear."""
        if self._tenant is None:
            names = [one["name"] for one in self.get("/tenants")["tenants"]]
            if not names:
                raise Failed("there is no tenant yet: make one with `rulemill tenant add NAME`")
            if len(names) > 1 and DEMO not in names:
                shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
                raise Failed(f"there are several tenants: name one with --tenant or RULEMILL_TENANT ({shown})")
            self._tenant = names[0] if len(names) == 1 else DEMO
        return self._tenant

    def of_tenant(self, *steps: str) -> str:
        """The path of something of the tenant."""
        return path("tenants", self.tenant, *steps)

    def get(self, where: str, query: Mapping[str, Any] | None = None) -> Any:
        """What is there."""
        return self.call("GET", where, query=query)

    def call(
        self, method: str, where: str, body: Any = None, *, query: Mapping[str, Any] | None = None,
        answer_s: float = ANSWER_S, also: tuple[int, ...] = (),
    ) -> Any:  # fmt: skip
        """The answer's JSON, None if it has none. Bytes go as they are. `also`: statuses that are no failure here."""
        import httpx

        client = self._connect()
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            answer = client.request(
                method, self._at(where), content=content, params=_given(query),
                timeout=httpx.Timeout(answer_s, connect=CONNECT_S),
            )  # fmt: skip
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error
        return self._read(answer, also)

    def lines(self, where: str, query: Mapping[str, Any], silent_s: float) -> Iterator[Any]:
        """The JSON of each line as it comes; Failed after `silent_s` seconds without one."""
        with self._streamed(where, query, silent_s) as answer:
            for line in answer.iter_lines():
                yield self._decoded(line, answer)

    def stream(self, where: str, query: Mapping[str, Any], silent_s: float) -> Iterator[bytes]:
        """The answer as it comes; Failed if it ends before its end, or after `silent_s` seconds without more of it."""
        with self._streamed(where, query, silent_s) as answer:
            yield from answer.iter_bytes()

    @contextmanager
    def _streamed(self, where: str, query: Mapping[str, Any], silent_s: float) -> Iterator[httpx.Response]:
        import httpx

        client = self._connect()
        timeout = httpx.Timeout(silent_s, connect=CONNECT_S)
        try:
            with client.stream("GET", self._at(where), params=_given(query), timeout=timeout) as answer:
                if not answer.is_success:
                    answer.read()
                    self._read(answer, ())
                yield answer
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error

    def pages(
        self, where: str, items: str, query: Mapping[str, Any] | None = None, *, cursor: str = "cursor",
        page: int = PAGE,
    ) -> Iterator[dict[str, Any]]:  # fmt: skip
        """All entries of a list, read page by page as they are asked for."""
        at = ""
        while True:
            answer = self.get(where, {**(query or {}), "limit": page, cursor: at})
            yield from answer[items]
            at = answer[cursor]
            if not at:
                return

    def device_name(self, id: str) -> str:
        """The name of a device, or the id again if there is none of it any more."""
        if id not in self._names:
            try:
                self._names[id] = str(self.get(self.of_tenant("devices", id))["name"])
            except Failed:
                self._names[id] = id
        return self._names[id]

    def _connect(self) -> httpx.Client:
        if self._client is None:
            import ssl

            import httpx

            self._url, token = complete(self._url, self._token)
            secure, local = self._url.startswith("https:"), is_local(self._url)
            # Reading all certificate authorities takes longer than a call; without TLS nobody asks for them.
            tls = ssl.create_default_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            # A proxy of the environment leads to the world, not to this machine.
            self._client = httpx.Client(headers={"Authorization": f"Bearer {token}"}, verify=tls, trust_env=not local)
        return self._client

    def _at(self, where: str) -> str:
        return f"{self._url}{where}" if where.startswith("/readyz") else f"{self._url}{BASE}{where}"

    def _read(self, answer: httpx.Response, also: tuple[int, ...]) -> Any:
        if not answer.is_success and answer.status_code not in also:
            raise Failed(*self._reasons(answer))
        return self._decoded(answer.content, answer) if answer.content else None

    def _decoded(self, text: bytes | str, answer: httpx.Response) -> Any:
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Failed(self._stranger(answer))
        return found

    def _reasons(self, answer: httpx.Response) -> list[str]:
        """What a problem says: a line for each finding with its place, else the whole in one."""
        try:
            problem = answer.json()
            reasons = [_reason(fault["pointer"], fault["message"]) for fault in problem["errors"]]
            detail = str(problem["detail"])
        except (ValueError, KeyError, TypeError):
            return [self._stranger(answer)]
        if answer.status_code == HTTPStatus.UNAUTHORIZED:
            return [f"{detail}: look at --token or RULEMILL_TOKEN"]
        if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
            return [f"the server cannot do it now: {detail}; try again in {answer.headers.get('Retry-After', 1)} s"]
        return reasons or [detail]

    def _stranger(self, answer: httpx.Response) -> str:
        return f"{self._url} answered {answer.status_code}, but not as Rulemill does: look at --url or RULEMILL_URL"

    def _unreachable(self, error: Exception) -> Failed:
        import httpx

        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return Failed(f"no server answers at {self._url} ({error}): {START}")
        if isinstance(error, httpx.TimeoutException):
            return Failed(f"{self._url} did not answer in time")
        return Failed(f"the connection to {self._url} broke: {error or type(error).__name__}")


def path(*steps: str) -> str:
    """A path of the API; Failed for a step that a path cannot hold."""
    for step in steps:
        if not step:
            raise Failed("a name cannot be empty")
        if "/" in step:
            raise Failed(f"{step!r} has a slash, which no path can name: use the id")
    # Two dots would lead elsewhere.
    return "".join("/" + (quote(step, safe="") if step.strip(".") else step.replace(".", "%2E")) for step in steps)


def _reason(pointer: str, message: str) -> str:
    """A finding; of a query parameter or of the whole, the message says it all."""
    return message if not pointer or pointer.startswith("?") else f"{pointer}: {message}"


def _given(query: Mapping[str, Any] | None) -> dict[str, Any] | None:
    found = {name: value for name, value in (query or {}).items() if value not in (None, "")}
    return found or None
