"""Failpoints do what the variable says, at the pass it names, and nothing else."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine import failpoints

CODE = """
import time
from engine.failpoints import failpoint
for n in range(5):
    began = time.monotonic()
    failpoint("mid-batch")
    failpoint("before-ack")
    print(n, "slow" if time.monotonic() - began >= 0.3 else "fast", flush=True)
"""


def run(value: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE], env={"RULEMILL_FAILPOINTS": value, "PYTHONPATH": str(Path.cwd())},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_nothing_is_armed_by_default() -> None:
    assert run("").stdout.split() == ["0", "fast", "1", "fast", "2", "fast", "3", "fast", "4", "fast"]


def test_kill_at_a_pass() -> None:
    ran = run("mid-batch=kill@4")
    assert ran.returncode == -signal.SIGKILL
    assert ran.stdout.split("\n")[-2] == "2 fast"


def test_pause_at_the_first_pass_only() -> None:
    assert run("before-ack=pause:0.3,mid-batch=kill@9").stdout.split()[:4] == ["0", "slow", "1", "fast"]


@pytest.mark.parametrize("value", ["mid-bach=kill", "mid-batch", "mid-batch=explode", "mid-batch=kill@x"])
def test_what_is_not_understood_is_refused(value: str) -> None:
    ran = run(value)
    assert ran.returncode == 1
    assert "RULEMILL_FAILPOINTS" in ran.stderr


def test_every_name_is_somewhere_in_the_code() -> None:
    text = "".join(path.read_text() for folder in ("engine", "api") for path in Path(folder).rglob("*.py"))
    assert [name for name in failpoints.NAMES if f'failpoint("{name}")' not in text] == []
