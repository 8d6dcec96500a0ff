"""Names of keys as configurations list them: exact, or with a `*` at the end for any rest."""

from __future__ import annotations

from collections.abc import Iterable


class KeyPatterns:
    """A set of key names and prefixes. Linear in the length of a key whatever the patterns are."""

    def __init__(self, patterns: Iterable[str]) -> None:
        listed = list(patterns)
        self._exact = frozenset(pattern for pattern in listed if not pattern.endswith("*"))
        self._prefixes = tuple(pattern[:-1] for pattern in listed if pattern.endswith("*"))

    def __contains__(self, key: str) -> bool:
        return key in self._exact or (bool(self._prefixes) and key.startswith(self._prefixes))
