"""Who may do what: every call of an app × caller × kind of thing × resource, worked out from one table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import socketio

from engine.node import Product
from engine.stores.apps.apps import App
from engine.stores.registry import THING_TOKEN, Credential, Device, Tenant
from tests.api.dialects.thethingsio.world import OTHER_APP, World, world

pytestmark = pytest.mark.asyncio

FAR_APP = "app-far-away"
"""Of another tenant."""
GRANTED = "temperature"
"""What friends were granted their rights on."""


class Caller(NamedTuple):
    """A user of an app; `rights` are those on GRANTED of the owner's thing, or on all of it."""

    name: str
    app: str
    rights: frozenset[str] = frozenset()
    owns: bool = False
    all: bool = False


def friend(*rights: str) -> Caller:
    return Caller("-".join(["friend", *rights]), "app-weather-1", frozenset(rights))


def friend_of_all(*rights: str) -> Caller:
    return Caller("-".join(["friend-of-all", *rights]), "app-weather-1", frozenset(rights), all=True)


CALLERS = [
    Caller("owner", "app-weather-1", frozenset({"get", "post", "grant"}), True),
    friend("get"), friend("post"), friend("grant"), friend("get", "post"), friend("get", "grant"),
    friend("post", "grant"), friend("get", "post", "grant"),
    friend_of_all("get"), friend_of_all("post"), friend_of_all("get", "post"),
    Caller("stranger", "app-weather-1"),
    Caller("owner", OTHER_APP),
    Caller("owner", FAR_APP),
    Caller("nobody", ""),
]  # fmt: skip

VISIBLE = {
    "app-weather-1": {"description", "temperature", "humidity"},
    OTHER_APP: {"description", "temperature"},
    FAR_APP: {"description", "temperature"},
}
"""`secret` is asked for by the first app, but private; `humidity` is public, and the second app does not ask for it."""
RESOURCES = ["temperature", "humidity", "description", "secret", "unknown", "$geo", "$settings", "$settings.a", "$no"]
THINGS = {
    "linked": {"app-weather-1", OTHER_APP}, "free": {"app-weather-1", OTHER_APP}, "of another product": set(),
    "of another tenant": {FAR_APP}, "not there": set(),
}  # fmt: skip
"""With the apps whose product they are of. Only the first is anybody's: the owner's, in the first app."""


class Call(NamedTuple):
    """A call on a resource of a thing: what it needs, and what it answers when all is well."""

    name: str
    method: str
    needs: frozenset[str]
    status: int
    body: Any = None
    path: str = "/v2/me/resources/{resource}/{thing}"
    query: str = ""
    magic: bool = True
    """Whether magic resources have it."""


def value(resource: str) -> dict[str, Any]:
    return {"values": [{"value": {"$geo": [2, 41], "$settings": {"a": 1}}.get(resource, 1)}]}


def given(right: str) -> Any:
    return lambda resource, thing: {"email": "x@x.org", "permissions": {resource: {thing: {right: True}}}}


CALLS = [
    Call("read", "GET", frozenset({"get"}), 200),
    Call("write", "POST", frozenset({"post"}), 201, lambda resource, thing: value(resource)),
    Call("follow", "GET", frozenset({"get"}), 200, query="?subscribe=true"),
    *(
        Call(f"grant {right}", "PUT", frozenset({"grant", right}), 200, given(right), "/v2/me/grant", magic=False)
        for right in ("get", "post", "grant")
    ),
]
RARE = ("follow", "grant post", "grant grant")


def rights_on(caller: Caller, resource: str, thing: str) -> frozenset[str]:
    if thing != "linked" or not (caller.owns or caller.all or resource == GRANTED):
        return frozenset()
    return caller.rights


