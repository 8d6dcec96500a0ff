"""What the way in holds in memory, and what it does about messages and producers that are not as they should be."""

from __future__ import annotations

import pytest

from engine import ingress as module
from engine.errors import Refused
from engine.housekeeping import Housekeeping
from engine.message import now_ms
from tests.engine.bench import PARTITIONS, Bench
from tests.engine.toy import message

pytestmark = pytest.mark.asyncio


async def test_bytes_in_memory_are_bounded_as_well_as_messages(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 10_000)
    first = bench.ingress.submit([message("d", "x" * 12_000)])
    with pytest.raises(Refused, match="ingress full"):
        await bench.ingress.submit([message("d", "y")])
    await first
    await bench.ingress.submit([message("d", "y")])


async def test_of_messages_that_cannot_be_written_down_none_is_stored(bench: Bench) -> None:
    with pytest.raises(OverflowError):
        bench.ingress.submit([message("d", 1), message("d", 2**70)])
    await bench.ingress.submit([message("e", 3)])
    assert await bench.left() == 1
    assert bench.ingress._held == 0


async def test_a_producer_that_was_silent_for_a_day_goes_on_under_a_new_name_without_alarm(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.ingress.submit([message("d", 1)])
    later = now_ms() + module.PRODUCER_KEEP_MS + 1
    monkeypatch.setattr("engine.housekeeping.now_ms", lambda: later)
    assert (await Housekeeping(bench.wire, PARTITIONS, _nobody).round())["producers"] == 1
    monkeypatch.setattr("engine.ingress.now_ms", lambda: later)
    await bench.ingress.submit([message("d", 2)])
    assert await bench.left() == 2
    assert not caplog.records


async def _nobody() -> list[str]:
    return []
