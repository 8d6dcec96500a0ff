"""A product with an app, its users and things, on the whole server in a process."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from api.dialects.thethingsio.compose import ThethingsIo, compose
from api.dialects.thethingsio.parts import Parts
from api.dialects.thethingsio.settings import Settings
from api.live_values import LiveValues
from api.login_throttle import LoginThrottle
from api.passwords import Passwords
from engine.node import Product
from engine.stores.alarm_store import AlarmStore
from engine.stores.apps.activations import Activations
from engine.stores.apps.apps import App, Apps
from engine.stores.apps.objects import Objects
from engine.stores.apps.rights import Rights
from engine.stores.apps.sessions import Sessions
from engine.stores.apps.users import Users
from engine.stores.registry import THING_TOKEN, Credential, Device
from tests.api.stack import PARTITIONS, TENANT, Stack

PRODUCT = "weather"
APP = "app-weather-1"
OTHER_APP = "app-weather-2"


class KeptMail:
    """Mail as it was handed over."""

    def __init__(self) -> None:
        self.letters: list[tuple[str, str, str]] = []

    async def send(self, to: str, subject: str, text: str) -> None:
        self.letters.append((to, subject, text))


class World:
    """`call` speaks as a user; `register` makes one, `thing` a thing with its token."""

    def __init__(self, stack: Stack, parts: Parts, mail: KeptMail, dialect: ThethingsIo) -> None:
        self.stack, self.parts, self.mail, self.dialect = stack, parts, mail, dialect
        self.client: httpx.AsyncClient
        self.url = ""

    async def register(self, email: str, app: str = APP, password: str = "secret 1") -> str:
        """The session token of a new user."""
        body = {"email": email, "password": password, "app": app}
        answer = await self.client.post("/v2/register", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    async def thing(self, name: str, product: str = PRODUCT) -> tuple[Device, str]:
        """A thing that is activated, and its token."""
        token = secrets.token_urlsafe(32)
        device = Device(id="", tenant=TENANT, name=name, product=product)
        made = await self.stack.registry.put_device(device, [Credential(kind=THING_TOKEN, value=token)])
        return made, token

    async def call(self, method: str, path: str, token: str = "", body: Any = None, **query: Any) -> httpx.Response:
        """A call of the session `token`."""
        headers = {"authorization": token} if token else {}
        return await self.client.request(method, path, headers=headers, json=body, params=query)

    async def link(self, token: str, device: Device) -> None:
        """Make a session's user the owner of a thing."""
        answer = await self.call("POST", "/v2/me/things", token, {"thingId": device.id})
        assert answer.status_code == 201, answer.text

    async def grant(self, token: str, email: str, thing: str, resource: str, **rights: bool) -> httpx.Response:
        """Have a session's user grant rights on a resource of a thing."""
        body = {"email": email, "permissions": {resource: {thing: rights}}}
        return await self.call("PUT", "/v2/me/grant", token, body)


@asynccontextmanager
async def world(redis_url: str, settings: Settings | None = None, ping_interval_s: float = 25) -> AsyncIterator[World]:
    """Two apps of one product with `temperature` and `humidity` public and `secret` private."""
    async with Stack(redis_url) as stack, AsyncExitStack() as ending:
        facets = {"thethingsio": {"public": ["temperature", "humidity"]}}
        await stack.registry.put_product(Product(id=PRODUCT, tenant=TENANT, facets=facets))
        apps, live_values, passwords = Apps(stack.redis, stack.registry), LiveValues(redis_url), Passwords()
        for id, resources in ((APP, ["temperature", "humidity", "secret"]), (OTHER_APP, ["temperature"])):
            await apps.put(App(id=id, tenant=TENANT, product=PRODUCT, resources=resources))
        await live_values.start()
        mail = KeptMail()
        parts = Parts(
            redis=stack.redis, auth=stack.auth, registry=stack.registry, intake=stack.intake, store=stack.store,
            attributes=stack.attributes, alarms=AlarmStore(stack.wire, PARTITIONS), live=stack.live,
            live_values=live_values, apps=apps, users=Users(stack.redis), sessions=Sessions(stack.redis),
            rights=Rights(stack.redis), objects=Objects(stack.redis), activations=Activations(stack.redis),
            firmware=stack.firmware, passwords=passwords, throttle=LoginThrottle(stack.redis, "app-users"), mail=mail,
            settings=settings or Settings(require_tls=False),
        )  # fmt: skip
        dialect = compose(parts, redis_url, ending, ping_interval_s)
        await dialect.sockets.start()
        stack.serve(dialect.http, mounts={"socket.io": dialect.sockets.application})
        made = World(stack, parts, mail, dialect)
        made.url = await stack.listen()
        made.client = await stack.client(made.url)
        try:
            yield made
        finally:
            await ending.aclose()
            await live_values.stop()
            passwords.close()
