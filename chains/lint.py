"""What holds but is worth a second look: advice for the author of a chain, never a reason to refuse it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from chains.findings import hint
from chains.model import Catalogue, ChainModel, NodeModel, pointer, read_chain
from engine.errors import Finding
from engine.node import CallNode
from engine.outcomes import FAILURE

RPC_FROM_DEVICE: Final = "RPC Request from Device"
"""The label under which devices' own calls come in; whoever made one waits for its answer."""

REPLY: Final = "rpc_reply"

_SECRET_KEY: Final = re.compile(r"(?i)(password|passwd|secret|token|api_?key|authorization)")
_TEMPLATE: Final = re.compile(r"\$\{|\$\[")


def lint_chain(document: object, catalogue: Catalogue) -> list[Finding]:
    """Advice on a chain that `check_chain` found nothing wrong with, sorted by place."""
    model = read_chain(document)
    found = [advice for node in model.nodes.values() for advice in _node(node, model, catalogue)]
    return sorted(found)


def _node(node: NodeModel, model: ChainModel, catalogue: Catalogue) -> Iterator[Finding]:
    kind = catalogue.kinds.get(node.kind)
    if kind is None:
        return
    here = pointer("nodes", node.name)
    if issubclass(kind, CallNode) and FAILURE not in node.to:
        message = (
            f"when a call of {node.name!r} fails for good, the message becomes a dead letter: Failure is not wired"
        )
        yield Finding(here, message)
    known = {relation.name.casefold(): relation.name for relation in kind.spec.relations}
    for relation in node.to:
        meant = known.get(relation.casefold())
        if kind.spec.open_relations and meant is not None and meant != relation:
            message = f"relations are case-sensitive: {relation!r} is not {meant!r}{hint(relation, [meant])}"
            yield Finding(pointer("nodes", node.name, "to", relation), message)
    if RPC_FROM_DEVICE in node.to and not _leads_to(REPLY, node, RPC_FROM_DEVICE, model):
        place = pointer("nodes", node.name, "to", RPC_FROM_DEVICE)
        yield Finding(place, f"no {REPLY} node follows: devices that call wait until they time out")
    yield from _secrets(node.config, here + "/config")


def _leads_to(kind: str, node: NodeModel, relation: str, model: ChainModel) -> bool:
    """Some way from the relation comes to a node of the kind, or leaves for another chain, which may have one."""
    todo = [target.node for target in node.to[relation]]
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        following = model.nodes.get(name)
        if following is None or name in seen:
            continue
        seen.add(name)
        if following.kind in (kind, "chain", "output"):
            return True
        todo += [target.node for targets in following.to.values() for target in targets]
    return False


def _secrets(value: object, place: str) -> Iterator[Finding]:
    if isinstance(value, dict):
        for key, part in value.items():
            inner = place + pointer(key)
            if isinstance(part, str) and part and _SECRET_KEY.search(key) and not _TEMPLATE.search(part):
                yield Finding(inner, "looks like a secret: keep it out of the chain and write ${secret:NAME}")
            else:
                yield from _secrets(part, inner)
    elif isinstance(value, list):
        for i, part in enumerate(value):
            yield from _secrets(part, place + pointer(i))
