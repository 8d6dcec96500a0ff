"""Products: what devices of a kind have in common."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from api.flow.facets import check_facets
from api.flow.operation import BASE, Answer, Call, Operation, Parts
from engine.errors import Finding, InvalidDocument, NotFound
from engine.node import Product


class ProductBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be set of a product."""

    name: Annotated[str, Meta(max_length=255)] = ""
    facets: Annotated[
        dict[str, Any],
        Meta(
            description="What the dialects keep there; `transform` is `{lang, source}`, "
            "`events` is `{event id: {lang, source}}`, `protobuf` is `{descriptor_set_b64, message}`; with `payload` = "
            "`custom`, ThingsBoard's telemetry is bytes for `transform`; `retention_days` says how long points of its "
            "devices are kept (0: for ever; left out: as the setting says); `provision` lets devices provision "
            "themselves; `inactivity_timeout_s` says how long they may be silent; `thethingsio` says which resources "
            "apps may have; `sigfox`, `ttn` and `chirpstack` let their networks in. The schema of bootstrap files "
            "describes them."
        ),
    ] = {}


class ProductList(msgspec.Struct, frozen=True):
    """A tenant's products by id."""

    products: list[Product]


async def list_products(parts: Parts, call: Call) -> Answer:
    """All products of the tenant."""
    return Answer(200, ProductList(await parts.registry.products(call.tenant)))


async def get_product(parts: Parts, call: Call) -> Answer:
    """One product."""
    return Answer(200, await parts.registry.product(call.tenant, call.path["product"]))


async def put_product(parts: Parts, call: Call) -> Answer:
    """Create or change a product; everything wrong with its facets is told."""
    body: ProductBody = call.body
    found = check_facets(body.facets)
    if found:
        raise InvalidDocument([Finding("/facets" + pointer, message) for pointer, message in found])
    id = call.path["product"]
    try:
        await parts.registry.product(call.tenant, id)
        status = 200
    except NotFound:
        status = 201
    made = Product(id=id, tenant=call.tenant, name=body.name, facets=body.facets)
    kept = await parts.registry.put_product(made)
    await parts.apps.product_changed(kept)
    return Answer(status, kept)


_ALL: Final = BASE + "/tenants/{tenant}/products"

OPERATIONS: Final = (
    Operation(
        method="GET", path=_ALL, id="list_products", summary="List a tenant's products",
        handler=list_products, answers={200: ProductList},
    ),
    Operation(
        method="GET", path=_ALL + "/{product}", id="get_product", summary="Show a product",
        handler=get_product, answers={200: Product},
    ),
    Operation(
        method="PUT", path=_ALL + "/{product}", id="put_product", summary="Create or change a product",
        handler=put_product, answers={200: Product, 201: Product}, body=ProductBody, problems=(409,),
    ),
)  # fmt: skip