def expected(caller: Caller, call: Call, resource: str, thing: str) -> int:
    """The whole of the rules, said once more in other words."""
    if not caller.app:
        return 401
    its = caller.app in THINGS[thing]
    if resource.startswith("$") and call.name == "follow":
        return 400
    if resource.startswith("$") and call.magic:
        if resource == "$no" or not its:
            return 404
        return call.status if call.needs <= rights_on(caller, GRANTED, thing) else 403
    if resource not in VISIBLE[caller.app] or not its:
        return 404
    return call.status if call.needs <= rights_on(caller, resource, thing) else 403


class Scene:
    """A world with all callers and things."""

    def __init__(self, w: World) -> None:
        self.w = w
        self.tokens: dict[Caller, str] = {}
        self.things: dict[str, str] = {}
        self.thing_tokens: dict[str, str] = {}

    async def status(self, caller: Caller, method: str, path: str, body: Any = None) -> int:
        headers = {"authorization": self.tokens[caller]} if caller.app else {}
        # A stream says its status with its head, and goes on.
        async with self.w.client.stream(method, path, headers=headers, json=body) as answer:
            if answer.status_code >= 400:
                told = (await answer.aread()) and answer.json()
                assert told.keys() == {"status", "code", "message"}
                assert (told["status"], told["code"]) == ("error", answer.status_code)
            return answer.status_code


@asynccontextmanager
async def scene(redis_url: str) -> AsyncIterator[Scene]:
    async with world(redis_url) as w:
        made = Scene(w)
        registry = w.stack.registry
        await registry.put_tenant(Tenant(name="far"))
        facets = {"thethingsio": {"public": ["temperature", "humidity"]}}
        await registry.put_product(Product(id="far-product", tenant="far", facets=facets))
        await registry.put_product(Product(id="other", tenant="acme", facets=facets))
        await w.parts.apps.put(App(id=FAR_APP, tenant="far", product="far-product", resources=["temperature"]))
        for name, product in (("linked", "weather"), ("free", "weather"), ("of another product", "other")):
            device, made.thing_tokens[name] = await w.thing(name.replace(" ", "-"), product)
            made.things[name] = device.id
        far = Device(id="", tenant="far", name="far", product="far-product")
        far = await registry.put_device(far, [Credential(kind=THING_TOKEN, value="far" * 10)])
        made.things |= {"of another tenant": far.id, "not there": "no-such-thing"}
        for caller in CALLERS:
            if caller.app:
                made.tokens[caller] = await w.register(f"{caller.name}@x.org", caller.app)
        linked = next(iter([each for each in CALLERS if each.owns]))
        told = await w.call("POST", "/v2/me/things", made.tokens[linked], {"thingToken": made.thing_tokens["linked"]})
        assert told.status_code == 201
        for caller in CALLERS:
            if caller.rights and not caller.owns:
                rights = dict.fromkeys(caller.rights, True)
                for resource in VISIBLE[caller.app] if caller.all else {GRANTED}:
                    told = await w.grant(
                        made.tokens[linked], f"{caller.name}@x.org", made.things["linked"], resource, **rights
                    )
                    assert told.status_code == 200
        yield made


def cases() -> Iterator[tuple[Caller, Call, str, str]]:
    for caller in CALLERS:
        for call in CALLS:
            for resource in RESOURCES:
                for thing in THINGS:
                    # Not all of all, which would be three thousand calls: what differs in one thing only.
                    usual = (resource in (GRANTED, "$geo")) + (thing == "linked") + (call.name not in RARE)
                    if usual >= 2:
                        yield caller, call, resource, thing


@pytest.mark.spec("TTI-6", "TTI-14", "TTI-23", "TTI-25", "TTI-S7", "TTI-S8", "TTI-S9", "TTI-S16")
async def test_calls_on_a_resource_of_a_thing(redis_url: str) -> None:
    async with scene(redis_url) as s:
        wrong = {}
        for caller, call, resource, thing in cases():
            path = call.path.format(resource=resource, thing=s.things[thing]) + call.query
            body = call.body and call.body(resource, s.things[thing])
            told = await s.status(caller, call.method, path, body)
            if told != expected(caller, call, resource, thing):
                key = (f"{caller.name} in {caller.app}", call.name, resource, thing)
                wrong[key] = f"{told}, not {expected(caller, call, resource, thing)}"
        assert wrong == {}


