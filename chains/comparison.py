"""Expected against found, as findings with places."""

from __future__ import annotations

from typing import Any

import msgspec

from chains.model import pointer
from engine.errors import Finding


def compare(expected: Any, found: Any, place: str) -> list[Finding]:
    """Where `found` is not as expected: of objects the given keys, of lists all entries, of a reason a part."""
    if isinstance(expected, dict) and isinstance(found, dict):
        differences = []
        for key, value in expected.items():
            inner = place + pointer(key)
            if key not in found:
                differences.append(Finding(inner, f"expected {_say(value)}, but there is none"))
            elif key == "reason" and place.startswith("/expect/dead/") and str(value) in str(found[key]):
                continue
            else:
                differences += compare(value, found[key], inner)
        return differences
    if isinstance(expected, list | tuple) and isinstance(found, list | tuple):
        if len(expected) != len(found):
            return [Finding(place, f"expected {len(expected)} entries, but there are {len(found)}: {_say(found)}")]
        pairs = enumerate(zip(expected, found, strict=True))
        return [finding for i, (one, other) in pairs for finding in compare(one, other, place + pointer(i))]
    if isinstance(expected, bool) != isinstance(found, bool) or expected != found:
        return [Finding(place, f"expected {_say(expected)}, but it is {_say(found)}")]
    return []


def _say(value: Any) -> str:
    text = msgspec.json.encode(value, enc_hook=str).decode()
    return text if len(text) <= 300 else text[:299] + "…"
