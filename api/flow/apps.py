"""Apps, their users, and the codes that make things of a product."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from api.flow.operation import BASE, Answer, Call, Operation, Parts
from engine.errors import NotFound
from engine.stores.apps.apps import App
from engine.stores.apps.users import User


class AppBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be set of an app."""

    product: Annotated[str, Meta(description="Whose things its users link; cannot be changed later.")]
    name: Annotated[str, Meta(max_length=255)] = ""
    resources: Annotated[
        list[str],
        Meta(
            max_length=100,
            description="What it asks for. It gets those that the product has made public "
            '(facet `thethingsio`: `{"public": [resource]}`).',
        ),
    ] = []


class AppList(msgspec.Struct, frozen=True):
    """A tenant's apps by id."""

    apps: list[App]


class AppUser(msgspec.Struct, frozen=True, kw_only=True):
    """A user of an app."""

    id: str
    email: str
    created_ms: int


class AppUserList(msgspec.Struct, frozen=True):
    """An app's users by e-mail address."""

    users: list[AppUser]


class CodesBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many codes are wanted."""

    count: Annotated[int, Meta(ge=1, le=1000)] = 1


class Codes(msgspec.Struct, frozen=True):
    """New activation codes: they are told this once."""

    codes: list[str]


class CodesLeft(msgspec.Struct, frozen=True):
    """How many activation codes are not used."""

    left: int


def shown(user: User) -> AppUser:
    """A user as the API gives one: without the hash."""
    return AppUser(id=user.id, email=user.email, created_ms=user.created_ms)


async def list_apps(parts: Parts, call: Call) -> Answer:
    """All apps of the tenant."""
    return Answer(200, AppList(await parts.apps.of(call.tenant)))


async def get_app(parts: Parts, call: Call) -> Answer:
    """One app."""
    return Answer(200, await parts.apps.app(call.tenant, call.path["app"]))


async def put_app(parts: Parts, call: Call) -> Answer:
    """Create or change an app."""
    body: AppBody = call.body
    id = call.path["app"]
    try:
        await parts.apps.app(call.tenant, id)
        status = 200
    except NotFound:
        status = 201
    app = App(id=id, tenant=call.tenant, product=body.product, name=body.name, resources=body.resources)
    return Answer(status, await parts.apps.put(app))


async def delete_app(parts: Parts, call: Call) -> Answer:
    """Forget an app with its users, rights and objects."""
    await parts.apps.delete(call.tenant, call.path["app"])
    return Answer(204)


async def list_app_users(parts: Parts, call: Call) -> Answer:
    """All users of an app."""
    app = await parts.apps.app(call.tenant, call.path["app"])
    return Answer(200, AppUserList([shown(user) for user in await parts.app_users.of(app.id)]))


async def make_codes(parts: Parts, call: Call) -> Answer:
    """Make activation codes."""
    body: CodesBody = call.body
    product = await parts.registry.product(call.tenant, call.path["product"])
    return Answer(201, Codes(await parts.activations.make(product.tenant, product.id, body.count)))


async def count_codes(parts: Parts, call: Call) -> Answer:
    """Count the unused codes of a product."""
    product = await parts.registry.product(call.tenant, call.path["product"])
    return Answer(200, CodesLeft(await parts.activations.left(product.id)))


_ALL: Final = BASE + "/tenants/{tenant}/apps"
_ONE: Final = _ALL + "/{app}"
_CODES: Final = BASE + "/tenants/{tenant}/products/{product}/activation-codes"

OPERATIONS: Final = (
    Operation(
        method="GET", path=_ALL, id="list_apps", summary="List a tenant's apps", handler=list_apps,
        answers={200: AppList},
    ),
    Operation(method="GET", path=_ONE, id="get_app", summary="Show an app", handler=get_app, answers={200: App}),
    Operation(
        method="PUT", path=_ONE, id="put_app", summary="Create or change an app", handler=put_app,
        answers={200: App, 201: App}, body=AppBody, problems=(409,),
    ),
    Operation(
        method="DELETE", path=_ONE, id="delete_app", summary="Delete an app with its users, rights and objects",
        handler=delete_app, answers={204: None},
    ),
    Operation(
        method="GET", path=_ONE + "/users", id="list_app_users", summary="List the users of an app",
        handler=list_app_users, answers={200: AppUserList},
    ),
    Operation(
        method="POST", path=_CODES, id="make_codes", summary="Make codes, each of which activates one thing",
        handler=make_codes, answers={201: Codes}, body=CodesBody,
    ),
    Operation(
        method="GET", path=_CODES, id="count_codes", summary="Count the codes that are not used",
        handler=count_codes, answers={200: CodesLeft},
    ),
)  # fmt: skip
