"""Work that nobody waits for ends all the same, and is heard of when it fails."""

from __future__ import annotations

import asyncio

import pytest

from api.background import Background

pytestmark = pytest.mark.asyncio


async def test_what_runs_is_waited_for_in_the_end(caplog: pytest.LogCaptureFixture) -> None:
    background, done = Background("ends"), []

    async def work(n: int) -> None:
        await asyncio.sleep(0)
        if n == 1:
            raise ValueError("no")
        if n == 2:
            background.run(work(3))
        done.append(n)

    for n in range(3):
        background.run(work(n))
    assert done == []
    await background.stop()
    await background.stop()
    assert done == [0, 2, 3]
    [record] = caplog.records
    assert record.getMessage().startswith("ends: ")
    assert record.exc_info is not None
