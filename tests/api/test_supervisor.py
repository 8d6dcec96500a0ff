"""The parent: keeps children running whatever they do, and gives up only on one that never came up."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from api import supervisor as module
from api.supervisor import Child, StartError, Supervisor
from engine.watch import VARIABLE
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio

PLAY = f"""
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
count = len(list(folder.glob("start-*")))
(folder / f"start-{{count}}").touch()
scene = (folder / "script").read_text().split(",")[count]
if scene == "die":
    sys.exit(3)
while scene == "hang":
    time.sleep(0.05)
os.write(int(os.environ["{VARIABLE}"]), b"R")
while True:
    time.sleep(0.05)
    if scene == "run":
        os.write(int(os.environ["{VARIABLE}"]), b".")
"""
"""A child that plays one scene per start: `die`, or `hang` before it is ready; `mute` after that, or `run` for good."""


class Stage:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.child = Child("api", lambda name: [str(folder)])
        self.supervisor = Supervisor([self.child], "", 4, None)

    async def play(self, *scenes: str) -> None:
        (self.folder / "script").write_text(",".join(scenes))
        await self.supervisor.start(None)

    def starts(self) -> int:
        return len(list(self.folder.glob("start-*")))


@pytest_asyncio.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(module, "COMMAND", (sys.executable, "-c", PLAY))
    made = Stage(tmp_path)
    yield made
    await made.supervisor.stop()


async def test_a_child_that_cannot_start_at_all_fails_the_start(stage: Stage) -> None:
    with pytest.raises(StartError):
        await stage.play("die")


async def test_a_child_that_is_never_ready_fails_the_start(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START_WITHIN_S", 0.3)
    with pytest.raises(StartError, match="ready"):
        await stage.play("hang")


async def test_a_child_that_ran_for_long_may_fail_to_come_back_at_once(stage: Stage) -> None:
    await stage.play("run", "die", "die", "run")
    stage.child.starts.clear()  # as after a minute
    assert stage.child.process is not None
    stage.child.process.kill()
    await until(lambda: stage.starts() == 4 and stage.child.ready.is_set())
    assert not stage.supervisor.failed.is_set()


@pytest.mark.parametrize("trouble", ["mute", "hang"])
async def test_a_child_without_signs_is_replaced(stage: Stage, monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    await stage.play("run", trouble, "run")
    monkeypatch.setattr(module, "SILENT_S", 0.5)
    monkeypatch.setattr(module, "START_WITHIN_S", 0.5)
    assert stage.child.process is not None
    stage.child.process.kill()
    await until(lambda: stage.starts() == 3 and stage.child.ready.is_set())


async def test_a_process_that_cannot_be_made_is_tried_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.play("run", "run")
    make, failures = asyncio.create_subprocess_exec, iter([OSError("no more processes")])

    async def unwilling(*args: str, **options: object) -> asyncio.subprocess.Process:
        for failure in failures:
            raise failure
        return await make(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", unwilling)
    assert stage.child.process is not None
    stage.child.process.kill()
    await until(lambda: stage.starts() == 2 and stage.child.ready.is_set())
