"""What the tenant's chain is told of that people do to devices."""

from __future__ import annotations

from typing import Any

import pytest

from api.flow import devices
from engine.stores.activity import GONE_MS
from tests.api.flow.serving import FlowStack, T
from tests.api.stack import TENANT

pytestmark = pytest.mark.asyncio


async def told(stack: FlowStack) -> list[tuple[str, Any, dict[str, str]]]:
    """Events in the streams, of a stack without a worker; those of one device in order."""
    return [(each.type, each.data, each.metadata) for each in await stack.messages()]


@pytest.mark.spec("G-18")
async def test_the_life_of_a_device(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(devices, "LAST_WORDS_S", 0.1)
    async with FlowStack(redis_url, work=False) as stack:
        await stack.store.open()
        made = await stack.put(f"{T}/devices/d1", {"name": "Lamp", "credentials": [{"kind": "ACCESS_TOKEN"}]}, 201)
        await stack.put(f"{T}/devices/d1", {"name": "Lamp 2"})
        await stack.delete(f"{T}/devices/d1")
        assert "not run yet" in caplog.text
        events = await told(stack)
        assert [type for type, _, _ in events] == ["ENTITY_CREATED", "ENTITY_UPDATED", "ENTITY_DELETED"]
        assert [data["name"] for _, data, _ in events] == ["Lamp", "Lamp 2", "Lamp 2"]
        assert events[0][1]["id"] == {"entityType": "DEVICE", "id": "d1"}
        assert {key: events[0][2][key] for key in ("dialect", "transport", "deviceName", "deviceType")} == {
            "dialect": "flow", "transport": "http", "deviceName": "Lamp", "deviceType": "default",
        }  # fmt: skip
        assert made["secrets"][0]["value"] not in str(events)


@pytest.mark.spec("G-18")
async def test_attributes_that_somebody_sets_and_deletes(redis_url: str) -> None:
    async with FlowStack(redis_url, work=False) as stack:
        await stack.device("d1")
        where = f"{T}/devices/d1/attributes/SHARED"
        await stack.put(where, {"a": 1, "b": [2.0]}, 204)
        await stack.put(where, {}, 204)
        await stack.delete(f"{where}?key=a&key=c")
        await stack.delete(f"{where}?key=c")
        events = await told(stack)
        assert [(type, data, metadata["scope"]) for type, data, metadata in events] == [
            ("ATTRIBUTES_UPDATED", {"a": 1, "b": [2.0]}, "SHARED_SCOPE"),
            ("ATTRIBUTES_DELETED", {"attributes": ["a", "c"]}, "SHARED_SCOPE"),
        ]


async def test_what_cannot_be_told_is_not_done(redis_url: str) -> None:
    async with FlowStack(redis_url, work=False) as stack:
        await stack.device("d1")
        stack.ingress.closed_reason = "spool full"
        await stack.put(f"{T}/devices/d2", {"name": "d2"}, 503)
        await stack.put(f"{T}/devices/d1/attributes/SERVER", {"a": 1}, 503)
        await stack.delete(f"{T}/devices/d1/attributes/SERVER?key=a", 503)
        await stack.delete(f"{T}/devices/d1", 503)
        stack.ingress.closed_reason = ""
        assert [device.name for device in await stack.registry.devices(TENANT)] == ["d1"]
        assert (await stack.registry.device(TENANT, "d1")).enabled
        assert (await stack.get(f"{T}/devices/d1/attributes"))["attributes"]["SERVER"] == {}


async def test_what_was_done_is_told_as_soon_as_the_door_opens(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with FlowStack(redis_url, work=False) as stack:
        submit, closed = stack.ingress.submit, [True]

        def refusing(messages: Any) -> Any:
            if closed and closed.pop():
                return stack.ingress._refuse(1, "backlog full")
            return submit(messages)

        monkeypatch.setattr(stack.ingress, "submit", refusing)
        await stack.put(f"{T}/devices/d1", {"name": "d1"}, 201)
        assert [type for type, _, _ in await told(stack)] == ["ENTITY_CREATED"]


@pytest.mark.spec("G-18")
async def test_a_deletion_waits_for_what_the_device_has_sent_and_leaves_nothing(redis_url: str) -> None:
    async with FlowStack(redis_url) as stack:
        device = await stack.device("d1")
        await stack.deploy(
            {"chain": "root", "start": "alarm", "nodes": {"alarm": {"kind": "create_alarm", "config": {"type": "Any"}}}}
        )
        for n in range(50):
            message = stack.intake.message(device, "POST_TELEMETRY_REQUEST", {"n": n}, dialect="tb", transport="http",
                                           ts_ms=n)  # fmt: skip
            await stack.intake.submit([message])
        await stack.delete(f"{T}/devices/d1")
        await stack.idle()
        # That it was deleted is known for a while, so that nothing is noted of it behind that.
        [gone] = await stack.redis.keys(f"*{device.id}*")
        assert b":gone:" in gone
        assert 0 < await stack.redis.pttl(gone) <= GONE_MS
        assert (await stack.get(f"{T}/alarms"))["alarms"] == []
