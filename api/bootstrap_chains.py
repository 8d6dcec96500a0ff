"""Chains in bootstrap files: checked among those of their tenant, saved, and deployed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from chains.compiler import check_chain
from chains.repository import DEFAULT_ROOT, ChainRepository
from engine.errors import Finding
from engine.stores.registry_store import Registry


class ChainEntry(NamedTuple):
    """A chain of a tenant."""

    tenant: str
    name: str
    document: dict[str, Any]


class Deployed(NamedTuple):
    """What a tenant's chains took: the names of those saved anew, and the number of the deployment if it is new."""

    chains: list[str]
    number: int | None


def chain_of(entry: Mapping[str, Any]) -> ChainEntry:
    """The chain that an entry of the right shape is: a chain file with a tenant."""
    document = {key: value for key, value in entry.items() if key != "tenant"}
    return ChainEntry(entry["tenant"], entry["chain"], document)


async def check_entry(
    repository: ChainRepository, registry: Registry, entry: ChainEntry, entries: Iterable[ChainEntry]
) -> list[Finding]:
    """What the compiler has against a chain, among the tenant's others: those that are kept, and those of `entries`."""
    others = {
        info.name: (await repository.get(entry.tenant, info.name))[1] for info in await repository.list(entry.tenant)
    }
    others |= {other.name: other.document for other in entries if other.tenant == entry.tenant}
    others.pop(entry.name, None)
    secrets = await registry.secrets(entry.tenant)
    return check_chain(entry.document, repository.catalogue, others, tenant=entry.tenant, secrets=secrets.get)


async def deploy(
    repository: ChainRepository, registry: Registry, tenant: str, documents: Mapping[str, dict[str, Any]], *, keep: bool
) -> Deployed:
    """Save a tenant's chains by name and deploy what differs, or its root chain if it has none; InvalidDocument.

    With `keep`, chains that exist stay as they are, and so does a deployment.
    """
    existing = {info.name for info in await repository.list(tenant)}
    before = await repository.current(tenant)
    names: dict[str, int | None] = {}
    saved: list[str] = []
    for name, document in documents.items():
        if keep and name in existing:
            continue
        names[name] = version = await repository.save(tenant, document)
        if before is None or before.chains.get(name) != version:
            saved.append(name)
    root = (await registry.tenant(tenant)).root_chain
    if root == DEFAULT_ROOT and root not in names and before is None:
        await repository.ensure_default(tenant)
    if keep and before is not None:
        return Deployed(saved, None)
    if root not in names and not (before and root in before.chains) and root != DEFAULT_ROOT:
        names[root] = None
    number = await repository.deploy(tenant, names, root, "bootstrap")
    return Deployed(saved, number if before is None or number != before.number else None)