@pytest.mark.spec("TTI-6", "TTI-22", "TTI-S9", "TTI-12")
async def test_calls_on_a_resource_of_all_things(redis_url: str) -> None:
    async with scene(redis_url) as s:
        wrong = {}
        for caller in CALLERS:
            has = {each: rights_on(caller, each, "linked") for each in VISIBLE.get(caller.app, ())}
            for resource in RESOURCES:
                for query, status in (("", 403), ("?subscribe=true", 200)):
                    if not caller.app:
                        wanted = 401
                    elif resource not in has:
                        wanted = 404
                    elif "get" in has[resource] or not any(has.values()):
                        wanted = 200
                    else:
                        wanted = status  # of a stream: what is granted later comes then
                    told = await s.status(caller, "GET", f"/v2/me/resources/{resource}{query}")
                    if told != wanted:
                        wrong[f"{caller.name} in {caller.app}", resource, query] = f"{told}, not {wanted}"
            if caller.app:
                listed = (await s.w.call("GET", "/v2/me/resources", s.tokens[caller])).json()
                seen = {each["name"]: each["things"] for each in listed}
                assert seen == {each: [s.things["linked"]] for each in sorted(has) if has[each]}, caller
                login = {"email": f"{caller.name}@x.org", "password": "secret 1", "app": caller.app}
                roles = (await s.w.call("POST", "/v2/login", body=login)).json()["roles"]
                assert roles.keys() == {f"RSRC_{each}" for each in has}
                for each, rights in has.items():
                    shown = roles[f"RSRC_{each}"].get(s.things["linked"], {})
                    assert {name for name in ("get", "post", "grant") if shown.get(name)} == rights, (caller, each)
        assert wrong == {}


@pytest.mark.spec("TTI-20", "TTI-21", "TTI-S7", "TTI-X10", "TTI-X11")
async def test_linking_and_unlinking(redis_url: str) -> None:
    async with scene(redis_url) as s:
        wrong = {}
        for caller in CALLERS:
            for thing, apps in THINGS.items():
                # The free one is anybody's who comes first, and would not be free any more; it is a thing of its own.
                name, id = thing, s.things[thing]
                if thing == "free":
                    device, _ = await s.w.thing(f"{caller.name}-{caller.app}")
                    id = device.id
                if not caller.app:
                    linked = unlinked = 401
                elif caller.app not in apps:
                    linked = unlinked = 404
                elif caller.app == OTHER_APP or thing != "linked":
                    linked, unlinked = 201, 200  # each app has links of its own
                else:
                    linked, unlinked = (200 if caller.owns else 403), (200 if caller.rights else 404)
                told = [await s.status(caller, "POST", "/v2/me/things", {"thingId": id})]
                if not caller.owns or thing != "linked":  # the owner's end would be everybody's
                    told.append(await s.status(caller, "DELETE", f"/v2/me/things/{id}"))
                if told != [linked, unlinked][: len(told)]:
                    wrong[f"{caller.name} in {caller.app}", name] = f"{told}, not {[linked, unlinked]}"
        assert wrong == {}
        owner, *friends = (each for each in CALLERS if each.rights)
        assert await s.status(owner, "DELETE", f"/v2/me/things/{s.things['linked']}") == 200
        for caller in (owner, *friends):
            assert (await s.w.call("GET", "/v2/me/resources", s.tokens[caller])).json() == []


ALERTS = [
    Call("list", "GET", frozenset({"get"}), 200, path="/v2/me/alerts"),
    Call("list of a thing", "GET", frozenset({"get"}), 200, path="/v2/me/alerts?thingId={thing}"),
    Call("see", "GET", frozenset({"get"}), 200, path="/v2/me/alerts/{alert}"),
    Call("delete", "DELETE", frozenset({"get", "post"}), 200, path="/v2/me/alerts/{alert}"),
    Call("raise", "POST", frozenset({"post"}), 201, lambda _, thing: {"thingId": thing, "type": "x"}, "/v2/me/alerts"),
]
"""What is needed, on all resources of the thing that the app shows."""


