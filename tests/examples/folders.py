"""The example folders, and what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
FOLDERS = sorted(path.parent for path in EXAMPLES.glob("*/chain.json"))


def chains(folder: Path) -> dict[str, dict[str, Any]]:
    """All chain documents of a folder by name."""
    documents = [
        json.loads(path.read_text())
        for path in sorted(folder.glob("*.json"))
        if path.name not in ("cases.json", "bootstrap.json")
    ]
    return {document["chain"]: document for document in documents}


def bootstrap(folder: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((folder / "bootstrap.json").read_text())
    return made
