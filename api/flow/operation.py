"""What an operation of the management API is: one line of the table that routes and OpenAPI are made from."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio import Redis

from api.accounts import Accounts
from api.flow.point_tailing import PointTail
from api.flow.tailing import TailHub
from api.server_messages import ServerMessages
from chains.model import Catalogue
from chains.repository import ChainRepository
from engine.deadletters import DeadLetters
from engine.ingress import Ingress
from engine.replies import Replies
from engine.stores.alarm_store import AlarmStore
from engine.stores.apps.activations import Activations
from engine.stores.apps.apps import Apps
from engine.stores.apps.users import Users
from engine.stores.attribute_store import Attributes
from engine.stores.commands import Commands
from engine.stores.firmware import Firmware
from engine.stores.registry_store import Registry
from engine.stores.rollouts import Rollouts
from engine.stores.timeseries import Timeseries
from engine.wire import Wire

BASE: Final = "/flow/v1"
MAX_BODY_BYTES: Final = 4 << 20
"""A chain of 1 MiB with its state and message for a dry run; everything else is far smaller."""


@dataclass(slots=True, kw_only=True)
class Parts:
    """What the composition root hands the management API. `wire` and `redis` are connections to the same Redis."""

    wire: Wire
    redis: Redis
    partitions: int
    ingress: Ingress
    replies: Replies
    registry: Registry
    repository: ChainRepository
    catalogue: Catalogue
    commands: Commands
    dead_letters: DeadLetters
    attributes: Attributes
    alarms: AlarmStore
    store: Timeseries
    tail: TailHub
    point_tail: PointTail
    firmware: Firmware
    rollouts: Rollouts
    accounts: Accounts
    apps: Apps
    app_users: Users
    activations: Activations
    messages: ServerMessages
    tokens: frozenset[str]
    """SHA-256 of the operator tokens that are accepted, in hex (`token_digest`)."""
    spool_limit_bytes: int = 0
    """Bytes of points at which the door closes."""
    checks: Mapping[str, Callable[[], str]] = field(default_factory=dict)
    """More conditions of readiness by name: each gives its reason, or nothing when all is well."""


def token_digest(token: str) -> str:
    """How an operator token is kept and compared."""
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass(slots=True)
class Call:
    """A request that fits its operation: `query` and `body` are of the operation's types."""

    path: Mapping[str, str]
    query: Any
    body: Any
    accept: str = ""
    """The Accept header."""

    @property
    def tenant(self) -> str:
        """The tenant that the path names; it exists."""
        return self.path["tenant"]


@dataclass(slots=True)
class Answer:
    """A success. Bytes are sent as they are, anything else as JSON, None without a body."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Lines:
    """A success that goes on: lines until either side ends it. An error in them cuts the connection."""

    lines: AsyncGenerator[bytes, None]
    media: str = ""
    """Empty: the operation's."""
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Parts, Call], Awaitable[Answer | Lines]]


@dataclass(slots=True, frozen=True, kw_only=True)
class Operation:
    """One operation."""

    method: str
    path: str
    """With `{name}` for what varies; every name is one segment."""
    id: str
    summary: str
    handler: Handler
    answers: Mapping[int, Any]
    """Status of each success to the type of its body, None for none."""
    query: type | None = None
    """A struct whose fields are the query parameters; a list may be given several times."""
    body: Any = None
    """Type of the JSON body, `bytes` for one that is taken as it is; None: there is none."""
    max_body_bytes: int = MAX_BODY_BYTES
    body_optional: bool = False
    problems: tuple[int, ...] = ()
    """Problems besides those that follow from the rest."""
    public: bool = False
    """No token is needed."""
    makes_tenant: bool = False
    """The tenant of the path need not exist."""
    media: str = "application/json"
    also_media: tuple[str, ...] = ()
    """Media types of text that may be asked for in place of `media`."""

    def failures(self) -> list[int]:
        """Every status of a problem that this operation may answer with, ascending."""
        found = set(self.problems)
        if self.query is not None or self.body is not None:
            found.add(400)
        if self.body is not None:
            found.add(413)
        if not self.public:
            found |= {401, 503}
        if "{" in self.path:
            found.add(404)
        return sorted(found)
