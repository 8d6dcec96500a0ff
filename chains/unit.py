"""One chain document, checked by itself, its nodes built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from chains.findings import Findings
from chains.model import CALL, MAX_NODES, OUTPUT, Catalogue, ChainModel, NodeModel, pointer, read_chain
from chains.schema import validate
from chains.wording import explain_conversion
from engine.errors import BadInput, Finding, ScriptError
from engine.node import CallNode, Node
from engine.outcomes import FAILURE

Files = Callable[[str, str], str | None]
"""(chain, file name) to the text of a file that stands beside the chain."""

Secrets = Callable[[str], str | None]
"""A secret's name to its value."""


@dataclass(slots=True)
class Place:
    """The `engine.node.Build` of one node: who it is, and the files and secrets it may ask for."""

    tenant: str
    chain: str
    node: str
    own_files: dict[str, str]
    files: Files
    secrets: Secrets

    def file(self, name: str) -> str:
        """Text of a file in the document or beside it; raises BadInput if there is none."""
        text = self.own_files.get(name)
        if text is None:
            text = self.files(self.chain, name)
        if text is None:
            raise BadInput(f"there is no file {name!r} with the chain {self.chain!r}")
        return text

    def secret(self, name: str) -> str:
        """Value of a secret of the tenant; raises BadInput if there is none."""
        value = self.secrets(name)
        if value is None:
            raise BadInput(f"there is no secret {name!r}; add it to the tenant's secrets first")
        return value


@dataclass(slots=True)
class Unit:
    """A chain ready to be linked. Nodes that could not be built are absent; a finding says why."""

    name: str
    version: int
    model: ChainModel
    nodes: dict[str, Node] = field(default_factory=dict)
    kinds: dict[str, type[Node]] = field(default_factory=dict)

    def parks(self, name: str) -> bool:
        """Messages may go round through this node. Of a kind that is not known, nobody can say that they may not."""
        kind = self.kinds.get(name)
        return kind is None or kind.spec.parks or issubclass(kind, CallNode)


def check_unit(
    name: str,
    version: int,
    document: object,
    catalogue: Catalogue,
    findings: Findings,
    *,
    tenant: str,
    files: Files,
    secrets: Secrets,
) -> Unit:
    """Check a document by itself and build its nodes; what is wrong goes into `findings`."""
    model = read_chain(document)
    if len(model.nodes) > MAX_NODES:
        # Said before anything else is looked at: checking a hundred thousand nodes is work for an attacker.
        message = f"has {len(model.nodes)} nodes; at most {MAX_NODES} are possible: let it call other chains"
        findings.add(name, "/nodes", message)
        return Unit(name, version, ChainModel(name, "", "", {}, {}))
    unit = Unit(name, version, model)
    wrong: set[str] = set()
    for place, message in validate(document, catalogue):
        wrong.add("/".join(place.split("/")[:4]))  # /nodes/<name>/<part>
        findings.add(name, place, message)
    if model.name and model.name != name:
        findings.add(name, "/chain", f"this is stored as chain {name!r}, but names itself {model.name!r}")
    for node in model.nodes.values():
        here, config, retry = (pointer("nodes", node.name, *part) for part in ((), ("config",), ("retry",)))
        if node.retry is None and not wrong & {here, retry}:
            findings.add(name, retry, "has a number of the wrong kind: attempts are whole, 5 and not 5.0")
        kind = None if node.kind in (CALL, OUTPUT) else catalogue.kinds.get(node.kind)
        if kind is None:
            continue
        unit.kinds[node.name] = kind
        if wrong & {here, config}:
            continue
        build = Place(tenant, name, node.name, model.files, files, secrets)
        built, found = _build(kind, node.config, build)
        for place, message in found:
            findings.add(name, config + place, message)
        if built is not None:
            unit.nodes[node.name] = built
    _check_connections(name, unit, findings)
    return unit


def _build(kind: type[Node], raw: dict[str, Any], build: Place) -> tuple[Node | None, list[Finding]]:
    """The node, or everything that keeps it from being built; pointers relative to its configuration."""
    try:
        config = msgspec.convert(raw, kind.spec.config)
        found = kind.check(config, build)
        return (None, found) if found else (kind(config, build), [])
    except msgspec.ValidationError as error:
        return None, [explain_conversion(str(error))]
    except BadInput as error:
        return None, [Finding(error.pointer, error.reason)]
    except ScriptError as error:
        place = next((f"/{key}" for key in ("source", "file") if raw.get(key)), "")
        return None, [Finding(place, f"the script does not compile: {error}")]
    except ValueError as error:
        return None, [Finding("", str(error) or "is refused by its kind, which does not say why")]
    except Exception as error:
        # A kind that breaks must not hide what else is wrong with the chain, nor pass for sound.
        what = f"{type(error).__name__}: {error}"
        return None, [Finding("", f"kind {kind.spec.kind!r} broke on this configuration ({what}): a fault of the kind")]


def _check_connections(name: str, unit: Unit, findings: Findings) -> None:
    nodes = unit.model.nodes
    for node in nodes.values():
        allowed = _relations(unit, node)
        for relation, targets in node.to.items():
            place = pointer("nodes", node.name, "to", relation)
            if allowed is not None and relation not in allowed and not findings.has(name, place):
                message = f"{node.name!r} ({node.kind}) never emits {relation!r}"
                findings.add(name, place, message, relation, allowed)
            if len({target.node for target in targets}) < len(targets):
                findings.add(name, place, "names a node twice; once is enough")
            for target in targets:
                if target.node not in nodes:
                    findings.add(name, target.pointer, f"there is no node {target.node!r}", target.node, nodes)
    start = unit.model.start
    if start in nodes:
        if nodes[start].kind == OUTPUT:
            findings.add(name, "/start", f"the start {start!r} is an output: the chain would do nothing")
        _check_reach(name, unit, findings)
    elif start and nodes:
        findings.add(name, "/start", f"there is no node {start!r} to start at", start, nodes)


def _relations(unit: Unit, node: NodeModel) -> frozenset[str] | None:
    """Labels that may be wired, None: any. Outputs have none (the schema says so); calls are looked at when linked."""
    kind = unit.kinds.get(node.name)
    if kind is None:
        return None
    built = unit.nodes.get(node.name)
    if built is None and kind.spec.open_relations:
        return None
    labels = built.relations() if built else frozenset(relation.name for relation in kind.spec.relations)
    return None if labels is None else labels | {FAILURE}


def _check_reach(name: str, unit: Unit, findings: Findings) -> None:
    nodes = unit.model.nodes
    reached = {unit.model.start}
    todo = [unit.model.start]
    while todo:
        for targets in nodes[todo.pop()].to.values():
            for target in targets:
                if target.node in nodes and target.node not in reached:
                    reached.add(target.node)
                    todo.append(target.node)
    for node in nodes:
        if node not in reached:
            message = f"no message ever gets to {node!r}: connect it, or remove it"
            findings.add(name, pointer("nodes", node), message)
