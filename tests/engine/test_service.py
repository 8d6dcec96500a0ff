"""The life of what runs in the background."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from engine.service import Loop, end

pytestmark = pytest.mark.asyncio


async def test_a_task_that_loses_a_cancellation_is_ended_all_the_same() -> None:
    lost = asyncio.Event()

    async def work() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        lost.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await end(task, again_s=0.01)
    assert lost.is_set()
    assert task.cancelled()
    await end(task)


async def test_an_ending_that_is_cancelled_itself_comes_to_its_end_first() -> None:
    lost = asyncio.Event()

    async def work() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        lost.set()
        await asyncio.sleep(60)

    inner = asyncio.create_task(work())

    async def holder() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await end(inner, again_s=0.05)

    outer = asyncio.create_task(holder())
    await asyncio.sleep(0)
    await end(outer, again_s=0.01)
    assert lost.is_set()
    assert (inner.cancelled(), outer.cancelled()) == (True, True)


async def test_what_a_task_ended_with_is_not_raised() -> None:
    async def work() -> None:
        raise RuntimeError("over")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await end(task)
    assert isinstance(task.exception(), RuntimeError)


async def test_a_loop_steps_until_it_is_stopped() -> None:
    steps: list[int] = []

    async def step() -> None:
        steps.append(1)
        raise RuntimeError("one step fails")

    loop = Loop("steps", 0.001, step)
    await loop.start()
    while len(steps) < 3:
        await asyncio.sleep(0.001)
    await loop.stop()
    count = len(steps)
    await asyncio.sleep(0.01)
    assert len(steps) == count
    await loop.stop()
