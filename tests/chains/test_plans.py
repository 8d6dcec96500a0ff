from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from chains.plans import PlanSource
from chains.repository import ChainRepository
from engine.errors import NotFound
from engine.plan import Plan
from tests.chains.documents import chain
from tests.chains.kinds import CATALOGUE, Call, Kinds, Step

pytestmark = pytest.mark.asyncio


class Counting(ChainRepository):
    """Counts how often a plan is compiled."""

    compiled = 0

    async def compile(self, tenant: str, number: int) -> Plan:
        self.compiled += 1
        return await super().compile(tenant, number)


class Closing(Call):
    """Tells when it is closed."""

    timeout_s = 0
    closed = 0

    async def close(self) -> None:
        Closing.closed += 1


async def deployed(redis: Redis, *titles: str, node: dict[str, Any] | None = None) -> Counting:
    repository = Counting(redis, Kinds(Step, Closing))
    for title in titles:
        await repository.save("acme", chain("root", "a", a=node or {}) | {"title": title})
        await repository.deploy("acme", {"root": None})
    return repository


async def test_a_plan_is_compiled_once_for_all_who_ask(redis: Redis) -> None:
    repository = await deployed(redis, "one")
    source = PlanSource(repository)
    plans = await asyncio.gather(*(source.plan_for("acme", 1) for _ in range(5)))
    assert repository.compiled == 1
    assert all(plan is plans[0] for plan in plans)
    assert await source.plan_for("acme", 1) is plans[0]
    assert repository.compiled == 1
    await source.close()


async def test_one_who_goes_away_takes_no_plan_from_the_others(redis: Redis) -> None:
    source = PlanSource(await deployed(redis, "one"))
    first = asyncio.create_task(source.plan_for("acme", 1))
    second = asyncio.create_task(source.plan_for("acme", 1))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await second).deployment == 1
    await source.close()


async def test_a_failure_is_not_kept(redis: Redis) -> None:
    repository = await deployed(redis)
    source = PlanSource(repository)
    with pytest.raises(NotFound):
        await source.plan_for("acme", 1)
    await repository.save("acme", chain("root", "a", a={}))
    await repository.deploy("acme", {"root": None})
    assert (await source.plan_for("acme", 1)).deployment == 1


async def test_the_plans_used_last_are_kept(redis: Redis) -> None:
    repository = await deployed(redis, "one", "two", "three")
    source = PlanSource(repository, size=2)
    for number in (1, 2, 1, 3, 1):
        await source.plan_for("acme", number)
    assert repository.compiled == 3
    await source.plan_for("acme", 2)
    assert repository.compiled == 4


async def test_a_forgotten_plan_is_compiled_again_and_its_calls_are_closed(redis: Redis) -> None:
    Closing.closed = 0
    source = PlanSource(await deployed(redis, "one", node={"kind": "call"}))
    plan = await source.plan_for("acme", 1)
    source.forget("acme")
    assert await source.plan_for("acme", 1) is not plan
    await source.close()
    assert Closing.closed == 2


async def test_the_current_number_is_that_of_the_pointer(redis: Redis) -> None:
    repository = await deployed(redis, "one", "two")
    source = PlanSource(repository)
    assert await source.current_number("acme") == 2
    await repository.rollback("acme")
    assert await source.current_number("acme") == 1


async def test_a_tenant_without_a_deployment_begins_on_the_default(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chains.repository.default_root", lambda: chain("root", "a", a={}))
    source = PlanSource(ChainRepository(redis, CATALOGUE))
    assert await source.current_number("new") == 1
    assert [node.name for node in (await source.plan_for("new", 1)).nodes] == ["root/a"]