def on_all(caller: Caller, thing: str) -> frozenset[str]:
    return frozenset.intersection(*(rights_on(caller, each, thing) for each in VISIBLE[caller.app]))


def expected_of_alert(caller: Caller, call: Call, thing: str) -> int:
    if not caller.app:
        return 401
    has = on_all(caller, thing)
    if call.name == "list":
        # Of all things that are anybody's, which is one: who has nothing of it has nothing that could be refused.
        has = on_all(caller, "linked")
        return 200 if "get" in has or not rights_on(caller, GRANTED, "linked") else 403
    if "{alert}" in call.path and "get" not in has:
        return 404
    if caller.app not in THINGS[thing]:
        return 404
    return call.status if call.needs <= has else 403


async def raised(s: Scene, thing: str) -> str:
    """The id of a new alarm of a thing, whoever's it is; of none where there is no thing."""
    device = await s.w.stack.auth.by_id(s.things[thing])
    if device is None:
        return "no-such-alert"
    about = {"alarmType": "hidden", "alarmSeverity": "MINOR"}
    message = s.w.stack.intake.message(
        device, "ALARM_REQUEST", {}, dialect="tti", transport="http", ts_ms=s.w.stack.intake.stamp(device.id),
        metadata=about,
    )  # fmt: skip
    told = await s.w.stack.intake.ask(message, 10)
    assert told is not None
    return str(told.data["id"])


@pytest.mark.spec("TTI-X11", "TTI-6", "TTI-14", "TTI-S9")
async def test_alerts(redis_url: str) -> None:
    async with scene(redis_url) as s:
        wrong = {}
        alerts = {thing: await raised(s, thing) for thing in THINGS}
        for caller in CALLERS:
            for call in ALERTS:
                for thing, id in s.things.items():
                    path = call.path.format(thing=id, alert=alerts[thing])
                    told = await s.status(caller, call.method, path, call.body and call.body("", id))
                    if told != expected_of_alert(caller, call, thing):
                        key = (f"{caller.name} in {caller.app}", call.name, thing)
                        wrong[key] = f"{told}, not {expected_of_alert(caller, call, thing)}"
                    if call.method == "DELETE" and told == 200:
                        alerts[thing] = await raised(s, thing)
            if caller.app and expected_of_alert(caller, ALERTS[0], "linked") == 200:
                listed = (await s.w.call("GET", "/v2/me/alerts", s.tokens[caller])).json()
                seen = {each["thingId"] for each in listed}
                assert seen == ({s.things["linked"]} if "get" in on_all(caller, "linked") else set()), caller
        assert wrong == {}


OBJECTS = {
    # call on an object that the owner has made in the first app: (the owner, others in the app, users of other apps)
    ("GET", "me"): (200, 404, 404), ("PUT", "me"): (200, 404, 404), ("DELETE", "me"): (200, 404, 404),
    ("GET", "app"): (200, 200, 404), ("PUT", "app"): (200, 403, 404), ("DELETE", "app"): (200, 403, 404),
}  # fmt: skip


@pytest.mark.spec("TTI-65", "TTI-S20", "TTI-S21")
async def test_objects(redis_url: str) -> None:
    async with scene(redis_url) as s:
        owner = CALLERS[0]
        for tree in ("me", "app"):
            for method in ("GET", "PUT", "DELETE"):
                # The owner last, whose DELETE is the end of it.
                for caller in [*CALLERS[1:], owner]:
                    path = f"/v2/classes/{tree}/Lists/{method}"
                    if caller is CALLERS[1]:
                        assert await s.status(owner, "POST", path, {"n": 1}) == 201
                    place = 0 if caller is owner else 1 if caller.app == owner.app else 2
                    wanted = OBJECTS[method, tree][place] if caller.app else 401
                    assert await s.status(caller, method, path, {} if method == "PUT" else None) == wanted, (
                        caller, method, tree,
                    )  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/me/settings"), ("PUT", "/v2/me/settings"), ("GET", "/v2/utils/date"), ("GET", "/v2/me/resources"),
        ("GET", "/v2/classes/me/X"), ("POST", "/v2/classes/app/X"), ("GET", "/v2/classes/app/X?subscribe=true"),
    ],
)  # fmt: skip
async def test_what_everybody_with_a_session_may(redis_url: str, method: str, path: str) -> None:
    async with world(redis_url) as w:
        body = {"a": 1} if method in ("PUT", "POST") else None
        answer = await w.call(method, path, "", body)
        assert (answer.status_code, answer.json()["message"]) == (401, "Invalid session token")


