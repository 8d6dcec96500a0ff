"""Chain files and what lies beside them: scripts they name, chains they call."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from chains.model import CALL, NAME_PATTERN
from engine.errors import BadInput, Finding, InvalidDocument

CHAIN: Final = "chain.json"
CASES: Final = "cases.json"

_FILE_NAME: Final = re.compile(NAME_PATTERN)


def read_chain_file(path: Path) -> Any:
    """The document of a chain file; scripts that its nodes name and that lie beside it are put under `files`.

    What this gives can be sent to a server. Raises InvalidDocument for what is no JSON, has a key twice in one object,
    or names a script that is no text. That it is a chain is for the compiler to say.
    """
    document = _read_json(path)
    scripts: dict[str, str] = {}
    for name in _named_files(document):
        script = path.parent / name
        if name in (document.get("files") or {}) or not script.is_file():
            continue  # a name that leads nowhere is the compiler's finding
        try:
            scripts[name] = script.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InvalidDocument([Finding("", f"{name} beside the chain is not UTF-8 text: {error.reason}")]) from None
    return {**document, "files": {**(document.get("files") or {}), **scripts}} if scripts else document


def chain_files(paths: Iterable[Path], *, called: bool = True) -> list[Path]:
    """The chain files that paths stand for: a file for itself, a folder for `chain.json` and the chains beside it.

    With `called` false the chains beside are left out. A folder without a `chain.json` stands for the folders below it
    that have one. Raises BadInput for a folder with none.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_file():
            found[path] = None
            continue
        roots = [path / CHAIN] if (path / CHAIN).is_file() else sorted(path.rglob(CHAIN))
        if not roots:
            raise BadInput(f"there is no {CHAIN} in {path}, nor in a folder below it")
        for root in roots:
            found[root] = None
            if called:
                found.update(dict.fromkeys(other for other in _json_files(root) if _may_be_chain(other)))
    return list(found)


def beside(path: Path) -> dict[str, dict[str, Any]]:
    """The other chains in the folder of a chain file by name; raises InvalidDocument when two have one name.

    A file that cannot be read is no chain that could be called.
    """
    found: dict[str, dict[str, Any]] = {}
    places: dict[str, str] = {}
    for other in _json_files(path):
        try:
            document = read_chain_file(other)
        except InvalidDocument:
            continue
        name = name_of(document)
        if not name:
            continue
        if name in found:
            raise InvalidDocument([Finding("", f"{places[name]} and {other.name} both hold a chain {name!r}")])
        found[name], places[name] = document, other.name
    return found


def missing_calls(document: Any, others: Mapping[str, Any]) -> list[str]:
    """Chains that a document calls, directly or through `others`, and that are not among them."""
    own = name_of(document)
    missing: set[str] = set()
    seen: set[str] = set()
    todo = [document]
    while todo:
        for node in _nodes(todo.pop()):
            config = node.get("config")
            name = config.get("chain") if node.get("kind") == CALL and isinstance(config, dict) else None
            if not isinstance(name, str) or name in seen or name == own:
                continue
            seen.add(name)
            if name in others:
                todo.append(others[name])
            else:
                missing.add(name)
    return sorted(missing)


def name_of(document: Any) -> str:
    """The name of a chain document; empty for anything else."""
    if not isinstance(document, dict) or "nodes" not in document:
        return ""
    name = document.get("chain")
    return name if isinstance(name, str) else ""


def _json_files(path: Path) -> list[Path]:
    """All others in the folder of a file."""
    return sorted(other for other in path.parent.glob("*.json") if other.name not in (path.name, CASES))


def _may_be_chain(path: Path) -> bool:
    try:
        return bool(name_of(_read_json(path)))
    except InvalidDocument:
        return True  # to be said, not to be passed over


def _nodes(document: Any) -> list[dict[str, Any]]:
    nodes = document.get("nodes") if isinstance(document, dict) else None
    return [node for node in nodes.values() if isinstance(node, dict)] if isinstance(nodes, dict) else []


def _named_files(document: Any) -> list[str]:
    """Names of files in configurations; none that would lead out of the folder."""
    if isinstance(document, dict) and not isinstance(document.get("files", {}), dict):
        return []
    configs = [node.get("config") for node in _nodes(document)]
    names = [config.get("file") for config in configs if isinstance(config, dict)]
    return sorted({name for name in names if isinstance(name, str) and _FILE_NAME.search(name)})


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} in line {error.lineno}, column {error.colno}"
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start}"
    except RecursionError:
        reason = "it is nested too deep"
    except OSError as error:
        raise InvalidDocument([Finding("", f"cannot be read: {error.strerror}")]) from error
    except ValueError as error:
        reason = str(error)
    raise InvalidDocument([Finding("", f"is no JSON: {reason}")])


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a key that comes twice would silently replace a node."""
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"the key {key!r} comes twice in one object")
        made[key] = value
    return made


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")
