"""Which requirements have a test: `make spec` compares the tests' `spec` markers with the folder SPEC_DIR names."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from pathlib import Path

import pytest

ID = re.compile(r"([A-Z]+)-([A-Z]?)(\d+)([a-z]?)")
"""Prefix, series (`S` what the source is silent about, `X` extension), number, letter."""

_RANGE = rf"({ID.pattern})(?:(?:\.\.|–)(?:[A-Z]+-)?([A-Z]?)(\d+))?"
_DEFINED = (
    re.compile(rf"^\s*(?:[-*] )?\*\*{_RANGE}"),  # - **TB-12** …, **TB-X1 …**, - **TB-12..14** …
    re.compile(rf"^{_RANGE} "),  # G-2 …
    re.compile(rf"^#+ .*\({_RANGE}\)"),  # ### 1.1 Listeners (G-1)
    re.compile(rf"^\*\*[^*]*\({_RANGE}\)"),  # **The MQTT endpoint (G-9b).** …
    re.compile(rf"[.)] {_RANGE}: "),  # … (IT only). G-5: an unknown …
)


def defined(lines: Iterable[str]) -> Iterator[str]:
    """Ids of the requirements that a specification's lines define; mere mentions are none."""
    for line in lines:
        for pattern in _DEFINED:
            for match in pattern.finditer(line):
                whole, prefix, series, first, letter, last_series, last = match.groups()
                yield whole
                if last is not None and last_series in ("", series):
                    yield from (f"{prefix}-{series}{n}{letter}" for n in range(int(first) + 1, int(last) + 1))


def requirements(folder: Path) -> set[str]:
    """Ids that the Markdown files of a folder define."""
    files = sorted(folder.glob("*.md"))
    if not files:
        raise SystemExit(f"SPEC_DIR={folder} holds no *.md")
    return {id for file in files for id in defined(file.read_text(encoding="utf-8").splitlines())}


def short(ids: Collection[str]) -> str:
    """Ids in order, neighbours as ranges: `TB-4..6, TB-9, TB-S1`."""
    parts = []
    runs = groupby(enumerate(sorted(ids, key=_order)), lambda pair: _run(*pair))
    for _, run in runs:
        names = [name for _, name in run]
        if len(names) > 2:
            parts.append(f"{names[0]}..{names[-1].partition('-')[2]}")
        else:
            parts += names
    return ", ".join(parts)


def report(covered: Collection[str], wanted: Collection[str] | None) -> Iterator[str]:
    """Lines of the report; `wanted` None: there is no specification to compare with."""
    covered, prefixes = set(covered), sorted({id.partition("-")[0] for id in {*covered, *(wanted or ())}})
    for prefix in prefixes:
        mine = {id for id in covered if id.startswith(f"{prefix}-")}
        if wanted is None:
            yield f"{prefix}: {len(mine)} covered"
        else:
            all = {id for id in wanted if id.startswith(f"{prefix}-")}
            yield f"{prefix}: {len(mine & all)} of {len(all)} covered"
            if missing := all - mine:
                yield f"  missing  {short(missing)}"
            if unknown := mine - all:
                yield f"  unknown  {short(unknown)}"
            mine &= all
        if mine:
            yield f"  covered  {short(mine)}"


def _order(id: str) -> tuple[str, str, int, str]:
    match = ID.fullmatch(id)
    return (match[1], match[2], int(match[3]), match[4]) if match else (id, "", 0, "")


def _run(index: int, id: str) -> tuple[str, str, int, str]:
    prefix, series, number, letter = _order(id)
    return prefix, series, 0 if letter else number - index, letter


class Markers:
    """A pytest plugin that keeps the ids of the collected tests, and what could not be collected."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.errors: list[str] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.errors.append(f"{report.nodeid}\n{report.longreprtext}")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            for marker in item.iter_markers("spec"):
                self.ids.update(marker.args)


def main() -> int:
    """Print the report; 1 if tests name unknown requirements, or cannot be collected."""
    folder = os.environ.get("SPEC_DIR")
    wanted = requirements(Path(folder)) if folder else None
    markers = Markers()
    plain = ["-o", "addopts=", "--strict-markers", "-p", "no:terminal", "-p", "no:valkey", "-p", "no:schemathesis"]
    pytest.main([*plain, "--collect-only"], plugins=[markers])
    for line in report(markers.ids, wanted):
        print(line)
    for error in markers.errors:
        print(error, file=sys.stderr)
    return 1 if markers.errors or (wanted is not None and markers.ids - wanted) else 0


if __name__ == "__main__":
    sys.exit(main())
