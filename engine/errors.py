"""Every error the kernel raises on purpose: data, not formatted text. The edges render them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class RulemillError(Exception):
    """Base of all errors below."""


class Refused(RulemillError):
    """The server cannot store the message now; nothing was stored. The caller should try again later."""

    def __init__(self, reason: str, retry_after_s: int = 1) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


class Unconfirmed(Refused):
    """Redis did not answer in time: the message may or may not be stored. The caller should send it again."""


class BadInput(RulemillError):
    """What came in cannot be read: `reason` in plain words, `pointer` the JSON pointer of the place if there is one."""

    def __init__(self, reason: str, pointer: str = "") -> None:
        super().__init__(f"{pointer}: {reason}" if pointer else reason)
        self.reason = reason
        self.pointer = pointer


class Finding(NamedTuple):
    """One thing wrong with a document: where (JSON pointer) and what, in plain words."""

    pointer: str
    message: str


class InvalidDocument(RulemillError):
    """A chain, bootstrap or settings document does not hold; carries every finding, not the first."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("; ".join(f"{pointer or '/'}: {message}" for pointer, message in findings))
        self.findings = list(findings)


class NotFound(RulemillError):
    """A named thing does not exist for this tenant."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"no {what} {name!r}")
        self.what = what
        self.name = name


class Conflict(RulemillError):
    """A thing of that name or state is in the way."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Fenced(RulemillError):
    """This worker no longer owns the partition: whatever it has in hand belongs to somebody else."""

    def __init__(self, partition: int) -> None:
        super().__init__(f"partition {partition} has another owner")
        self.partition = partition


class StateUnavailable(RulemillError):
    """Redis went away while a node read state: nobody's failure. The batch is run again when Redis is back."""


class StoreUnavailable(RulemillError):
    """The telemetry store cannot take or give points now."""

    def __init__(self, reason: str, retry_after_s: float = 1.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


class Unsupported(RulemillError):
    """What was asked for can never be done here, whoever asks: `reason` says why, and what can be done instead."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unfit(RulemillError):
    """A service that is set cannot serve as it is: wrong version, rights or settings. Trying again does not help."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class PointsRefused(RulemillError):
    """The telemetry store took all points but some: `refused` pairs an index with the store's reason."""

    def __init__(self, refused: Sequence[tuple[int, str]]) -> None:
        super().__init__(f"{len(refused)} points refused: {refused[0][1]}")
        self.refused = list(refused)


class ScriptError(RulemillError):
    """A script does not compile or failed on its message; `line` counts from 1, 0 is unknown."""

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(f"line {line}: {reason}" if line else reason)
        self.reason = reason
        self.line = line
