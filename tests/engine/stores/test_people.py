"""People in a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import redis.asyncio as redis
from msgspec.structs import replace

from engine.errors import BadInput, Conflict, NotFound
from engine.stores.people import People, Person

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def people(redis_url: str) -> AsyncIterator[People]:
    client = redis.Redis.from_url(redis_url)
    yield People(client)
    await client.aclose()


def person(name: str, tenant: str = "acme") -> Person:
    return Person(tenant=tenant, username=name, role="customer", password="hash")


async def test_somebody_is_found_by_id_and_by_name_in_any_case(people: People) -> None:
    ada = await people.add(person(" Ada@Example.com "))
    assert ada.username == "Ada@Example.com"
    assert await people.find(ada.id) == ada
    assert await people.named("ada@EXAMPLE.com") == ada
    assert await people.person("acme", "ADA@example.com") == ada
    with pytest.raises(NotFound):
        await people.person("other", ada.id)


async def test_a_name_has_one_taker_of_all_tenants(people: People) -> None:
    names = ["ada", "ADA", "Ada"]
    made = await asyncio.gather(*(people.add(person(name, name)) for name in names), return_exceptions=True)
    assert sorted(type(each).__name__ for each in made) == ["Conflict", "Conflict", "Person"]
    with pytest.raises(Conflict, match="another person has the name"):
        await people.add(person("ada", "other"))


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 256])
async def test_a_name_that_will_not_do(people: People, name: str) -> None:
    with pytest.raises(BadInput):
        await people.add(person(name))


async def test_a_list_goes_by_name_and_goes_on_behind_one(people: People) -> None:
    for name in ("c", "B", "a"):
        await people.add(person(name))
    await people.add(person("d", "other"))
    assert [each.username for each in await people.of("acme", limit=2)] == ["a", "B"]
    assert [each.username for each in await people.of("acme", after="B")] == ["c"]


async def test_what_takes_something_away_ends_what_was_given(people: People) -> None:
    ada = await people.add(person("ada"))
    for change, ends in (
        ({"enabled": True}, 0),
        ({"enabled": False}, 1),
        ({"enabled": True}, 0),
        ({"password": "other"}, 1),
        ({"role": "tenant_admin"}, 1),
        ({"username": "eve", "tenant": "other", "id": "x", "generation": 99}, 0),
    ):
        before = ada.generation
        ada = await people.change("acme", ada.id, lambda known, change=change: replace(known, **change))
        assert ada.generation == before + ends, change
    assert (ada.username, ada.tenant) == ("ada", "acme")


async def test_of_two_changes_at_once_none_is_lost(people: People) -> None:
    ada = await people.add(person("ada"))
    changes = [{"enabled": False}, {"role": "tenant_admin"}, {"password": "new"}]
    await asyncio.gather(
        *(people.change("acme", "ada", lambda known, change=change: replace(known, **change)) for change in changes)
    )
    found = await people.find(ada.id)
    assert found is not None
    assert (found.enabled, found.role, found.password, found.generation) == (False, "tenant_admin", "new", 4)


async def test_who_is_deleted_leaves_the_name_free(people: People) -> None:
    ada = await people.add(person("ada"))
    with pytest.raises(NotFound):
        await people.delete("other", "ada")
    await people.delete("acme", "ada")
    assert await people.find(ada.id) is None
    assert (await people.add(person("ada"))).id != ada.id
    assert len(await people.of("acme")) == 1
