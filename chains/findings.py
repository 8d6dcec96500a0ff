"""Collecting what is wrong with chains: every finding once, with its place, in bounded number."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

from engine.errors import Finding, InvalidDocument

MAX_FINDINGS: Final = 100
"""So many are told in full; the others are counted."""

_LONGEST_LISTING: Final = 8


class Findings:
    """Findings of one check. Those of chains other than `about` say in their message which chain they mean."""

    def __init__(self, about: str = "") -> None:
        self._about = about
        self._found: dict[tuple[str, str, str], Finding] = {}
        self._places: set[tuple[str, str]] = set()
        self._more = 0

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, chain: str, pointer: str, message: str, near: str = "", known: Iterable[str] = ()) -> None:
        """Note that `chain` is wrong at `pointer`; with `known`, the message ends in what `near` may have meant."""
        if len(self._found) >= MAX_FINDINGS:
            self._more += 1
            return
        text = message + hint(near, known) if near else message
        if chain != self._about:
            text = f"chain {chain!r}: {text}"
        self._found.setdefault((chain, pointer, text), Finding(pointer, text))
        self._places.add((chain, pointer))

    def has(self, chain: str, pointer: str) -> bool:
        """Something is already said about this place."""
        return (chain, pointer) in self._places

    def listed(self) -> list[Finding]:
        """All findings in the order they were made; the last one counts those beyond the limit."""
        found = list(self._found.values())
        if self._more:
            found.append(Finding("", f"and {self._more} more; mend these first"))
        return found

    def raise_if_any(self) -> None:
        """Raise InvalidDocument if there is any finding."""
        if self._found:
            raise InvalidDocument(self.listed())


def hint(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or what there is to choose from if that is short, or nothing."""
    choices = sorted(known)
    folded = {choice.casefold(): choice for choice in reversed(choices)}
    close = difflib.get_close_matches(name.casefold()[:64], folded, n=1)
    if close:
        return f"; did you mean {folded[close[0]]!r}?"
    if not choices:
        return ""
    listing = ", ".join(repr(choice) for choice in choices[:_LONGEST_LISTING])
    return f" (known: {listing}" + (", …)" if len(choices) > _LONGEST_LISTING else ")")