THING_CALLS = [
    ("POST", "", {"values": [{"key": "secret", "value": 1}]}, 201), ("GET", "?keepAlive=1000", None, 200),
    ("GET", "/resources", None, 200), ("GET", "/resources/secret", None, 200), ("GET", "/all_resources", None, 200),
    ("GET", "/resources/description", None, 200), ("PUT", "/resources/description", {"a": 1}, 200),
    ("GET", "/firmwares/latest", None, 200), ("GET", "/firmwares/download/v1", None, 404),
]  # fmt: skip


@pytest.mark.spec("TTI-X2", "TTI-X3", "TTI-X4", "TTI-X5", "TTI-X6", "TTI-X7")
async def test_a_thing_needs_its_token_and_nothing_else(redis_url: str) -> None:
    async with scene(redis_url) as s:
        good, id = s.thing_tokens["linked"], s.things["linked"]
        for method, path, body, status in THING_CALLS:
            # A thing's id opens nothing, nor does the session of its owner.
            for token, wanted in ((good, status), ("no-token", 401), (id, 401), (s.tokens[CALLERS[0]], 401)):
                for caller in (CALLERS[-1], CALLERS[0], CALLERS[-2]):
                    told = await s.status(caller, method, f"/v2/things/{token}{path}", body)
                    assert told == wanted, (method, path, token)


@pytest.mark.spec("TTI-S32", "TTI-S34", "TTI-6")
async def test_live_updates(redis_url: str) -> None:
    """The same rights hold for subscriptions over Socket.io; 0 stands for success."""
    async with scene(redis_url) as s:
        wrong = {}
        for caller in CALLERS:
            client = socketio.AsyncClient()
            answers: asyncio.Queue[Any] = asyncio.Queue()
            for event in ("authenticate", "subscribe"):
                client.on(event, answers.put, namespace="/v2")
            await client.connect(s.w.url, namespaces=["/v2"], transports=["websocket"])
            try:
                if caller.app:
                    await client.emit("authenticate", {"sessionToken": s.tokens[caller]}, namespace="/v2")
                    assert (await answers.get())["status"] == "success"
                for path, wanted in subscriptions(s, caller):
                    await client.emit("subscribe", {"resource": path}, namespace="/v2")
                    async with asyncio.timeout(10):
                        told = await answers.get()
                    if told.get("code", 0) != wanted:
                        wrong[f"{caller.name} in {caller.app}", path] = f"{told}, not {wanted}"
            finally:
                await client.disconnect()
        assert wrong == {}


def subscriptions(s: Scene, caller: Caller) -> Iterator[tuple[str, int]]:
    visible = VISIBLE.get(caller.app, set())
    for resource in RESOURCES:
        wanted = 0 if resource in visible else 404
        yield f"/me/resources/{resource}", wanted if caller.app else 401
        for thing, id in s.things.items():
            has = "get" in rights_on(caller, resource, thing)
            yield f"/me/resources/{resource}/{id}", (wanted or (0 if has else 403)) if caller.app else 401
    for tree in ("me", "app"):
        yield f"/classes/{tree}/Lists", 0 if caller.app else 401
    yield f"/things/{s.thing_tokens['linked']}", 0
    yield f"/things/{s.things['linked']}", 401
