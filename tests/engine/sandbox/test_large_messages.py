"""A message that does not fit a script's memory fails alone, however large it is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engine.errors import ScriptError
from tests.engine.sandbox.calling import run_all

PROGRAM = """
from tests.engine.sandbox.calling import run
source = "return {{msg = 1}}" if {lang!r} == "lua" else "return {{msg: 1}}"
print(type(run({lang!r}, source, {msg}, budget_s=10)).__name__)
"""


@pytest.mark.parametrize("lang", ["lua", "js"])
@pytest.mark.parametrize("msg", ["'x' * (49 << 20)", "b'x' * (17 << 20)", "list(range(4_000_000))"])
def test_a_message_beyond_the_memory_does_not_end_the_process(lang: str, msg: str) -> None:
    # In a process of its own: what goes wrong here is an abort.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(lang=lang, msg=msg)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "ScriptError\n"), done.stderr


def test_a_message_that_fits_is_run_beside_one_that_does_not() -> None:
    small, large, fits = run_all("lua", "return #msg", ["x", "x" * (20 << 20), "x" * (5 << 20)], budget_s=5)
    assert small == 1
    assert isinstance(large, ScriptError)
    assert "memory budget of 16 MiB exceeded" in str(large)
    assert fits == 5 << 20
