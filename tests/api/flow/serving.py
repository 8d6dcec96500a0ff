"""The management API on a real socket, with everything behind it running."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from api.accounts import Accounts
from api.flow.app import create_app
from api.flow.operation import Parts, token_digest
from api.flow.point_tailing import PointTail
from api.flow.tailing import TailHub
from api.login_throttle import LoginThrottle
from api.passwords import Passwords
from api.server_messages import ServerMessages
from engine.stores.alarm_store import AlarmStore
from engine.stores.apps.activations import Activations
from engine.stores.apps.apps import Apps
from engine.stores.apps.users import Users
from engine.stores.people import People
from nodes.catalogue import Catalogue
from tests.api.stack import PARTITIONS, TENANT, Stack

TOKEN = "test-operator-token"
T = f"/flow/v1/tenants/{TENANT}"


class FlowStack(Stack):
    """A Stack whose front serves the management API; `flow` is a client with the operator's token."""

    flow: httpx.AsyncClient
    anonymous: httpx.AsyncClient
    parts: Parts

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        passwords = Passwords()
        self._exit.callback(passwords.close)
        tail, point_tail = TailHub(self.url, self.redis), PointTail(self.url, self.redis, self.registry)
        self.parts = Parts(
            wire=self.wire, redis=self.redis, partitions=PARTITIONS, ingress=self.ingress, replies=self.replies,
            registry=self.registry, repository=self.chains, catalogue=Catalogue(), commands=self.commands,
            dead_letters=self.dead, attributes=self.attributes, alarms=AlarmStore(self.wire, PARTITIONS),
            store=self.store, tail=tail, point_tail=point_tail, firmware=self.firmware, rollouts=self.rollouts,
            tokens=frozenset({token_digest(TOKEN)}), messages=ServerMessages(self.ingress, self.intake.stamp),
            apps=Apps(self.redis, self.registry), app_users=Users(self.redis), activations=Activations(self.redis),
            accounts=Accounts(People(self.redis), passwords, LoginThrottle(self.redis, "person")),
        )  # fmt: skip
        self._exit.push_async_callback(tail.stop)
        self._exit.push_async_callback(point_tail.stop)
        self.serve(fallback=create_app(self.parts))
        self.base = await self.listen()
        self.flow = await self.client(self.base, headers={"Authorization": f"Bearer {TOKEN}"})
        self.anonymous = await self.client(self.base)
        return self

    async def put(self, path: str, body: Any, status: int = 200) -> Any:
        return await self.ask("PUT", path, body, status)

    async def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        return await self.ask("POST", path, body, status)

    async def get(self, path: str, status: int = 200) -> Any:
        return await self.ask("GET", path, None, status)

    async def delete(self, path: str, status: int = 204) -> Any:
        return await self.ask("DELETE", path, None, status)

    async def ask(self, method: str, path: str, body: Any, status: int) -> Any:
        """Call with the token; the answer's JSON, after its status was found to be as expected."""
        content = None if body is None else msgspec.json.encode(body)
        answer = await self.flow.request(method, path, content=content)
        assert answer.status_code == status, answer.text
        media = "application/problem+json" if status >= 400 else "application/json"
        if not answer.content:
            return None
        assert answer.headers["content-type"] == media
        return msgspec.json.decode(answer.content)


class InThread:
    """A FlowStack in a loop of its own, for clients that are not async."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.base = ""
        self.failure: BaseException | None = None

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with FlowStack(self._url) as stack:
                self.stack, self.base = stack, stack.base
                self._ready.set()
                await self._stop.wait()
        except BaseException as error:
            self.failure = error
            raise
        finally:
            self._ready.set()

    def do(self, work: Any) -> Any:
        """Run a coroutine in the loop; its result."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(30)
        assert self.base, self.failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
