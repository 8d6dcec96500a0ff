"""Chains in Redis: versions that never change, deployments that name a version of each, the current one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import resources
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from chains.compiler import check_chain, compile_tenant
from chains.model import Catalogue, check_name
from chains.records import (
    CHANNEL,
    ChainInfo,
    Deployment,
    begin,
    change,
    decode_deployment,
    deployed_key,
    deployments_key,
    latest_key,
    versions_key,
)
from engine.errors import Conflict, Finding, InvalidDocument, NotFound
from engine.message import now_ms
from engine.plan import Plan

DEFAULT_ROOT: Final = "root"
"""The chain that messages of a new tenant start in."""

MAX_DOCUMENT_BYTES: Final = 1 << 20

SecretsOf = Callable[[str], Awaitable[Mapping[str, str]]]
"""A tenant's secrets by name."""


async def without_secrets(tenant: str) -> Mapping[str, str]:
    """For servers on which tenants have no secrets."""
    return {}


def default_root() -> dict[str, Any]:
    """The root chain of new tenants (G-19)."""
    text = resources.files("chains").joinpath("library", f"{DEFAULT_ROOT}.json").read_bytes()
    document: dict[str, Any] = msgspec.json.decode(text)
    return document


class ChainRepository:
    """Chains and deployments of all tenants. Processes that change a tenant's at once lose nothing of each other's.

    `redis` is a client that gives bytes.
    """

    def __init__(self, redis: Redis, catalogue: Catalogue, secrets: SecretsOf = without_secrets) -> None:
        self._redis = redis
        self._catalogue = catalogue
        self._secrets = secrets

    @property
    def catalogue(self) -> Catalogue:
        """The kinds that chains are checked against."""
        return self._catalogue

    async def save(self, tenant: str, document: dict[str, Any]) -> int:
        """Store a new version of a chain and return its number, or the latest one's if that is the same document.

        Raises InvalidDocument with everything wrong with this document by itself; what it calls need not exist yet.
        """
        return await self._save(tenant, document, first_only=False)

    async def get(self, tenant: str, name: str, version: int | None = None) -> tuple[int, dict[str, Any]]:
        """A version of a chain, the latest by default, with its number; raises NotFound."""
        if version is None:
            version = int(await self._redis.hget(latest_key(tenant), name) or 0)
        text = await self._redis.hget(versions_key(tenant, name), str(version))
        if text is None:
            raise NotFound("chain", f"{name} version {version}" if version else name)
        return version, msgspec.json.decode(text)

    async def list(self, tenant: str) -> Sequence[ChainInfo]:
        """All chains of a tenant by name."""
        current = await self.current(tenant)
        deployed = current.chains if current else {}
        latest = await self._redis.hgetall(latest_key(tenant))
        infos = [(name.decode() if isinstance(name, bytes) else name, int(version)) for name, version in latest.items()]
        return [
            ChainInfo(name, version, deployed.get(name, 0), current is not None and name == current.root)
            for name, version in sorted(infos)
        ]

    async def versions(self, tenant: str, name: str) -> Sequence[int]:
        """The versions of a chain, oldest first; raises NotFound."""
        found = sorted(int(version) for version in await self._redis.hkeys(versions_key(tenant, name)))
        if not found:
            raise NotFound("chain", name)
        return found

    async def deploy(
        self, tenant: str, chains: Mapping[str, int | None], root: str | None = None, note: str = ""
    ) -> int:
        """Make these versions (None: the latest) current beside those deployed already; return the deployment's number.

        The whole result is compiled first: InvalidDocument with every finding, and nothing has changed. NotFound for
        a chain or version that does not exist. Deploying what is current already makes no new deployment.
        """
        return await self._deploy(tenant, chains, root, note, first_only=False)

    async def rollback(self, tenant: str, to: int | None = None) -> int:
        """Make an earlier deployment current again, by default the one before; return its number.

        History stays as it is. Raises NotFound, Conflict if there is none before, or InvalidDocument if the kinds of
        today cannot run it any more.
        """
        check_name("tenant", tenant)

        async def attempt(pipe: Pipeline) -> int:
            current = await self._current(pipe, tenant)
            number = to if to is not None else (current.previous if current else 0)
            if to is None and not number:
                raise Conflict("there is no earlier deployment to go back to")
            target = await self._deployment(pipe, tenant, number)
            await self._compiled(pipe, tenant, number, target.root, target.chains)
            begin(pipe)
            pipe.set(deployed_key(tenant), number)
            pipe.publish(CHANNEL, tenant)
            await pipe.execute()
            return number

        return await change(self._redis, (deployed_key(tenant), deployments_key(tenant)), attempt)

    async def ensure_default(self, tenant: str) -> int:
        """Give a tenant without any deployment the default root chain; return the number of its current deployment.

        Does nothing for other tenants, so that it may be called again, and by several processes at once. A root chain
        that was saved before stands.
        """
        current = await self.current(check_name("tenant", tenant))
        if current is not None:
            return current.number
        await self._save(tenant, default_root(), first_only=True)
        return await self._deploy(tenant, {DEFAULT_ROOT: None}, DEFAULT_ROOT, "the default root chain", first_only=True)

    async def current(self, tenant: str) -> Deployment | None:
        """What messages of the tenant run through now; None before its first deployment."""
        return await self._current(self._redis, tenant)

    async def deployment(self, tenant: str, number: int) -> Deployment:
        """A deployment, current or not; raises NotFound."""
        return await self._deployment(self._redis, tenant, number)

    async def deployments(self, tenant: str) -> Sequence[Deployment]:
        """The tenant's history, oldest first."""
        found = await self._redis.hgetall(deployments_key(tenant))
        return sorted(map(decode_deployment, found.values()), key=lambda deployment: deployment.number)

    async def load(self, tenant: str, number: int) -> dict[str, tuple[int, dict[str, Any]]]:
        """Version and document of every chain of a deployment; raises NotFound."""
        return await self._documents(self._redis, tenant, (await self.deployment(tenant, number)).chains)

    async def compile(self, tenant: str, number: int) -> Plan:
        """The plan of a deployment; raises NotFound, or InvalidDocument if the kinds of today cannot run it."""
        deployment = await self.deployment(tenant, number)
        return await self._compiled(self._redis, tenant, number, deployment.root, deployment.chains)

    async def _save(self, tenant: str, document: dict[str, Any], *, first_only: bool) -> int:
        check_name("tenant", tenant)
        found = check_chain(document, self._catalogue, tenant=tenant, secrets=(await self._secrets(tenant)).get)
        # Stored in its author's order, compared without it.
        text = msgspec.json.encode(document) if not found else b""
        if len(text) > MAX_DOCUMENT_BYTES:
            found = [Finding("", f"the document has {len(text)} bytes; at most {MAX_DOCUMENT_BYTES} are possible")]
        if found:
            raise InvalidDocument(found)
        name: str = document["chain"]

        async def attempt(pipe: Pipeline) -> int:
            latest = int(await pipe.hget(latest_key(tenant), name) or 0)
            before = await pipe.hget(versions_key(tenant, name), str(latest))
            if before is not None and (first_only or _same(msgspec.json.decode(before), document)):
                return latest
            begin(pipe)
            pipe.hset(versions_key(tenant, name), str(latest + 1), text)
            pipe.hset(latest_key(tenant), name, latest + 1)
            await pipe.execute()
            return latest + 1

        return await change(self._redis, (latest_key(tenant),), attempt)

    async def _deploy(
        self, tenant: str, chains: Mapping[str, int | None], root: str | None, note: str, *, first_only: bool
    ) -> int:
        check_name("tenant", tenant)

        async def attempt(pipe: Pipeline) -> int:
            current = await self._current(pipe, tenant)
            if first_only and current:
                return current.number
            wanted = dict(current.chains) if current else {}
            for name, version in chains.items():
                wanted[name] = int(await pipe.hget(latest_key(tenant), name) or 0) if version is None else version
                if not wanted[name]:
                    raise NotFound("chain", name)
            top = root or (current.root if current else DEFAULT_ROOT)
            numbers = [int(number) for number in await pipe.hkeys(deployments_key(tenant))]
            number = max(numbers, default=0) + 1
            await self._compiled(pipe, tenant, number, top, wanted)
            if current and (current.root, current.chains) == (top, wanted):
                return current.number
            deployment = Deployment(
                number=number,
                root=top,
                chains=wanted,
                created_ms=now_ms(),
                note=note,
                previous=current.number if current else 0,
            )
            begin(pipe)
            pipe.hset(deployments_key(tenant), str(number), msgspec.json.encode(deployment))
            pipe.set(deployed_key(tenant), number)
            pipe.publish(CHANNEL, tenant)
            await pipe.execute()
            return number

        return await change(self._redis, (deployed_key(tenant), deployments_key(tenant)), attempt)

    async def _compiled(self, redis: Redis, tenant: str, number: int, root: str, chains: Mapping[str, int]) -> Plan:
        documents = await self._documents(redis, tenant, chains)
        secrets = await self._secrets(tenant)
        return compile_tenant(tenant, number, root, documents, self._catalogue, secrets=secrets.get)

    async def _current(self, redis: Redis, tenant: str) -> Deployment | None:
        number = await redis.get(deployed_key(tenant))
        return None if number is None else await self._deployment(redis, tenant, int(number))

    async def _deployment(self, redis: Redis, tenant: str, number: int) -> Deployment:
        text = await redis.hget(deployments_key(tenant), str(number))
        if text is None:
            raise NotFound("deployment", str(number))
        return decode_deployment(text)

    async def _documents(
        self, redis: Redis, tenant: str, chains: Mapping[str, int]
    ) -> dict[str, tuple[int, dict[str, Any]]]:
        documents = {}
        for name, version in chains.items():
            text = await redis.hget(versions_key(tenant, name), str(version))
            if text is None:
                raise NotFound("chain", f"{name} version {version}")
            documents[name] = (version, msgspec.json.decode(text))
        return documents


def _same(one: object, other: object) -> bool:
    return msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")
