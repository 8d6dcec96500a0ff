"""Kept calls in a real Redis, with a clock that the test turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from engine.entries import encode, unpack_entry
from engine.errors import Conflict
from engine.message import Message, new_id, now_ms
from engine.partitions import all_keys, partition_of
from engine.stores import kept_calls
from engine.stores.commands import Commands, Queued
from engine.stores.kept_call import CONFIRM_MS, KEEP_MS, KeptCall
from engine.stores.kept_calls import KeptCalls
from engine.stores.tenant_data import forget_device
from engine.wire import Wire

pytestmark = pytest.mark.asyncio

PARTITIONS = 4
TENANT, DEVICE = "acme", "d1"
KEYS = all_keys(PARTITIONS)[partition_of(TENANT, DEVICE, PARTITIONS)]


class Kept:
    """Kept calls of a device, the commands that go with them, and what the chain is told."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.now = now_ms()
        self.calls = KeptCalls(wire, PARTITIONS, lambda call: [call.id, call.status], lambda: self.now)
        self.commands = Commands(wire, PARTITIONS, self.calls)
        self.numbers = 0

    async def make(self, *, queue: bool = True, wait_ms: int = 60_000, **fields: Any) -> KeptCall:
        fields.setdefault("oneway", False)
        made = KeptCall(
            id=self.calls.new_id(TENANT, DEVICE), tenant=TENANT, device=DEVICE, method="turn", params=[1],
            created_ms=self.now, expires_ms=self.now + wait_ms, metadata={"deviceName": "lamp"}, **fields,
        )  # fmt: skip
        request = Message(id=new_id(), ts_ms=self.now, tenant=TENANT, type="REQUEST", originator=DEVICE)
        made = await self.calls.add(made, request)
        if queue:
            await self.queue(made)
        return made

    async def queue(self, made: KeptCall) -> None:
        """As the commit does it."""
        self.numbers += 1
        queued = Queued(made.method, made.params, self.now, made.expires_ms, made.oneway, "", call=made.id)
        await self.wire.execute([("HSET", KEYS.commands(DEVICE), self.numbers, encode(queued))])

    async def status(self, made: KeptCall) -> str | None:
        found = await self.calls.find(made.id)
        return None if found is None else found.status

    async def told(self) -> list[str]:
        """Types of the messages in the stream, oldest first."""
        entries = (await self.wire.execute([("XRANGE", KEYS.inbox, "-", "+")]))[0]
        return [item.message.type for _, fields in entries for item in unpack_entry(fields)]

    async def sweep(self) -> None:
        for id in await self.calls.due():
            await self.calls.look(id)

    async def waiting(self) -> list[int]:
        """Numbers of the commands that no session has."""
        return [entry.id for entry in await self.commands.undelivered(TENANT, DEVICE)]

    async def hand_over(self, *, confirmed: bool) -> None:
        [entry] = await self.commands.undelivered(TENANT, DEVICE)
        await self.commands.delivered(TENANT, DEVICE, entry, confirmed=confirmed)


@pytest_asyncio.fixture
async def kept(redis_url: str) -> AsyncIterator[Kept]:
    wire = Wire(redis_url, "test")
    yield Kept(wire)
    await wire.close()


@pytest.mark.spec("TB-X4")
async def test_a_call_is_kept_with_the_message_that_makes_it_and_told(kept: Kept) -> None:
    made = await kept.make()
    assert await kept.calls.find(made.id) == made
    assert (made.status, made.due_ms) == ("QUEUED", made.expires_ms)
    assert await kept.told() == ["REQUEST", "RPC_QUEUED"]
    [(_, fields)] = (await kept.wire.execute([("XRANGE", KEYS.inbox, "-", "+")]))[0]
    told = unpack_entry(fields)[1].message
    assert (told.originator, told.data, told.metadata) == (
        DEVICE, [made.id, "QUEUED"], {"deviceName": "lamp", "requestUUID": made.id},
    )  # fmt: skip


@pytest.mark.spec("TB-X4")
async def test_the_way_of_a_call_that_is_confirmed_and_answered(kept: Kept) -> None:
    made = await kept.make()
    await kept.hand_over(confirmed=False)
    assert await kept.status(made) == "SENT"
    [entry] = await kept.commands.open(TENANT, DEVICE)
    await kept.commands.confirm(TENANT, DEVICE, entry)
    assert await kept.status(made) == "DELIVERED"
    assert await kept.commands.answer(TENANT, DEVICE, entry.id, {"ok": True})
    found = await kept.calls.find(made.id)
    assert found is not None
    assert (found.status, found.response) == ("SUCCESSFUL", {"ok": True})
    assert await kept.told() == ["REQUEST", "RPC_QUEUED", "RPC_SENT", "RPC_DELIVERED", "RPC_SUCCESSFUL"]


@pytest.mark.parametrize("oneway", [False, True])
async def test_where_nothing_confirms_what_was_handed_over_is_delivered(kept: Kept, oneway: bool) -> None:
    made = await kept.make(oneway=oneway)
    await kept.hand_over(confirmed=True)
    assert await kept.status(made) == "DELIVERED"
    assert len(await kept.commands.open(TENANT, DEVICE)) == (0 if oneway else 1)


async def test_a_one_way_call_stays_queued_until_it_is_confirmed(kept: Kept) -> None:
    made = await kept.make(oneway=True)
    await kept.hand_over(confirmed=False)
    [entry] = await kept.commands.open(TENANT, DEVICE)
    await kept.commands.confirm(TENANT, DEVICE, entry)
    assert await kept.status(made) == "DELIVERED"
    assert await kept.commands.open(TENANT, DEVICE) == []
    found = await kept.calls.find(made.id)
    assert found is not None
    assert found.ended


