"""A demo server as a user has it, and the command as a user runs it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.api.test_up import COMMAND, environment


class Ran(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The JSON document on stdout, after the command was found to have succeeded."""
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def rows(self) -> list[list[str]]:
        """Words of each line on stdout behind the titles."""
        assert self.code == 0, self.err
        return [line.split() for line in self.out.splitlines()[1:]]


def rulemill(folder: Path, *arguments: str, text: str = "", cwd: Path | None = None, **variables: str) -> Ran:
    """Run the command on a data folder; it must not end in a traceback."""
    made = subprocess.run(
        [*COMMAND, *arguments], env=environment(folder, **{"TZ": "UTC", **variables}), input=text, text=True,
        capture_output=True, timeout=60, cwd=cwd or folder.parent, check=False,
    )  # fmt: skip
    assert "Traceback" not in made.stderr, made.stderr
    return Ran(made.returncode, made.stdout, made.stderr)


class Demo(NamedTuple):
    """A running `rulemill up --demo`."""

    folder: Path
    facts: dict[str, Any]

    def __call__(self, *arguments: str, text: str = "", cwd: Path | None = None, **variables: str) -> Ran:
        return rulemill(self.folder, *arguments, text=text, cwd=cwd, **variables)

    def new_device(self, name: str, *more: str) -> str:
        """Make a device; its secret."""
        return str(self("device", "add", name, "--json", *more).json["secrets"][0]["value"])

    def send(self, token: str, data: Any, kind: str = "telemetry") -> Any:
        """Send as a device over HTTP; the answer's JSON."""
        answer = httpx.post(f"{self.facts['http']}/api/v1/{token}/{kind}", json=data)
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.content else None

    def until(self, holds: Callable[[Ran], bool], *arguments: str) -> Ran:
        """Run a command again and again until what it says holds."""
        deadline = time.monotonic() + 20
        while not holds(ran := self(*arguments)):
            assert time.monotonic() < deadline, ran
        return ran
