"""A node's surroundings in tests: state in a dict, secrets in a dict, a clock that stands still."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from nodes import BadInput, Message, Node, Outcomes, Product, Resumed, Write

N = TypeVar("N", bound=Node)
NOW_MS = 1_700_000_000_000


class DictContext:
    """Context and CallContext over dicts. A field may be read only after `load`, as with the real one."""

    def __init__(self, secrets: dict[str, str] | None = None) -> None:
        self.now_ms = NOW_MS
        self.tenant = "acme"
        self.idempotency_key = "m1/node/"
        self.state: dict[tuple[str, str, str], bytes] = {}
        self.loaded: set[tuple[str, str, str]] = set()
        self.loads = 0
        self.secrets = secrets or {}

    async def load(self, wanted: Iterable[tuple[str, str, str]]) -> None:
        self.loaded.update(wanted)
        self.loads += 1

    def get(self, originator: str, table: str, field: str) -> bytes | None:
        place = (originator, table, field)
        if place not in self.loaded:
            raise KeyError(place)
        return self.state.get(place)

    async def product(self, product_id: str) -> Product | None:
        return None

    def secret(self, name: str) -> str | None:
        return self.secrets.get(name)

    async def read(self, table: str, field: str) -> bytes | None:
        return self.state.get(("dev1", table, field))

    def progress(self) -> None:
        pass

    def commit(self, batch: Sequence[Message], out: Outcomes) -> None:
        """What the commit of the batch does to the state."""
        for i, effect in out.effects:
            if isinstance(effect, Write) and i not in out.failed:
                place = (batch[i].originator, effect.table, effect.field)
                if effect.value is None:
                    self.state.pop(place, None)
                else:
                    self.state[place] = effect.value


class DictBuild:
    """Build over dicts."""

    def __init__(self, files: dict[str, str] | None = None, secrets: dict[str, str] | None = None) -> None:
        self.tenant = "acme"
        self.chain = "main"
        self.node = "this one"
        self.files = files or {}
        self.secrets = secrets or {}

    def file(self, name: str) -> str:
        if name not in self.files:
            raise BadInput(f"no file {name!r}")
        return self.files[name]

    def secret(self, name: str) -> str:
        if name not in self.secrets:
            raise BadInput(f"no secret {name!r}")
        return self.secrets[name]


def message(data: Any = None, /, *, type: str = "POST_TELEMETRY_REQUEST", **fields: Any) -> Message:
    made = {"id": "m1", "ts_ms": NOW_MS - 1000, "tenant": "acme", "originator": "dev1", **fields}
    return Message(type=type, data=data, **made)


def build(kind: type[N], /, secrets: dict[str, str] | None = None, **config: Any) -> N:
    """The node with that configuration, as the compiler makes it."""
    converted = msgspec.convert(config, kind.spec.config)
    surroundings = DictBuild(secrets=secrets)
    findings = kind.check(converted, surroundings)
    if findings:
        raise BadInput(findings[0].message, findings[0].pointer)
    return kind(converted, surroundings)


async def run(node: Node, *batch: Message, ctx: DictContext | None = None) -> Outcomes:
    """One call with the batch, then its commit; every message must have got an outcome."""
    ctx = ctx or DictContext()
    out = Outcomes(len(batch))
    await node.process(batch, out, ctx)
    _check(out)
    ctx.commit(batch, out)
    return out


async def resume(node: Node, parked: Message, resumed: Resumed, ctx: DictContext | None = None) -> Outcomes:
    """The parked message comes back."""
    out = Outcomes(1)
    await node.resume(0, parked, resumed, out, ctx or DictContext())
    _check(out)
    return out


def emitted(out: Outcomes) -> dict[str, list[Message]]:
    """Relation to messages."""
    return {relation: [message for _, message in sent] for relation, sent in out.emitted.items()}


def _check(out: Outcomes) -> None:
    sent = {i for pairs in out.emitted.values() for i, _ in pairs if i not in out.failed}
    ends = [sent, set(out.failed), set(out.retried), set(out.discarded), set(out.parked)]
    for i in range(out.size):
        assert sum(i in some for some in ends) == 1, f"message {i} has not exactly one outcome"
