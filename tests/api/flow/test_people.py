"""People over the management API."""

from __future__ import annotations

import pytest

from engine.stores.registry import Tenant
from tests.api.flow.serving import FlowStack, T

pytestmark = pytest.mark.asyncio

ADA = {"username": "Ada@example.com", "password": "secret-1"}


@pytest.mark.spec("G-26")
async def test_a_person_is_made_shown_changed_and_deleted(stack: FlowStack) -> None:
    made = await stack.post(f"{T}/people", ADA, 201)
    assert (made["username"], made["role"], made["enabled"]) == ("Ada@example.com", "tenant_admin", True)
    assert made == await stack.get(f"{T}/people/{made['id']}") == await stack.get(f"{T}/people/ada@example.com")
    assert "secret-1" not in str(made)
    assert "password" not in made
    person = await stack.parts.accounts.log_in("ada@example.com", "secret-1", "a")
    changed = await stack.ask("PATCH", f"{T}/people/{made['id']}", {"role": "customer", "password": "secret-2"}, 200)
    assert changed == {**made, "role": "customer"}
    later = await stack.parts.accounts.log_in("ada@example.com", "secret-2", "a")
    assert later.generation == person.generation + 1
    assert (await stack.ask("PATCH", f"{T}/people/{made['id']}", {}, 200))["role"] == "customer"
    await stack.delete(f"{T}/people/{made['id']}")
    assert (await stack.get(f"{T}/people"))["people"] == []
    await stack.get(f"{T}/people/{made['id']}", 404)


async def test_the_list_goes_on(stack: FlowStack) -> None:
    for name in ("c", "B", "a"):
        await stack.post(f"{T}/people", {"username": name, "password": "secret-1"}, 201)
    page = await stack.get(f"{T}/people?limit=2")
    assert ([one["username"] for one in page["people"]], page["after"]) == (["a", "B"], "B")
    page = await stack.get(f"{T}/people?limit=2&after=B")
    assert ([one["username"] for one in page["people"]], page["after"]) == (["c"], "")


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({**ADA, "password": "short"}, 400, "/password"),
        ({**ADA, "username": " "}, 400, "/username"),
        ({**ADA, "username": ""}, 400, "/username"),
        ({**ADA, "role": "king"}, 400, "/role"),
        ({"username": "x"}, 400, ""),
        ({**ADA, "tenant": "other"}, 400, ""),
    ],
)
async def test_what_will_not_do_is_named(stack: FlowStack, body: object, status: int, pointer: str) -> None:
    problem = await stack.post(f"{T}/people", body, status)
    assert problem["errors"][0]["pointer"] == pointer


async def test_a_name_that_is_taken_and_people_of_other_tenants(stack: FlowStack) -> None:
    made = await stack.post(f"{T}/people", ADA, 201)
    await stack.post(f"{T}/people", {**ADA, "username": "ADA@example.com"}, 409)
    await stack.registry.put_tenant(Tenant(name="other"))
    where = f"/flow/v1/tenants/other/people/{made['id']}"
    await stack.get(where, 404)
    await stack.ask("PATCH", where, {"enabled": False}, 404)
    await stack.delete(where, 404)
