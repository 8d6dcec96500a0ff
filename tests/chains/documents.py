"""Small chain documents, and what becomes of them."""

from __future__ import annotations

from typing import Any

import pytest

from chains.compiler import compile_tenant
from engine.errors import InvalidDocument
from engine.node import CallNode
from engine.plan import Plan
from tests.chains.kinds import CATALOGUE


def chain(name: str, start: str, **nodes: Any) -> dict[str, Any]:
    """A chain of step nodes: a node is given as its `to`, or, with `kind` in it, whole."""
    return {
        "chain": name,
        "start": start,
        "nodes": {key: value if "kind" in value else {"kind": "step", "to": value} for key, value in nodes.items()},
    }


def compiled(*documents: dict[str, Any], root: str = "root", **options: Any) -> Plan:
    versions = {document["chain"]: (i + 1, document) for i, document in enumerate(documents)}
    return compile_tenant("acme", 7, root, versions, CATALOGUE, **options)


def findings(*documents: dict[str, Any], root: str = "root", **options: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidDocument) as caught:
        compiled(*documents, root=root, **options)
    return [tuple(finding) for finding in caught.value.findings]


def root(**nodes: Any) -> dict[str, Any]:
    return chain("root", "a", **nodes)


def edges(plan: Plan) -> dict[str, dict[str, list[str]]]:
    return {
        node.name: {relation: [plan.nodes[i].name for i in to] for relation, to in node.targets.items()}
        for node in plan.nodes
    }


def in_order(plan: Plan) -> bool:
    return all(
        target > i or node.node.spec.parks or isinstance(node.node, CallNode)
        for i, node in enumerate(plan.nodes)
        for targets in node.targets.values()
        for target in targets
    )


def call(name: str, **to: Any) -> dict[str, Any]:
    return {"kind": "chain", "config": {"chain": name}, "to": to}


def output(label: str = "") -> dict[str, Any]:
    return {"kind": "output", "config": {"name": label}} if label else {"kind": "output"}
