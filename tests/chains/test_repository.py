from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from chains import repository as repository_module
from chains.repository import ChainRepository
from engine.errors import BadInput, Conflict, Finding, InvalidDocument, NotFound
from tests.chains.documents import chain
from tests.chains.kinds import CATALOGUE

pytestmark = pytest.mark.asyncio

ROOT = chain("root", "a", a={})
CALLS = chain("root", "a", a={"kind": "chain", "config": {"chain": "sub"}})
SUB = chain("sub", "x", x={})


@pytest.fixture
def repository(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> ChainRepository:
    # The toy catalogue knows none of the kinds in the real default chain.
    monkeypatch.setattr(repository_module, "default_root", lambda: ROOT)
    return ChainRepository(redis, CATALOGUE)


def titled(document: dict[str, Any], title: str) -> dict[str, Any]:
    return document | {"title": title}


async def test_each_change_is_a_version_and_the_same_again_is_none(repository: ChainRepository) -> None:
    assert await repository.save("acme", ROOT) == 1
    assert await repository.save("acme", dict(reversed(ROOT.items()))) == 1
    assert await repository.save("acme", titled(ROOT, "Two")) == 2
    assert await repository.save("acme", ROOT) == 3
    assert await repository.versions("acme", "root") == [1, 2, 3]
    assert await repository.get("acme", "root") == (3, ROOT)
    version, document = await repository.get("acme", "root", 2)
    assert (version, document) == (2, titled(ROOT, "Two"))
    assert await repository.save("other", titled(ROOT, "Elsewhere")) == 1


async def test_true_and_one_are_different_documents(repository: ChainRepository) -> None:
    def limits(low: float) -> dict[str, Any]:
        return chain("root", "a", a={"kind": "step", "config": {"limits": {"low": low}}})

    assert await repository.save("acme", limits(0)) == 1
    assert await repository.save("acme", limits(0.0)) == 2


async def test_a_document_keeps_its_authors_order(repository: ChainRepository) -> None:
    document = chain("root", "z", z={"Success": ["b", "a"], "Failure": "a"}, b={}, a={})
    await repository.save("acme", document)
    _, saved = await repository.get("acme", "root")
    assert list(saved["nodes"]) == ["z", "b", "a"]
    assert list(saved["nodes"]["z"]["to"].items()) == [("Success", ["b", "a"]), ("Failure", "a")]


async def test_a_wrong_document_is_not_stored(repository: ChainRepository) -> None:
    with pytest.raises(InvalidDocument) as caught:
        await repository.save("acme", chain("root", "a", a={"Success": "b"}))
    assert caught.value.findings == [Finding("/nodes/a/to/Success", "there is no node 'b' (known: 'a')")]
    assert await repository.list("acme") == []


async def test_a_document_may_not_be_larger_than_a_mebibyte(repository: ChainRepository) -> None:
    with pytest.raises(InvalidDocument, match="at most 1048576"):
        await repository.save("acme", ROOT | {"files": {"x": "y" * (1 << 20)}})


@pytest.mark.parametrize("tenant", ["", "a:b", "{p1}", "a/b", "x" * 65, " a", "a\n"])
async def test_tenants_have_names_that_keep_keys_apart(repository: ChainRepository, tenant: str) -> None:
    for refused in (
        repository.save(tenant, ROOT),
        repository.deploy(tenant, {}),
        repository.rollback(tenant),
        repository.ensure_default(tenant),
    ):
        with pytest.raises(BadInput, match="cannot name a tenant"):
            await refused


async def test_what_does_not_exist_is_not_found(repository: ChainRepository) -> None:
    await repository.save("acme", ROOT)
    for missing in (
        repository.get("acme", "sub"),
        repository.get("acme", "root", 2),
        repository.versions("acme", "sub"),
        repository.deployment("acme", 1),
        repository.load("acme", 1),
        repository.deploy("acme", {"sub": None}),
        repository.deploy("acme", {"root": 2}),
        repository.deploy("acme", {"root": 0}),
        repository.rollback("acme", 4),
    ):
        with pytest.raises(NotFound):
            await missing
    assert await repository.current("acme") is None


async def test_deploying_names_versions_and_keeps_the_rest(repository: ChainRepository) -> None:
    await repository.save("acme", SUB)
    await repository.save("acme", CALLS)
    assert await repository.deploy("acme", {"root": None, "sub": 1}, note="first") == 1
    await repository.save("acme", titled(SUB, "Newer"))
    assert await repository.deploy("acme", {"sub": None}) == 2
    current = await repository.current("acme")
    assert current is not None
    assert (current.number, current.root, current.chains, current.previous) == (2, "root", {"root": 1, "sub": 2}, 1)
    assert (await repository.deployment("acme", 1)).note == "first"
    assert await repository.load("acme", 2) == {"root": (1, CALLS), "sub": (2, titled(SUB, "Newer"))}
    plan = await repository.compile("acme", 1)
    assert [(node.name, node.chain_version) for node in plan.nodes] == [("root/a/x", 1)]
    assert [(info.name, info.latest, info.deployed, info.root) for info in await repository.list("acme")] == [
        ("root", 1, 1, True),
        ("sub", 2, 2, False),
    ]
    assert await repository.deploy("acme", {"sub": 2}) == 2, "what is current already is not deployed again"


async def test_a_deployment_that_does_not_hold_changes_nothing(repository: ChainRepository) -> None:
    await repository.save("acme", CALLS)
    with pytest.raises(InvalidDocument) as caught:
        await repository.deploy("acme", {"root": None})
    assert caught.value.findings == [
        Finding("/nodes/a/config/chain", "there is no chain 'sub' (known: 'root')"),
    ]
    assert await repository.current("acme") is None
    assert await repository.deployments("acme") == []


async def test_another_chain_can_become_the_root(repository: ChainRepository) -> None:
    await repository.save("acme", SUB)
    assert await repository.deploy("acme", {"sub": None}, root="sub") == 1
    await repository.save("acme", ROOT)
    assert await repository.deploy("acme", {"root": None}) == 2
    current = await repository.current("acme")
    assert current is not None
    assert current.root == "sub"


async def test_rolling_back_moves_along_what_was_current(repository: ChainRepository) -> None:
    for title in ("one", "two", "three"):
        await repository.save("acme", titled(ROOT, title))
        await repository.deploy("acme", {"root": None})
    assert await repository.rollback("acme") == 2
    await repository.save("acme", titled(ROOT, "four"))
    assert await repository.deploy("acme", {"root": None}) == 4
    assert await repository.rollback("acme") == 2, "three had been taken back: it is not what was there before four"
    assert await repository.rollback("acme", 4) == 4
    assert await repository.rollback("acme", 1) == 1
    with pytest.raises(Conflict, match="no earlier deployment"):
        await repository.rollback("acme")
    assert [deployment.number for deployment in await repository.deployments("acme")] == [1, 2, 3, 4]


async def test_workers_are_told_of_every_move(repository: ChainRepository, redis: Redis) -> None:
    async with redis.pubsub() as listener:
        await listener.subscribe("rm:deployed")
        await repository.ensure_default("acme")
        await repository.save("acme", titled(ROOT, "two"))
        await repository.deploy("acme", {"root": None})
        await repository.deploy("acme", {"root": None})
        await repository.rollback("acme")
        told: list[bytes] = []
        while len(told) < 3:
            heard = await listener.get_message(ignore_subscribe_messages=True, timeout=5)
            if heard is not None:
                told.append(heard["data"])
        assert told == [b"acme"] * 3
        assert await listener.get_message(ignore_subscribe_messages=True, timeout=0.05) is None


async def test_deployments_at_once_lose_nothing(repository: ChainRepository, redis: Redis) -> None:
    await repository.ensure_default("acme")
    names = [f"c{i}" for i in range(8)]
    await asyncio.gather(*(repository.save("acme", chain(name, "x", x={})) for name in names))
    others = [ChainRepository(redis, CATALOGUE) for _ in names]
    numbers = await asyncio.gather(
        *(other.deploy("acme", {name: None}) for other, name in zip(others, names, strict=True))
    )
    assert sorted(numbers) == list(range(2, 10))
    current = await repository.current("acme")
    assert current is not None
    assert current.chains == {"root": 1, **dict.fromkeys(names, 1)}


async def test_versions_saved_at_once_are_all_kept(repository: ChainRepository) -> None:
    titles = [f"title {i}" for i in range(8)]
    numbers = await asyncio.gather(*(repository.save("acme", titled(ROOT, title)) for title in titles))
    assert sorted(numbers) == list(range(1, 9))
    kept = [(await repository.get("acme", "root", number))[1]["title"] for number in numbers]
    assert kept == titles


async def test_a_new_tenant_gets_the_default_root_chain_once(repository: ChainRepository, redis: Redis) -> None:
    others = [ChainRepository(redis, CATALOGUE) for _ in range(6)]
    assert await asyncio.gather(*(other.ensure_default("acme") for other in others)) == [1] * 6
    assert await repository.ensure_default("acme") == 1
    assert await repository.versions("acme", "root") == [1]
    assert [deployment.chains for deployment in await repository.deployments("acme")] == [{"root": 1}]


async def test_a_tenants_own_root_chain_stands_before_the_default(repository: ChainRepository) -> None:
    await repository.save("acme", titled(ROOT, "Mine"))
    await repository.ensure_default("acme")
    assert await repository.load("acme", 1) == {"root": (1, titled(ROOT, "Mine"))}
    await repository.save("acme", SUB)
    await repository.deploy("acme", {"sub": None}, root="sub")
    assert await repository.ensure_default("acme") == 2, "a tenant with a deployment keeps it"


async def test_secrets_are_the_tenants_own(redis: Redis) -> None:
    async def secrets(tenant: str) -> dict[str, str]:
        return {"KEY": "s3"} if tenant == "acme" else {}

    repository = ChainRepository(redis, CATALOGUE, secrets)
    document = chain("root", "a", a={"kind": "step", "config": {"secret": "KEY"}})
    await repository.save("acme", document)
    await repository.deploy("acme", {"root": None})
    plan = await repository.compile("acme", 1)
    assert plan.nodes[0].node.secret == "s3"  # type: ignore[attr-defined]
    with pytest.raises(InvalidDocument, match="there is no secret 'KEY'"):
        await repository.save("other", document)