@pytest.mark.spec("TB-X4")
async def test_what_is_not_confirmed_is_sent_again_and_fails_in_the_end(kept: Kept) -> None:
    made = await kept.make(retries=2)
    for _ in range(2):
        await kept.hand_over(confirmed=False)
        assert await kept.waiting() == []
        kept.now += CONFIRM_MS - 1
        await kept.sweep()
        assert await kept.status(made) == "SENT"
        kept.now += 1
        await kept.sweep()
        assert await kept.status(made) == "TIMEOUT"
        assert await kept.waiting() == [1]
    await kept.hand_over(confirmed=False)
    kept.now += CONFIRM_MS
    await kept.sweep()
    found = await kept.calls.find(made.id)
    assert found is not None
    assert (found.status, found.response) == (
        "FAILED", {"error": "no session confirmed it, and it was sent again 2 times"},
    )  # fmt: skip
    assert await kept.commands.open(TENANT, DEVICE) == []
    assert await kept.told() == [
        "REQUEST", "RPC_QUEUED", "RPC_SENT", "RPC_TIMEOUT", "RPC_SENT", "RPC_TIMEOUT", "RPC_SENT", "RPC_FAILED",
    ]  # fmt: skip


@pytest.mark.spec("TB-X4")
@pytest.mark.parametrize("handed_over", [False, True])
async def test_a_call_expires_and_leaves_the_queue(kept: Kept, handed_over: bool) -> None:
    made = await kept.make(wait_ms=20_000)
    if handed_over:
        await kept.hand_over(confirmed=True)
    kept.now += 20_000
    await kept.sweep()
    assert await kept.status(made) == "EXPIRED"
    assert (await kept.told())[-1] == "RPC_EXPIRED"
    assert await kept.commands.open(TENANT, DEVICE) == []
    # Nothing that comes later changes it.
    await kept.calls.answered(TENANT, DEVICE, made.id, "late")
    await kept.calls.confirmed(TENANT, DEVICE, made.id)
    assert await kept.status(made) == "EXPIRED"


async def test_a_call_that_is_too_late_from_the_start_goes_no_further(kept: Kept) -> None:
    made = await kept.make(wait_ms=0, queue=False)
    assert made.status == "EXPIRED"
    assert await kept.told() == ["RPC_EXPIRED"]


async def test_calls_that_ended_are_kept_for_a_week(kept: Kept) -> None:
    made = await kept.make(wait_ms=1)
    kept.now += 1
    await kept.sweep()
    kept.now += KEEP_MS - 1
    await kept.sweep()
    assert await kept.status(made) == "EXPIRED"
    kept.now += 1
    await kept.sweep()
    assert await kept.status(made) is None
    assert await kept.wire.execute([("EXISTS", KEYS.calls(DEVICE), KEYS.calls_where, KEYS.calls_due)]) == [0]


@pytest.mark.spec("TB-X4")
async def test_a_call_that_is_forgotten_leaves_the_queue_and_is_told(kept: Kept) -> None:
    made = await kept.make()
    assert (await kept.calls.forget(made.id)) == made
    assert await kept.calls.forget(made.id) is None
    assert await kept.waiting() == []
    assert (await kept.told())[-1] == "RPC_DELETED"
    # What the session does with it afterwards disturbs nobody.
    await kept.calls.sent(TENANT, DEVICE, made.id)
    assert await kept.status(made) is None


@pytest.mark.parametrize("id", ["", "x", "0000", "ffff", "gggg", "01a1f9e3-e930-766d-a6d3-f3d152030000"])
async def test_ids_that_are_nobodys(kept: Kept, id: str) -> None:
    assert await kept.calls.find(id) is None


async def test_of_changes_at_once_each_is_told_once(kept: Kept) -> None:
    made = await kept.make()
    await kept.hand_over(confirmed=False)
    await asyncio.gather(
        *(kept.calls.confirmed(TENANT, DEVICE, made.id) for _ in range(5)),
        *(kept.calls.answered(TENANT, DEVICE, made.id, n) for n in range(5)),
    )
    told = await kept.told()
    assert told.count("RPC_SUCCESSFUL") == 1
    assert told.count("RPC_DELIVERED") <= 1
    assert await kept.status(made) == "SUCCESSFUL"


async def test_a_device_has_so_many_calls_and_no_more(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_calls, "MOST_OPEN", 3)
    monkeypatch.setattr(kept_calls, "MOST", 5)
    made = []
    for _ in range(3):
        kept.now += 1
        made.append(await kept.make(queue=False))
    with pytest.raises(Conflict, match="3 calls are under way"):
        await kept.make()
    for each in made:
        await kept.calls.answered(TENANT, DEVICE, each.id, 1)
    for _ in range(3):
        kept.now += 1
        each = await kept.make(queue=False)
        await kept.calls.answered(TENANT, DEVICE, each.id, 1)
    assert len(await kept.calls.of(TENANT, DEVICE)) == 5
    assert await kept.status(made[0]) is None


async def test_a_deleted_device_leaves_no_call(kept: Kept) -> None:
    for _ in range(3):
        await kept.make()
    await forget_device(kept.wire, PARTITIONS, TENANT, DEVICE)
    keys = (KEYS.calls(DEVICE), KEYS.calls_where, KEYS.calls_due)
    assert await kept.wire.execute([("EXISTS", *keys)]) == [0]


async def test_what_is_due_of_a_call_that_is_gone_is_done_with_once(kept: Kept) -> None:
    made = await kept.make(wait_ms=1)
    await kept.wire.execute([("DEL", KEYS.calls(DEVICE))])
    kept.now += 1
    assert await kept.calls.due() == [made.id]
    await kept.sweep()
    assert await kept.calls.due() == []
