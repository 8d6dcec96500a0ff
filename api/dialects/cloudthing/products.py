"""What the products of CloudThing devices speak, kept in memory so that data can be checked where it comes in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from engine.errors import NotFound
from engine.node import Product
from nodes.codecs.formats import Formats as Definitions
from nodes.codecs.protobuf import ProtoCodec

MAX_PRODUCTS: Final = 1000
"""How many are kept; the one unused for longest goes first."""


class Formats:
    """The formats of one product that need a definition: Protocol Buffers, and custom ones.

    `facets` are those of the product. `transforms` tells whether it has a transform function; whether that builds is
    the chain's to find out, so that no script is ever loaded here.
    """

    __slots__ = ("_definitions", "transforms")

    def __init__(self, facets: dict[str, Any], name: str) -> None:
        self._definitions = Definitions(facets.get("protobuf"), None, name)
        self.transforms = facets.get("transform") is not None

    def proto(self) -> ProtoCodec | None:
        """Its message definition, None without one. Raises BadInput for one that does not build."""
        return self._definitions.proto()


NOTHING: Final = Formats({}, "no product")
"""What a device without a product speaks besides JSON and CBOR."""


class Products:
    """The formats of products, read when first needed; `read(tenant, id)` gives a product or raises NotFound.

    Whoever hears of changes calls `forget`, and `clear` when changes may have been missed.
    """

    def __init__(self, read: Callable[[str, str], Awaitable[Product]]) -> None:
        self._read = read
        self._kept: dict[tuple[str, str], Formats] = {}
        self._changes = 0

    def known(self, tenant: str, id: str) -> Formats | None:
        """The formats of a product if they are in memory; an empty id is that of no product."""
        return self._kept.get((tenant, id)) if id else NOTHING

    async def find(self, tenant: str, id: str) -> Formats:
        """The formats of a product; those of none if it does not exist (a device may outlive its product)."""
        if not id:
            return NOTHING
        key = (tenant, id)
        found = self._kept.pop(key, None)
        if found is None:
            changes = self._changes
            try:
                found = Formats((await self._read(tenant, id)).facets, f"product {id}")
            except NotFound:
                found = NOTHING
            if changes != self._changes:
                return found  # read before a change that was heard meanwhile: good for this once
        self._kept[key] = found
        if len(self._kept) > MAX_PRODUCTS:
            del self._kept[next(iter(self._kept))]
        return found

    def forget(self, id: str) -> list[str]:
        """The product was changed; the tenants for which it had been read."""
        self._changes += 1
        tenants = [tenant for tenant, kept in self._kept if kept == id]
        for tenant in tenants:
            del self._kept[(tenant, id)]
        return tenants

    def clear(self) -> None:
        """Anything may have changed."""
        self._changes += 1
        self._kept.clear()
