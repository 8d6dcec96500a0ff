"""Server times, common metadata, counting, and waiting for the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import intake as intake_module
from api.intake import AHEAD_MS, Intake, Stamps
from engine import metrics
from engine.errors import Refused
from engine.stores.registry import Device
from tests.api.stack import NullIngress, Stack

DEVICE = Device(id="d", tenant="acme", name="n")


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5)), max_size=500))
def test_times_of_a_device_increase_and_stay_near_the_clock(steps: list[tuple[str, int]]) -> None:
    stamps, clock, last = Stamps(), 1_000_000_000_000, {"a": 0, "b": 0}
    for device, later_ms in steps:
        clock += later_ms
        stamp = stamps.next(device, clock)
        assert stamp > last[device]
        assert clock <= stamp <= clock + AHEAD_MS
        last[device] = stamp


def test_a_flood_shares_times_and_is_counted() -> None:
    stamps, now = Stamps(), 1_000_000_000_000
    before = intake_module.OVERWRITTEN._value.get()
    times = [stamps.next("a", now) for _ in range(AHEAD_MS + 11)]
    assert times == [min(now + i, now + AHEAD_MS) for i in range(AHEAD_MS + 11)]
    assert intake_module.OVERWRITTEN._value.get() - before == 10
    assert stamps.next("b", now) == now


@given(st.lists(st.integers(-10_000_000, 10_000_000), max_size=100))
def test_a_clock_that_jumps_is_followed(jumps: list[int]) -> None:
    stamps, clock = Stamps(), 1_000_000_000_000
    for jump in jumps:
        clock += jump
        assert clock <= stamps.next("a", clock) <= clock + AHEAD_MS


def test_what_is_remembered_is_bounded_in_time() -> None:
    stamps, now = Stamps(), 1_000_000_000_000
    for i in range(50_000):
        stamps.next(f"d{i}", now + i)
    assert len(stamps._now) + len(stamps._before) < 4 * AHEAD_MS


@pytest.mark.spec("G-18")
def test_every_message_has_the_common_metadata() -> None:
    intake = Intake(NullIngress(), None)  # type: ignore[arg-type]
    made = intake.message(DEVICE, "T", {"a": 1}, dialect="tb", transport="http", ts_ms=5, metadata={"ts": "4"})
    assert (made.tenant, made.originator, made.type, made.data, made.ts_ms) == ("acme", "d", "T", {"a": 1}, 5)
    assert made.metadata == {
        "dialect": "tb", "transport": "http", "deviceName": "n", "deviceType": "default", "ts": "4"
    }  # fmt: skip


def counted() -> float:
    return metrics.MESSAGES.labels("x", "y")._value.get()


@pytest.mark.asyncio
async def test_only_what_was_stored_is_counted() -> None:
    ingress = NullIngress()
    intake = Intake(ingress, None)  # type: ignore[arg-type]
    messages = [intake.message(DEVICE, "T", i, dialect="x", transport="y", ts_ms=i) for i in range(3)]
    before = counted()
    await intake.submit(messages)
    await asyncio.sleep(0)
    assert counted() - before == 3
    ingress.error = Refused("full")
    with pytest.raises(Refused):
        await intake.store(messages)
    await asyncio.sleep(0)
    assert counted() - before == 3


@pytest.mark.asyncio
async def test_very_many_messages_go_in_slices_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "SLICE", 10)
    ingress = NullIngress()
    sizes: list[int] = []
    submit = ingress.submit

    def noted(messages: Any) -> Any:
        sizes.append(len(messages))
        return submit(messages)

    monkeypatch.setattr(ingress, "submit", noted)
    intake = Intake(ingress, None)  # type: ignore[arg-type]
    await intake.store([intake.message(DEVICE, "T", i, dialect="x", transport="y", ts_ms=i) for i in range(25)])
    assert sizes == [10, 10, 5]
    assert [message.data for message in ingress.messages] == list(range(25))


@pytest.mark.asyncio
@pytest.mark.spec("G-20")
async def test_waiting_for_the_end_tells_success_failure_and_time(redis_url: str) -> None:
    async with Stack(redis_url) as stack:
        device = await stack.device("d1")

        def told(data: Any) -> Any:
            return stack.intake.message(
                device, "POST_TELEMETRY_REQUEST", data, dialect="tb", transport="http", ts_ms=stack.intake.stamp("d1")
            )

        assert await stack.intake.submit_and_wait([told({"a": 1}), told({"a": 2})], 5) == ""
        assert [point.value for point in await stack.store.latest("acme", [device.id])] == [2]
        failure = await stack.intake.submit_and_wait([told({"a": 1}), told([1])], 5)
        assert "telemetry is an object" in failure
        assert stack.replies.waiting == {}
    async with Stack(redis_url, work=False) as stack:
        assert await stack.intake.submit_and_wait([told({"a": 1})], 0.2) == "not finished within 0.2 s"
