"""Chain documents to a plan that the runner walks, or to everything that is wrong with them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from chains.findings import Findings
from chains.linker import Graph, check_calls, link
from chains.model import CALL, OUTPUT, Catalogue, pointer
from chains.unit import Files, Secrets, Unit, check_unit
from engine.errors import Finding
from engine.node import Node
from engine.plan import DEFAULT_RETRY, Plan, PlanNode

Documents = Mapping[str, tuple[int, dict[str, Any]]]
"""Chain name to its version and document."""


def no_files(chain: str, name: str) -> str | None:
    """For chains that bring all their files inside the document."""
    return None


def no_secrets(name: str) -> str | None:
    """For tenants without secrets."""
    return None


def compile_tenant(
    tenant: str,
    deployment: int,
    root: str,
    documents: Documents,
    catalogue: Catalogue,
    *,
    files: Files = no_files,
    secrets: Secrets = no_secrets,
) -> Plan:
    """Make one plan of the chain `root` and all chains it calls; raises InvalidDocument with every finding.

    `documents` may hold more chains than are called; only what the root reaches is looked at. Findings that concern
    another chain than the root say so: their pointers are into that chain's document.
    """
    findings = Findings(root)
    if root not in documents:
        findings.add(root, "", f"there is no chain {root!r}, which is to be the root", root, documents)
        findings.raise_if_any()
    units = _check_units(tenant, root, documents, catalogue, findings, files, secrets)
    for node in units[root].model.nodes.values():
        if node.kind == OUTPUT:
            message = "an output gives back to the chain that called, but nothing calls the root chain; remove it"
            findings.add(root, pointer("nodes", node.name), message)
    graph = link(root, units, findings) if check_calls(root, units, documents, findings) else None
    findings.raise_if_any()
    assert graph is not None, "chains that cannot be linked have findings"
    return _plan(tenant, deployment, graph)


def check_chain(
    document: object,
    catalogue: Catalogue,
    others: Mapping[str, dict[str, Any]] | None = None,
    *,
    tenant: str = "",
    files: Files = no_files,
    secrets: Secrets | None = None,
) -> list[Finding]:
    """Everything wrong with one chain, root or not; an empty list if it holds.

    With `others` (name to document) also whether its calls of them hold, and what is wrong with those it calls; with
    None its calls are taken on trust. Without `secrets` every secret is taken to exist.
    """
    name = document.get("chain") if isinstance(document, dict) else None
    name = name if isinstance(name, str) else ""
    findings = Findings(name)
    documents: dict[str, tuple[int, Any]] = {other: (0, text) for other, text in (others or {}).items()}
    documents[name] = (0, document)
    given = secrets or (lambda secret: secret)
    if others is None:
        units = {name: check_unit(name, 0, document, catalogue, findings, tenant=tenant, files=files, secrets=given)}
    else:
        units = _check_units(tenant, name, documents, catalogue, findings, files, given)
    if check_calls(name, units, None if others is None else documents, findings):
        link(name, units, findings)
    return findings.listed()


def _check_units(
    tenant: str,
    root: str,
    documents: Documents,
    catalogue: Catalogue,
    findings: Findings,
    files: Files,
    secrets: Secrets,
) -> dict[str, Unit]:
    """The root and every chain it reaches, in the order in which they are found."""
    units: dict[str, Unit] = {}
    todo = deque([root])
    while todo:
        name = todo.popleft()
        if name in units:
            continue
        version, document = documents[name]
        unit = check_unit(name, version, document, catalogue, findings, tenant=tenant, files=files, secrets=secrets)
        units[name] = unit
        todo.extend(node.called for node in unit.model.nodes.values() if node.kind == CALL and node.called in documents)
    return units


def _plan(tenant: str, deployment: int, graph: Graph) -> Plan:
    number = {old: new for new, old in enumerate(graph.order)}
    nodes = []
    for old in graph.order:
        linked = graph.nodes[old]
        targets = {relation: [number[wire.to] for wire in wires] for relation, wires in linked.wires.items() if wires}
        unit, model = linked.unit, linked.model
        retry = model.retry or DEFAULT_RETRY
        nodes.append(PlanNode(linked.path, unit.nodes[model.name], unit.name, unit.version, targets, retry))
    return Plan(tenant, deployment, nodes, number[graph.start], needs_rounds([place.node for place in nodes]))


def needs_rounds(nodes: Sequence[Node]) -> bool:
    """Some node reads state that another one writes. `table` stands for all fields of `table:field`."""
    tables: dict[str, set[int]] = {}
    exact: dict[str, set[int]] = {}
    for i, node in enumerate(nodes):
        for key in node.writes():
            tables.setdefault(key.partition(":")[0], set()).add(i)
            exact.setdefault(key, set()).add(i)
    for i, node in enumerate(nodes):
        for key in node.reads():
            table, _, one_field = key.partition(":")
            writers = exact.get(table, set()) | exact.get(key, set()) if one_field else tables.get(table, set())
            if writers - {i}:
                return True
    return False
