import pytest

from api.dialects.cloudthing.products import MAX_PRODUCTS, NOTHING, Products
from engine.errors import NotFound
from engine.node import Product
from tests.api.dialects.cloudthing.fixtures import PROTOBUF, TRANSFORM

pytestmark = pytest.mark.asyncio


class Shelf:
    """Products in a dict, and which of them were read."""

    def __init__(self, **facets):
        self.facets = facets
        self.reads = []
        self.during = lambda: None

    async def read(self, tenant, id):
        self.reads.append((tenant, id))
        self.during()
        if tenant != "acme" or id not in self.facets:
            raise NotFound("product", id)
        return Product(id=id, tenant=tenant, facets=self.facets[id])


async def test_a_product_is_read_once():
    shelf = Shelf(p1={"protobuf": PROTOBUF, "transform": TRANSFORM}, p2={})
    products = Products(shelf.read)
    assert products.known("acme", "p1") is None
    found = await products.find("acme", "p1")
    assert found.proto().has_records
    assert found.transforms
    assert await products.find("acme", "p1") is found
    assert products.known("acme", "p1") is found
    bare = await products.find("acme", "p2")
    assert (bare.proto(), bare.transforms) == (None, False)
    assert shelf.reads == [("acme", "p1"), ("acme", "p2")]


async def test_no_product_and_a_product_of_others_have_no_formats():
    shelf = Shelf(p1={"transform": TRANSFORM})
    products = Products(shelf.read)
    assert products.known("acme", "") is NOTHING
    assert await products.find("acme", "") is NOTHING
    assert not (await products.find("others", "p1")).transforms
    assert shelf.reads == [("others", "p1")]


async def test_a_change_is_seen_also_one_that_comes_while_reading():
    shelf = Shelf(p1={})
    products = Products(shelf.read)
    assert not (await products.find("acme", "p1")).transforms
    shelf.facets["p1"] = {"transform": TRANSFORM}
    assert products.forget("p1") == ["acme"]
    assert products.forget("p1") == []
    shelf.during = lambda: products.forget("p1")
    assert (await products.find("acme", "p1")).transforms
    assert products.known("acme", "p1") is None
    shelf.during = lambda: None
    await products.find("acme", "p1")
    assert products.known("acme", "p1") is not None
    products.clear()
    assert products.known("acme", "p1") is None


async def test_the_number_kept_is_bounded_and_the_one_unused_for_longest_goes():
    products = Products(Shelf().read)
    for number in range(MAX_PRODUCTS):
        await products.find("acme", f"p{number}")
    await products.find("acme", "p0")
    await products.find("acme", "one more")
    assert products.known("acme", "p0") is not None
    assert products.known("acme", "p1") is None
