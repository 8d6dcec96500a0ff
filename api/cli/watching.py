"""Live views of the server on a terminal: what `tail` and `points tail` show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from api.cli.client import Server
from api.cli.output import Failed, note

_SILENT_S: Final = 20.0
"""The server gives a sign of life every 5 s."""


def watched(server: Server, where: str, query: Mapping[str, Any], mark: str, what: str) -> Iterator[dict[str, Any]]:
    """Lines of a live view that have the member `mark`, until somebody ends it; what else is said goes to stderr.

    `what` is what is watched, as it reads before the tenant's name.
    """
    for line in server.lines(where, query, _SILENT_S):
        if mark in line:
            yield line
        elif "watching" in line:
            note(f"Watching {what} {server.tenant}; Ctrl-C ends it.")
        elif "gap" in line:
            note(f"Something may be missing here: {line['gap']}")
        elif "cut" in line:
            raise Failed(f"the server ended it: {line['cut']}")
    raise Failed("the server ended the connection")
