"""The scripts that Redis runs for us; each file says at its top what keys and arguments it takes."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final, NamedTuple


class Script(NamedTuple):
    """A script's text and the SHA-1 that EVALSHA wants."""

    text: str
    sha: str


def _read(name: str) -> Script:
    text = (files(__package__) / f"{name}.lua").read_text()
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


SUBMIT: Final = _read("submit")
COMMIT: Final = _read("commit")
TAKE: Final = _read("take")
POSTPONE: Final = _read("postpone")
LEASE: Final = _read("lease")
REDRIVE: Final = _read("redrive")
TRIM: Final = _read("trim")
READ: Final = _read("read")
OLDEST: Final = _read("oldest")
REGISTER: Final = _read("register")
KEEP_CALL: Final = _read("keep_call")
ACTIVE: Final = _read("active")
SILENT: Final = _read("silent")
PRESENT: Final = _read("present")

ALL: Final = (
    SUBMIT, COMMIT, TAKE, POSTPONE, LEASE, REDRIVE, TRIM, READ, OLDEST, KEEP_CALL, ACTIVE, SILENT, PRESENT,
)  # fmt: skip
"""What every hot connection loads at its start; the registry's script goes with its own client."""
