"""A progress bar on stderr for work of minutes, when a person looks on; nothing otherwise."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Final, Self

import click

STEPS: Final = 1000


class Bar:
    """Shows which part of the work is done, when the rest will be, and how many things that were."""

    def __init__(self, label: str, what: str) -> None:
        self._what, self._count, self._shown, self._done = what, 0, 0.0, 0
        self._began = time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty():
            self._bar = click.progressbar(
                length=STEPS, label=label, file=sys.stderr, item_show_func=self._says, width=30
            )

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            if kind is None:
                self._move(STEPS)
            self._bar.__exit__(kind, error, trace)

    def show(self, part: float, count: int) -> None:
        """The part that is done, 0 to 1, and how many things."""
        self._count = count
        now = time.monotonic()
        if self._bar is not None and now - self._shown > 0.1:
            self._shown = now
            self._move(int(min(1.0, part) * STEPS))

    def summary(self) -> str:
        """How many things, in what time."""
        took = time.monotonic() - self._began
        return f"{self._count:,} {self._what} in {took:.1f} s ({self._count / max(took, 0.001):,.0f}/s)"

    def _move(self, done: int) -> None:
        self._bar.update(max(0, done - self._done), current_item=self._count)
        self._done = max(done, self._done)

    def _says(self, _: Any) -> str:
        return f"{self._count:,} {self._what}, {self._count / max(time.monotonic() - self._began, 0.001):,.0f}/s"
