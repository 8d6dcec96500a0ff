"""Rule chains: versions, checks, deployments."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from api.flow.operation import BASE, Answer, Call, Operation, Parts
from api.flow.problems import Fault, faults
from api.flow.tenants import note_root
from chains.compiler import check_chain
from chains.lint import lint_chain
from chains.records import ChainInfo, Deployment
from engine.errors import NotFound

Document = Annotated[dict[str, Any], Meta(description="A chain document, of the schema at /flow/v1/chain-schema.json.")]


class ChainList(msgspec.Struct, frozen=True):
    """A tenant's chains by name; `deployed` 0: not deployed."""

    chains: list[ChainInfo]


class ChainShown(msgspec.Struct, frozen=True):
    """A version of a chain."""

    chain: str
    version: int
    document: dict[str, Any]


class ChainQuery(msgspec.Struct):
    """Which version."""

    version: Annotated[int | None, Meta(description="The latest by default.")] = None


class Saved(msgspec.Struct, frozen=True):
    """What was saved. `advice` names what holds but is worth a second look."""

    chain: str
    version: int
    advice: list[Fault]


class Checked(msgspec.Struct, frozen=True):
    """Everything wrong with a document, and advice if nothing is."""

    errors: list[Fault]
    advice: list[Fault]


class Versions(msgspec.Struct, frozen=True):
    """Versions of a chain, oldest first."""

    versions: list[int]


class DeployBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What shall be current."""

    chains: Annotated[
        dict[str, int | None],
        Meta(description="Chain to version, null being the latest; chains deployed already stay as they are."),
    ] = {}
    root: Annotated[str | None, Meta(description="The chain that messages start in; null: as it is.")] = None
    note: Annotated[str, Meta(max_length=1000)] = ""


class RollbackBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to."""

    to: Annotated[int | None, Meta(description="Number of a deployment; null: the one before.")] = None


class Deployments(msgspec.Struct, frozen=True):
    """The tenant's history, oldest first; `current` 0: nothing is deployed yet."""

    deployments: list[Deployment]
    current: int


async def list_chains(parts: Parts, call: Call) -> Answer:
    """All chains of the tenant."""
    return Answer(200, ChainList(list(await parts.repository.list(call.tenant))))


async def get_chain(parts: Parts, call: Call) -> Answer:
    """A version of a chain."""
    name = call.path["chain"]
    version, document = await parts.repository.get(call.tenant, name, call.query.version)
    return Answer(200, ChainShown(name, version, document))


async def list_versions(parts: Parts, call: Call) -> Answer:
    """The versions of a chain."""
    return Answer(200, Versions(list(await parts.repository.versions(call.tenant, call.path["chain"]))))


async def save_chain(parts: Parts, call: Call) -> Answer:
    """Store a version, or tell everything that is wrong; the same document again is no new version."""
    version = await parts.repository.save(call.tenant, call.body)
    return Answer(200, Saved(call.body["chain"], version, faults(lint_chain(call.body, parts.catalogue))))


async def check(parts: Parts, call: Call) -> Answer:
    """Say what is wrong with a document, the tenant's other chains considered, and save nothing."""
    others = {
        info.name: (await parts.repository.get(call.tenant, info.name, info.latest))[1]
        for info in await parts.repository.list(call.tenant)
        if info.name != call.body.get("chain")
    }
    secrets = await parts.registry.secrets(call.tenant)
    errors = check_chain(call.body, parts.catalogue, others, tenant=call.tenant, secrets=secrets.get)
    advice = [] if errors else lint_chain(call.body, parts.catalogue)
    return Answer(200, Checked(faults(errors), faults(advice)))


async def deploy(parts: Parts, call: Call) -> Answer:
    """Make versions current; all findings of the whole result are told, and then nothing has changed."""
    body: DeployBody = call.body
    number = await parts.repository.deploy(call.tenant, body.chains, body.root, body.note)
    await note_root(parts, call.tenant)
    return Answer(200, await parts.repository.deployment(call.tenant, number))


async def rollback(parts: Parts, call: Call) -> Answer:
    """Make an earlier deployment current again."""
    number = await parts.repository.rollback(call.tenant, call.body.to if call.body is not None else None)
    await note_root(parts, call.tenant)
    return Answer(200, await parts.repository.deployment(call.tenant, number))


async def list_deployments(parts: Parts, call: Call) -> Answer:
    """The tenant's history."""
    current = await parts.repository.current(call.tenant)
    found = await parts.repository.deployments(call.tenant)
    return Answer(200, Deployments(list(found), current.number if current else 0))


async def current_deployment(parts: Parts, call: Call) -> Answer:
    """What messages run through now."""
    current = await parts.repository.current(call.tenant)
    if current is None:
        raise NotFound("deployment", "current")
    return Answer(200, current)


_TENANT: Final = BASE + "/tenants/{tenant}"
_ALL: Final = _TENANT + "/chains"
_DEPLOYMENTS: Final = _TENANT + "/deployments"

OPERATIONS: Final = (
    Operation(
        method="GET", path=_ALL, id="list_chains", summary="List a tenant's chains", handler=list_chains,
        answers={200: ChainList},
    ),
    Operation(
        method="POST", path=_ALL, id="save_chain", summary="Save a version of a chain", handler=save_chain,
        answers={200: Saved}, body=Document, problems=(409,),
    ),
    Operation(
        method="POST", path=_TENANT + "/chain-check", id="check_chain", summary="Check a chain without saving it",
        handler=check, answers={200: Checked}, body=Document,
    ),
    Operation(
        method="GET", path=_ALL + "/{chain}", id="get_chain", summary="Show a version of a chain",
        handler=get_chain, answers={200: ChainShown}, query=ChainQuery,
    ),
    Operation(
        method="GET", path=_ALL + "/{chain}/versions", id="list_chain_versions", summary="List a chain's versions",
        handler=list_versions, answers={200: Versions},
    ),
    Operation(
        method="GET", path=_DEPLOYMENTS, id="list_deployments", summary="List a tenant's deployments",
        handler=list_deployments, answers={200: Deployments},
    ),
    Operation(
        method="POST", path=_DEPLOYMENTS, id="deploy", summary="Deploy versions of chains", handler=deploy,
        answers={200: Deployment}, body=DeployBody, problems=(409,),
    ),
    Operation(
        method="GET", path=_DEPLOYMENTS + "/current", id="current_deployment", summary="Show what is deployed",
        handler=current_deployment, answers={200: Deployment},
    ),
    Operation(
        method="POST", path=_TENANT + "/rollback", id="rollback", summary="Go back to an earlier deployment",
        handler=rollback, answers={200: Deployment}, body=RollbackBody, body_optional=True, problems=(409,),
    ),
)  # fmt: skip
