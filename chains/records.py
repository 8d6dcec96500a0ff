"""What stands in Redis about chains: keys, records, and how several processes change them without losing anything.

Keys of a tenant, all of one slot:
`rm:{reg}:chain:<tenant>:<name>` hash version to document; `rm:{reg}:chains:<tenant>` hash name to latest version;
`rm:{reg}:deployments:<tenant>` hash number to deployment; `rm:{reg}:deployed:<tenant>` the current number.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import WatchError

from engine.errors import Conflict

CHANNEL: Final = "rm:deployed"
"""Where the name of a tenant is published whose current deployment has changed."""

_ATTEMPTS: Final = 100


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A version of every deployed chain of a tenant, and the chain that messages start in."""

    number: int
    root: str
    chains: dict[str, int]
    created_ms: int
    note: str = ""
    previous: int = 0
    """The deployment that this one took the place of, to which a rollback leads; 0: none."""


class ChainInfo(msgspec.Struct, frozen=True):
    """One line of a list of chains; `deployed` is 0 for a chain that is not in the current deployment."""

    name: str
    latest: int
    deployed: int
    root: bool


decode_deployment = msgspec.json.Decoder(Deployment).decode


def versions_key(tenant: str, name: str) -> str:
    """Hash version to document of one chain."""
    return f"rm:{{reg}}:chain:{tenant}:{name}"


def latest_key(tenant: str) -> str:
    """Hash chain name to latest version."""
    return f"rm:{{reg}}:chains:{tenant}"


def deployments_key(tenant: str) -> str:
    """Hash number to deployment."""
    return f"rm:{{reg}}:deployments:{tenant}"


def deployed_key(tenant: str) -> str:
    """The number of the current deployment."""
    return f"rm:{{reg}}:deployed:{tenant}"


async def change(redis: Redis, watched: tuple[str, ...], attempt: Callable[[Pipeline], Awaitable[int]]) -> int:
    """Run `attempt` from its start until nobody else has changed the watched keys meanwhile; return what it returns.

    It reads through the pipeline, then writes between `begin` and `execute`.
    """
    for _ in range(_ATTEMPTS):
        async with redis.pipeline(transaction=True) as pipe:
            await pipe.watch(*watched)
            try:
                return await attempt(pipe)
            except WatchError:
                continue
    raise Conflict(f"others changed the same chains {_ATTEMPTS} times in a row; try again")


def begin(pipe: Pipeline) -> None:
    """From here to `execute`: all or nothing, and nothing if a watched key has changed."""
    pipe.multi()  # type: ignore[no-untyped-call]
