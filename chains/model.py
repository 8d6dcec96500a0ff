"""The chain document as the compiler sees it: names, nodes, connections, and the places they stand at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from engine.errors import BadInput
from engine.node import Node
from engine.plan import RetryPolicy

CALL: Final = "chain"
"""The kind of a node that stands for another chain."""

OUTPUT: Final = "output"
"""The kind of a node that gives a message back to the calling chain."""

NAME_PATTERN: Final = r"^[A-Za-z0-9_.-](?:[A-Za-z0-9 _.-]{0,62}[A-Za-z0-9_.-])?$(?!\n)"
"""Names of chains and tenants. They become parts of keys and paths, hence no `:`, `/`, braces or control characters.

The tail stands for the one place where Python's `$` is laxer than that of JSON Schema's regular expressions.
"""

NODE_NAME_PATTERN: Final = r"^(?! )[^/{}\u0000-\u001f\u007f]{1,64}(?<! )$(?!\n)"
"""Names of nodes: any text, but no `/` (paths), braces or control characters, and no blanks around it."""

MAX_NODES: Final = 1000
"""Nodes in one chain."""

MAX_TARGETS: Final = 64
"""Connections of one relation of one node."""

_NAME = re.compile(NAME_PATTERN)


class Catalogue(Protocol):
    """What chains need to know of the node kinds there are."""

    @property
    def kinds(self) -> Mapping[str, type[Node]]:
        """The classes of all kinds by name."""
        ...


class Target(NamedTuple):
    """One end of a connection: the node it leads to, and where the document says so (JSON pointer)."""

    node: str
    pointer: str


class NodeModel(msgspec.Struct, frozen=True):
    """A node of the document. What the document has in a wrong shape is empty here; the schema reports it."""

    name: str
    kind: str
    config: dict[str, Any]
    to: dict[str, list[Target]]
    retry: RetryPolicy | None
    """None if the document's cannot be read."""

    @property
    def called(self) -> str:
        """The chain that a node of kind `chain` calls; empty for other kinds."""
        name = self.config.get("chain") if self.kind == CALL else None
        return name if isinstance(name, str) else ""

    @property
    def label(self) -> str:
        """The label that an output has for the calling chain."""
        name = self.config.get("name")
        return name if isinstance(name, str) and name else self.name


class ChainModel(msgspec.Struct, frozen=True):
    """A chain document, read as far as it can be read."""

    name: str
    title: str
    start: str
    nodes: dict[str, NodeModel]
    files: dict[str, str]

    def outputs(self) -> frozenset[str]:
        """The labels under which this chain gives messages back to its caller."""
        return frozenset(node.label for node in self.nodes.values() if node.kind == OUTPUT)


def pointer(*parts: str | int) -> str:
    """The JSON pointer of a place, its parts escaped (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def check_name(what: str, name: str) -> str:
    """Return `name` if it may name a chain or tenant; raises BadInput that says what a name looks like."""
    if not isinstance(name, str) or not _NAME.search(name):
        raise BadInput(
            f"{name!r} cannot name a {what}: use 1 to 64 letters, digits, blanks, '_', '.', '-', no blank at the ends"
        )
    return name


def read_chain(document: object) -> ChainModel:
    """Read a document without judging it: whatever has the wrong shape is left out (the schema reports that)."""
    top = _mapping(document)
    nodes = {name: _read_node(name, value) for name, value in _mapping(top.get("nodes")).items()}
    files = {name: text for name, text in _mapping(top.get("files")).items() if isinstance(text, str)}
    return ChainModel(_text(top.get("chain")), _text(top.get("title")), _text(top.get("start")), nodes, files)


def _read_node(name: str, value: object) -> NodeModel:
    node = _mapping(value)
    to = {
        relation: _read_targets(("nodes", name, "to", relation), targets)
        for relation, targets in _mapping(node.get("to")).items()
    }
    retry: RetryPolicy | None
    try:
        retry = msgspec.convert(_mapping(node.get("retry")), RetryPolicy)
    except msgspec.ValidationError:
        retry = None
    return NodeModel(name, _text(node.get("kind")), dict(_mapping(node.get("config"))), to, retry)


def _read_targets(place: tuple[str, ...], targets: object) -> list[Target]:
    if isinstance(targets, str):
        return [Target(targets, pointer(*place))]
    if not isinstance(targets, list):
        return []
    return [Target(target, pointer(*place, i)) for i, target in enumerate(targets) if isinstance(target, str)]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) and all(isinstance(key, str) for key in value) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
