"""Chains that call chains become one graph: calls are replaced by what they call, outputs by what the caller wired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from chains.findings import Findings
from chains.graph import Hop, walk
from chains.model import OUTPUT, NodeModel, Target, pointer
from chains.unit import Unit

MAX_LINKED_NODES: Final = 5000
"""Nodes of a root chain and all it calls, each call counted with all it brings."""

MAX_DEPTH: Final = 16
"""Chains within chains."""

MAX_WIRES: Final = 100_000
"""Connections between linked nodes."""

_LONGEST_PATH: Final = 10


class Step(NamedTuple):
    """A connection as a document has it: how deep that chain is nested, which chain, from which node, and where."""

    depth: int
    chain: str
    node: str
    pointer: str


class Wire(NamedTuple):
    """A connection between linked nodes, and the connections in documents that it is made of."""

    to: int
    steps: tuple[Step, ...]


@dataclass(slots=True)
class Linked:
    """A node of the linked graph with its connections by relation."""

    path: str
    unit: Unit
    model: NodeModel
    wires: dict[str, list[Wire]] = field(default_factory=dict)


@dataclass(slots=True)
class Graph:
    """All linked nodes, in an order in which connections lead forward unless they come from a node that parks."""

    nodes: list[Linked]
    start: int
    order: list[int]


@dataclass(slots=True)
class _Scope:
    """One chain in one place: the root, or what one call node stands for."""

    path: str
    depth: int
    unit: Unit
    caller: _Scope | None = None
    call: NodeModel | None = None
    index: dict[str, int] = field(default_factory=dict)
    inner: dict[str, _Scope] = field(default_factory=dict)
    outlets: dict[str, list[Wire]] = field(default_factory=dict)


def check_calls(about: str, units: Mapping[str, Unit], known: Mapping[str, object] | None, findings: Findings) -> bool:
    """Check who calls whom, beginning at the chain `about`; True when all of it can be linked.

    `known` are all chains there are; None: calls of others than `units` are taken on trust.
    """
    names = list(units)
    number = {name: i for i, name in enumerate(names)}
    calls = [[node for node in units[name].model.nodes.values() if node.called in units] for name in names]
    for name, unit in units.items():
        for node in unit.model.nodes.values():
            if node.called and node.called not in units and known is not None:
                place = pointer("nodes", node.name, "config", "chain")
                findings.add(name, place, f"there is no chain {node.called!r}", node.called, known)
            elif node.called in units:
                _check_labels(name, node, units[node.called].model.outputs(), findings)
    order, loops = walk([[number[node.called] for node in row] for row in calls], [number[about]])
    for loop in loops:
        vertex, edge = loop[-1]
        around = " → ".join([*(names[hop.vertex] for hop in loop), names[loop[0].vertex]])
        place = pointer("nodes", calls[vertex][edge].name, "config", "chain")
        findings.add(names[vertex], place, f"chains may not call each other in a circle: {around}")
    return not loops and _check_size(about, [names[i] for i in reversed(order)], units, findings)


def link(root: str, units: Mapping[str, Unit], findings: Findings) -> Graph:
    """Link the chain `root` with all it calls. Loops that no parking node breaks go into `findings`.

    Tolerates what was found wrong before: connections that lead nowhere are left out.
    """
    nodes: list[Linked] = []
    top = _expand(_Scope(root, 0, units[root]), units, nodes)
    scopes = [top]
    wires = 0
    while scopes:
        scope = scopes.pop()
        scopes.extend(scope.inner.values())
        for name, i in scope.index.items():
            linked = nodes[i]
            for relation, targets in linked.model.to.items():
                linked.wires[relation] = _wires(scope, name, targets)
                wires += len(linked.wires[relation])
        if wires > MAX_WIRES:
            findings.add(root, "", f"with all chains it calls this has more than {MAX_WIRES} connections")
            break
    entry = _enter(top, top.unit.model.start, ())
    start = entry[0].to if entry else 0
    whole = [[wire for row in node.wires.values() for wire in row] for node in nodes]
    cut = [[] if node.unit.parks(node.model.name) else row for node, row in zip(nodes, whole, strict=True)]
    roots = [start] if nodes else []
    _, loops = walk([[wire.to for wire in row] for row in cut], roots)
    for loop in loops:
        _report(loop, cut, findings)
    # Beginning at the ends keeps what follows a parking node behind it wherever no loop stands against that.
    # What is connected first comes first: of a depth-first walk's branches the last one taken does, so it is reversed.
    forward, _ = walk([[wire.to for wire in reversed(row)] for row in whole], roots)
    order, _ = walk([[wire.to for wire in row] for row in cut], reversed(forward))
    return Graph(nodes, start, order)


def _check_labels(name: str, node: NodeModel, outputs: frozenset[str], findings: Findings) -> None:
    for relation in node.to:
        if relation not in outputs:
            message = f"chain {node.called!r} has no output {relation!r}" + ("" if outputs else ", nor any other")
            findings.add(name, pointer("nodes", node.name, "to", relation), message, relation, outputs)


def _check_size(about: str, callees_first: list[str], units: Mapping[str, Unit], findings: Findings) -> bool:
    size: dict[str, int] = {}
    depth: dict[str, int] = {}
    for name in callees_first:
        called = [node.called for node in units[name].model.nodes.values() if node.called in units]
        size[name] = len(units[name].model.nodes) + sum(size[callee] for callee in called)
        depth[name] = 1 + max((depth[callee] for callee in called), default=0)
    if depth[about] > MAX_DEPTH:
        findings.add(about, "", f"calls are nested {depth[about]} chains deep; at most {MAX_DEPTH} are possible")
    if size[about] > MAX_LINKED_NODES:
        message = f"with all chains it calls this has {size[about]} nodes; at most {MAX_LINKED_NODES} are possible"
        findings.add(about, "", message)
    return depth[about] <= MAX_DEPTH and size[about] <= MAX_LINKED_NODES


def _expand(scope: _Scope, units: Mapping[str, Unit], nodes: list[Linked]) -> _Scope:
    for name, node in scope.unit.model.nodes.items():
        path = f"{scope.path}/{name}"
        if node.called in units:
            inner = _Scope(path, scope.depth + 1, units[node.called], scope, node)
            scope.inner[name] = _expand(inner, units, nodes)
        elif node.kind != OUTPUT:
            scope.index[name] = len(nodes)
            nodes.append(Linked(path, scope.unit, node))
    return scope


def _wires(scope: _Scope, name: str, targets: list[Target]) -> list[Wire]:
    """Where connections of a node lead, each linked node once (several outputs may come out at the same place)."""
    found: dict[int, Wire] = {}
    for target in targets:
        step = Step(scope.depth, scope.unit.name, name, target.pointer)
        for wire in _enter(scope, target.node, (step,)):
            found.setdefault(wire.to, wire)
    return list(found.values())


def _enter(scope: _Scope, name: str, steps: tuple[Step, ...]) -> list[Wire]:
    """The linked nodes that a node's name in a chain stands for."""
    while name in scope.inner:
        scope = scope.inner[name]
        name = scope.unit.model.start
        if name in scope.unit.model.nodes and scope.unit.model.nodes[name].kind == OUTPUT:
            return []  # a chain that starts at its output was found wrong before
    node = scope.unit.model.nodes.get(name)
    if node is None:
        return []
    if node.kind != OUTPUT:
        return [Wire(scope.index[name], steps)]
    return [Wire(wire.to, steps + wire.steps) for wire in _outlet(scope, node.label)]


def _outlet(scope: _Scope, label: str) -> list[Wire]:
    """What the caller wired under a label of this chain; nothing for a root."""
    if scope.caller is None or scope.call is None:
        return []
    found = scope.outlets.get(label)
    if found is None:
        found = scope.outlets[label] = _wires(scope.caller, scope.call.name, scope.call.to.get(label, []))
    return found


def _report(loop: list[Hop], cut: list[list[Wire]], findings: Findings) -> None:
    """Say it where the author of the loop can cut it: at the connection of the outermost chain that takes part."""
    steps = [step for hop in loop for step in cut[hop.vertex][hop.edge].steps]
    outermost = min(step.depth for step in steps)
    at = [step for step in steps if step.depth == outermost][-1]
    if findings.has(at.chain, at.pointer):
        return
    names = list(dict.fromkeys(step.node for step in steps if step.depth == outermost))
    around = [*names[:_LONGEST_PATH], *(["…"] if len(names) > _LONGEST_PATH else []), names[0]]
    findings.add(
        at.chain,
        at.pointer,
        f"messages would go round for ever: {' → '.join(around)}; cut this, or put a node that holds messages between",
    )
