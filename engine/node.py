"""The contract between the kernel and node kinds. Node authors import this file's names from `nodes`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import msgspec

from engine.errors import Finding
from engine.message import Message
from engine.outcomes import Outcomes


class Relation(NamedTuple):
    """A label that a node may emit, and when it does."""

    name: str
    when: str


class Example(NamedTuple):
    """A configuration that builds, with what it is good for."""

    title: str
    config: dict[str, Any]


class NodeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a kind is: everything that the catalogue, the schema, the linter and the console know of it."""

    kind: str
    category: str
    """One of filter, transform, action, external, flow."""
    summary: str
    """One sentence."""
    description: str
    config: type[msgspec.Struct]
    """A struct whose fields carry `Annotated[..., msgspec.Meta(description=...)]` and defaults where there are any."""
    relations: tuple[Relation, ...]
    open_relations: bool = False
    """The node may emit labels that its configuration or its script chooses."""
    parks: bool = False
    """The node holds messages durably, so a cycle through it is allowed."""
    examples: tuple[Example, ...] = ()
    version: int = 1


class Build(Protocol):
    """What a node may ask for while it is built from its configuration."""

    tenant: str
    chain: str
    node: str

    def file(self, name: str) -> str:
        """Text of a file that travels with the chain; raises BadInput if there is none."""
        ...

    def secret(self, name: str) -> str:
        """Value of a secret of the tenant; raises BadInput if there is none."""
        ...


class Context(Protocol):
    """What a node may look at while it runs. State is read here and written through `Outcomes`."""

    now_ms: int
    tenant: str

    async def load(self, wanted: Iterable[tuple[str, str, str]]) -> None:
        """Read state fields (originator, table, field) of many originators in one round trip."""
        ...

    def get(self, originator: str, table: str, field: str) -> bytes | None:
        """A field that `load` has read, with this batch's own writes over it; KeyError if it was not loaded."""
        ...

    async def product(self, product_id: str) -> Product | None:
        """A product of the tenant; cached."""
        ...

    def secret(self, name: str) -> str | None:
        """A secret of the tenant."""
        ...

    def progress(self) -> None:
        """Say that work goes on: call it between long steps, or the watchdog takes the worker for stuck."""
        ...


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of device: what its devices have in common. `facets` holds what the dialects keep there."""

    id: str
    tenant: str
    name: str = ""
    facets: dict[str, Any] = {}
    revision: int = 0


class Resumed(msgspec.Struct, frozen=True, array_like=True):
    """Why a parked message comes back: `timer`, `answer` or `call`, with what it brings."""

    event: str
    body: Any = None
    error: str = ""


class Node:
    """One step of a chain: built once per plan from its configuration, then called with batches.

    `process` may await nothing but Context reads, one round trip a batch, and must give every message an outcome.
    """

    spec: ClassVar[NodeSpec]

    def __init__(self, config: Any, build: Build) -> None:
        self.config = config

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        """Give every message of the batch an outcome. Messages come in arrival order."""
        raise NotImplementedError

    async def resume(self, i: int, message: Message, resumed: Resumed, out: Outcomes, ctx: Context) -> None:
        """Give the parked message, now back as number `i`, an outcome. Only kinds that park are asked."""
        raise NotImplementedError

    @classmethod
    def check(cls, config: Any, build: Build) -> list[Finding]:
        """Everything wrong with a configuration that its schema cannot say; pointers relative to the config."""
        return []

    def relations(self) -> frozenset[str] | None:
        """Labels that this node, as configured, may emit; None: any label."""
        return None if self.spec.open_relations else frozenset(relation.name for relation in self.spec.relations)

    def reads(self) -> frozenset[str]:
        """State that the node reads, as `table` or `table:field`."""
        return frozenset()

    def writes(self) -> frozenset[str]:
        """State that the node writes, as `table` or `table:field`."""
        return frozenset()


class CallContext(Protocol):
    """What an outward call may look at."""

    now_ms: int
    tenant: str
    idempotency_key: str
    """Stays the same when the call is made again after a crash."""

    async def read(self, table: str, field: str) -> bytes | None:
        """A field of the originator's state, as it is now."""
        ...

    def secret(self, name: str) -> str | None:
        """A secret of the tenant."""
        ...


class CallNode(Node):
    """A step that calls the world outside: runs apart from the partition, one message at a time.

    The kernel parks the message, calls, and brings the outcome back as an ordinary entry. `call` returns what to emit,
    or raises Retry (what failed may pass), Discard, or any other error (final).
    """

    timeout_s: float = 10.0
    concurrency: int = 64
    ordered: bool = True
    """One call at a time per originator, in arrival order."""

    async def call(self, message: Message, ctx: CallContext) -> list[tuple[str, Message]]:
        """Do the outward work for one message and return (relation, message) pairs."""
        raise NotImplementedError

    async def close(self) -> None:
        """Give back connections; the plan is not used any more."""
