"""A small HTTP server that plays what versions of InfluxDB say when a store opens: a table of answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web


class Said(NamedTuple):
    """An answer; a dict or list as its body is JSON."""

    status: int = 200
    body: Any = ""
    headers: Mapping[str, str] = {}


class Asked(NamedTuple):
    """A request that came."""

    what: str
    """Method and path, and for /query the statement, as the table has it."""
    authorization: str
    params: Mapping[str, str]
    json: Any


class Played:
    """The server: `answers` by `GET /ping` or by the statement of a query; `asked` is what came."""

    def __init__(self, answers: Mapping[str, Said | list[Said]]) -> None:
        self.answers = {what: list(said) if isinstance(said, list) else [said] for what, said in answers.items()}
        self.asked: list[Asked] = []
        self.url = ""

    def authorizations(self, path: str) -> set[str]:
        """What requests to a path had as their authorization."""
        return {asked.authorization for asked in self.asked if path in asked.what}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        params, json = dict(request.query), None
        what = f"{request.method} {request.path}"
        if request.content_type == "application/json" and request.can_read_body:
            json = await request.json()
        elif request.path == "/query":
            params |= {name: str(value) for name, value in (await request.post()).items()}
            what = params["q"]
        elif request.can_read_body:
            json = (await request.read()).decode()
        self.asked.append(Asked(what, request.headers.get("Authorization", ""), params, json))
        said = self.answers.get(what) or self.answers.get(request.path) or [Said(404, "404 page not found")]
        status, body, headers = said.pop(0) if len(said) > 1 else said[0]
        if isinstance(body, dict | list):
            return web.json_response(body, status=status, headers=headers)
        return web.Response(status=status, text=body if status != 204 else None, headers=headers)


@asynccontextmanager
async def played(answers: Mapping[str, Said | list[Said]]) -> AsyncIterator[Played]:
    """The server, running."""
    server = Played(answers)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()
