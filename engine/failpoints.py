"""Named places where a test makes the process die or stand still. Off unless RULEMILL_FAILPOINTS names them.

RULEMILL_FAILPOINTS="after-submit=kill@200,before-commit=pause:12" dies at the 200th pass of the one and sleeps 12 s
at the first pass of the other (blocking the process, as a frozen host would).
"""

from __future__ import annotations

import os
import re
import signal
import time
from typing import Final

NAMES: Final = frozenset(
    {
        "before-submit", "after-submit", "before-ack", "before-answer", "mid-batch", "before-commit", "after-commit",
        "before-trim",
    }
)  # fmt: skip
_ACTION: Final = re.compile(r"(kill|pause:\d+(?:\.\d+)?)(?:@(\d+))?")


def _parse(text: str) -> dict[str, tuple[str, int]]:
    found = {}
    for part in filter(None, text.split(",")):
        name, _, action = part.partition("=")
        if name not in NAMES:
            raise ValueError(f"RULEMILL_FAILPOINTS: no failpoint {name!r}; there are {', '.join(sorted(NAMES))}")
        known = _ACTION.fullmatch(action)
        if known is None:
            raise ValueError(
                f"RULEMILL_FAILPOINTS: {name}={action}: say kill or pause:<s>, and @<pass> if not the first"
            )
        found[name] = (known[1], int(known[2] or 1))
    return found


VARIABLE: Final = "RULEMILL_FAILPOINTS"
_armed = _parse(os.environ.get(VARIABLE, ""))
_passes: dict[str, int] = {}


def failpoint(name: str) -> None:
    """Do here what RULEMILL_FAILPOINTS says for `name`; one dictionary look-up when it says nothing."""
    if not _armed or name not in _armed:
        return
    what, at = _armed[name]
    _passes[name] = _passes.get(name, 0) + 1
    if _passes[name] != at:
        return
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what.startswith("pause:"):
        time.sleep(float(what.removeprefix("pause:")))
