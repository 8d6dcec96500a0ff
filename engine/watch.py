"""The worker's side of the watchdog: signs of progress for the parent, which kills what gives none.

Instruction hooks alone do not stop every script, so the last word is the parent's. One byte on a pipe at most every
50 ms; the parent reads the time of the last one.
"""

from __future__ import annotations

import os
import time
from typing import Final

VARIABLE: Final = "RULEMILL_WATCH_FD"
EVERY_S: Final = 0.05


class Progress:
    """Callable sign of life; does nothing when no parent watches."""

    def __init__(self) -> None:
        text = os.environ.get(VARIABLE, "")
        self._fd = int(text) if text.isdigit() else -1
        self._last = 0.0

    def __call__(self) -> None:
        """Say that work goes on."""
        if self._fd < 0:
            return
        now = time.monotonic()
        if now - self._last >= EVERY_S:
            self._last = now
            self._write(b".")

    def ready(self) -> None:
        """Say that start-up is over."""
        if self._fd >= 0:
            self._write(b"R")

    def _write(self, sign: bytes) -> None:
        try:
            os.write(self._fd, sign)
        except BlockingIOError:
            pass  # the parent has signs enough to read
        except OSError:
            self._fd = -1
