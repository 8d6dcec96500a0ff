"""A small HTTP server that plays an InfluxDB and fails as told: enough of /ping, /query, /write, /api/v2/write."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

_LINE = re.compile(r"ts_kv,device=((?:\\.|[^, ])*),key=((?:\\.|[^, ])*),tenant=(?:\\.|[^, ])* (.*) (-?\d+)")


class Line(NamedTuple):
    """One point as it arrived: `fields` is the text between the tags and the time."""

    device: str
    key: str
    fields: str
    ts_ms: int


@dataclass(slots=True)
class Answer:
    """What a write is answered with, after `wait_s`; `keeps` says which lines are stored before (None: all)."""

    status: int = 204
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    keeps: Callable[[Line], bool] = lambda line: True
    raw: bytes | None = None
    """In place of status, headers and body; the connection is closed behind it. Empty: it is closed at once."""


def away(status: int = 503, retry_after: str = "0", body: str = '{"error":"engine: not ready"}') -> Answer:
    """Nothing is stored."""
    return Answer(status, body, {"Retry-After": retry_after}, keeps=lambda line: False)


def lost_reply() -> Answer:
    """All is stored, and nobody is told."""
    return Answer(raw=b"")


def hangs(*, keeps: bool = False) -> Answer:
    """Takes the lines and says nothing; if it keeps them, it does so when the other end has given up."""
    return Answer(wait_s=3600.0, keeps=lambda line: keeps)


def partial(lines: Sequence[Line], bad: Callable[[Line], bool], reason: str) -> Answer:
    """As 1.x and 2.x answer to lines of which they drop some."""
    dropped = sum(map(bad, lines))
    if not dropped:
        return Answer()
    error = f"partial write: {reason} dropped={dropped}"
    return Answer(400, json.dumps({"error": error}), keeps=lambda line: not bad(line))


class InfluxServer:
    """Keeps what is written; `behave(lines)` gives each write its answer."""

    def __init__(self, version: str = "1.6.7") -> None:
        self.version = version
        self.behave: Callable[[Sequence[Line]], Answer] = lambda lines: Answer()
        self.writes: list[list[Line]] = []
        """Every write that arrived, stored or not."""
        self.log: list[Line] = []
        """Every line in the order in which it was stored, again if it was."""
        self.points: dict[tuple[str, str, int], str] = {}
        self.paths: set[str] = set()
        self.in_flight = self.most_in_flight = 0
        self.databases: list[str] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen; again on the same port after a stop."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 24)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections, and cut those that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    def values(self, device: str, key: str = "n") -> list[int]:
        """Whole numbers of a series in the order in which each was stored first."""
        fields = dict.fromkeys(line.fields for line in self.log if (line.device, line.key) == (device, key))
        return [int(text[2:].split("i", 1)[0]) for text in fields if text.startswith("l=")]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        request, *fields = head.split("\r\n")
        method, target, _ = request.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in fields if line)}
        body = await _body(reader, headers)
        parts = urlsplit(target)
        self.paths.add(parts.path)
        if parts.path in ("/write", "/api/v2/write"):
            answer = await self._write(body.decode(), reader)
        elif parts.path == "/query":
            query = parse_qs(parts.query) | parse_qs(body.decode())
            answer = Answer(200, json.dumps(self._query(query.get("q", [""])[0])) + "\n")
        elif parts.path == "/ping":
            answer = Answer(204)
        else:
            answer = Answer(404, '{"error":"404 page not found"}')
        if answer.raw is not None:
            writer.write(answer.raw)
            await writer.drain()
            return False
        content = answer.body.encode()
        lines = [f"HTTP/1.1 {answer.status} Because", f"X-Influxdb-Version: {self.version}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        if answer.status != 204:
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        writer.write("\r\n".join((*lines, "", "")).encode() + (b"" if method == "HEAD" else content))
        await writer.drain()
        return True

    async def _write(self, text: str, reader: asyncio.StreamReader) -> Answer:
        lines = [_line(line) for line in text.splitlines()]
        if not lines:
            return Answer()
        self.writes.append(lines)
        answer = self.behave(lines)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if answer.wait_s:
                with suppress(TimeoutError):
                    # Nobody sends ahead: what comes is the end.
                    await asyncio.wait_for(reader.read(1), answer.wait_s)
        finally:
            self.in_flight -= 1
        for line in filter(answer.keeps, lines):
            self.log.append(line)
            self.points[line.device, line.key, line.ts_ms] = line.fields
        return answer

    def _query(self, text: str) -> Any:
        results = []
        for number, statement in enumerate(text.split(";")):
            words = statement.split()
            rows: tuple[list[str], list[list[Any]]] | None = None
            if words[:2] == ["CREATE", "DATABASE"]:
                self.databases.append(words[2].strip('"'))
            elif words[:2] == ["SHOW", "DATABASES"]:
                rows = ["name"], [[name] for name in self.databases]
            elif words[:2] == ["SHOW", "RETENTION"]:
                columns = ["name", "duration", "shardGroupDuration", "replicaN", "default"]
                rows = columns, [["autogen", "0s", "168h0m0s", 1, True]]
            series = [] if rows is None else [{"name": "", "columns": rows[0], "values": rows[1]}]
            results.append({"statement_id": number} | ({"series": series} if series else {}))
        return {"results": results}


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding") == "chunked":
        parts = []
        while size := int(await reader.readline(), 16):
            parts.append(await reader.readexactly(size))
            await reader.readline()
        await reader.readline()
        body = b"".join(parts)
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body


def _line(text: str) -> Line:
    found = _LINE.fullmatch(text)
    assert found is not None, f"not a line that we write: {text[:200]}"
    device, key, fields, ts = found.groups()
    return Line(device, key, fields, int(ts))


@asynccontextmanager
async def influx_server(version: str = "1.6.7") -> AsyncIterator[InfluxServer]:
    """A server that runs."""
    server = InfluxServer(version)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
