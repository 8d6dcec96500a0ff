"""Points on their way to the store: each arrives, in order, whatever the store or the worker does meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from engine import breaker, feed
from engine import points as module
from engine import spool as spool_module
from engine.commit import Awaiting
from engine.errors import PointsRefused, StoreUnavailable
from engine.message import Message, Point
from engine.outcomes import Outcomes
from engine.partitions import all_keys
from engine.refused_points import RefusedPoint, bury
from engine.stores.memory import MemoryTimeseries
from tests.engine.bench import PARTITIONS, Bench
from tests.engine.toy import Do, Plans, Save, message, plan, until

pytestmark = pytest.mark.asyncio


class Moody(MemoryTimeseries):
    """A store that can be down, stand still, refuse single points, or fail in ways nobody foresaw."""

    def __init__(self) -> None:
        super().__init__()
        self.down: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.refuse: set[Any] = set()
        self.log: list[Point] = []
        self.writes = 0

    async def write(self, points: Sequence[Point]) -> None:
        self.writes += 1
        await self.gate.wait()
        if self.down is not None:
            raise self.down
        refused = [(i, "out of range") for i, point in enumerate(points) if point.value in self.refuse]
        good = [point for point in points if point.value not in self.refuse]
        self.log += good
        await super().write(good)
        if refused:
            raise PointsRefused(refused)

    def values(self, device: str) -> list[Any]:
        """In the order of the first writes: again is as good as once."""
        return list(dict.fromkeys(point.value for point in self.log if point.device == device))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody here has seconds for a store to come back."""
    monkeypatch.setattr(breaker, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(breaker, "LONGEST_WAIT_S", 0.05)


@pytest.fixture
def store(bench: Bench) -> Moody:
    bench.store = Moody()
    return bench.store


def write_at_most(monkeypatch: pytest.MonkeyPatch, points: int) -> None:
    monkeypatch.setattr(module, "WRITE_AT_MOST", points)
    monkeypatch.setattr(feed, "WRITE_AT_MOST", points)


def save() -> Plans:
    return Plans(plan(("save", Save(), {})))


def numbered(device: str, n: int) -> Message:
    return message(device, {"n": n}, ts_ms=1_700_000_000_000 + n)


async def test_a_store_that_is_down_holds_up_nobody_and_gets_all_in_order(bench: Bench, store: Moody) -> None:
    store.down = StoreUnavailable("down", 0.05)
    seen: list[int] = []

    def note(i: int, m: Message, out: Outcomes, ctx: Any) -> None:
        seen.append(m.data["n"])
        out.discard(i)

    await bench.work(plan(("save", Save(), {"Success": ["note"]}), ("note", Do(note), {})))
    for n in range(50):
        await bench.ingress.submit([numbered("d", n), numbered("e", n)])
    await until(bench.drained)
    assert len(seen) == 100
    assert not await bench.spools_empty()
    store.down = None
    await until(bench.spools_empty)
    assert store.values("d") == store.values("e") == list(range(50))


async def test_an_error_that_nobody_foresaw_does_not_end_the_writing(bench: Bench, store: Moody) -> None:
    store.down = RuntimeError("disk on fire")
    await bench.work(save())
    await bench.ingress.submit([numbered("d", 1)])
    await until(lambda: store.writes)
    store.down = None
    await bench.ingress.submit([numbered("d", 2)])
    await until(bench.spools_empty)
    assert store.values("d") == [1, 2]


async def test_a_refused_point_is_a_dead_letter_with_the_reason_and_its_neighbours_are_stored(
    bench: Bench, store: Moody
) -> None:
    store.refuse = {7}
    await bench.work(save())
    await bench.ingress.submit([numbered("d", n) for n in range(20)])
    [letter] = await until(lambda: bench.letters(1))
    assert letter.reason == "store refused the point: out of range"
    assert (letter.message.originator, letter.message.data) == ("d", {"n": 7})
    await until(bench.spools_empty)
    assert store.values("d") == [n for n in range(20) if n != 7]


async def test_a_crash_between_store_and_trim_repeats_the_same_points(bench: Bench, store: Moody) -> None:
    store.gate.clear()
    first = await bench.work(save())
    await bench.ingress.submit([numbered("d", n) for n in range(10)])
    await until(lambda: store.writes)
    writer = first._writer

    async def die(pieces: Any) -> None:
        raise asyncio.CancelledError

    writer._trim = die
    store.gate.set()
    await until(lambda: writer._task.done())
    assert store.values("d") == list(range(10))
    await bench.crash(first)
    await bench.work(save(), name="w2")
    await until(bench.spools_empty)
    page = await store.range("acme", ["d"], None, 0, 2_000_000_000_000)
    assert [point.value for point in page.points] == list(range(10))


async def test_what_memory_cannot_hold_is_read_from_the_spool(
    bench: Bench, store: Moody, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_MEMORY", 50)
    write_at_most(monkeypatch, 20)
    store.gate.clear()
    worker = await bench.work(save())
    for n in range(200):
        await bench.ingress.submit([numbered("d", n), numbered("e", n)])
    await until(bench.drained)
    assert worker._writer._held <= 50 + 200
    store.gate.set()
    await until(bench.spools_empty)
    for n in range(200, 220):
        await bench.ingress.submit([numbered("d", n)])
    await until(lambda: len(store.values("d")) == 220)
    assert store.values("d") == list(range(220))
    assert store.values("e") == list(range(200))
    assert not worker._writer._behind()


async def test_a_caller_who_waits_for_the_store_is_told_after_a_detour_over_the_spool(
    bench: Bench, store: Moody, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    store.gate.clear()
    await bench.work(save())
    with bench.replies.wait() as waiting:
        await bench.ingress.submit([message("d", {"n": 1}, reply_to=waiting.to, awaited=True)])
        await until(bench.drained)
        assert await waiting.next(0.1) is None
        store.gate.set()
        assert await waiting.next(5) == ("end", None, "")
    assert store.values("d") == [1]


async def test_the_count_of_spooled_bytes_survives_a_lost_reply(bench: Bench, store: Moody) -> None:
    """The door stands or falls with this count: it may not drift away from what is in the spool."""
    worker = await bench.work(save())
    writer = worker._writer
    execute, lost = writer._wire.execute, 0

    async def lossy(commands: Sequence[Any], timeout_s: float = 10.0) -> Any:
        nonlocal lost
        replies = await execute(commands, timeout_s)
        trims = any(command[0] != "XRANGE" and "points" in str(command) for command in commands)
        if trims and lost < 3:
            lost += 1
            raise module.RedisConnectionError("reply lost")
        return replies

    writer._wire = type("Lossy", (), {"execute": staticmethod(lossy)})()
    n = 0
    while lost < 3:
        await bench.ingress.submit([numbered("d", n)])
        await until(lambda n=n: n in store.values("d"))
        n += 1
    await bench.ingress.submit([numbered("d", n)])
    await until(lambda: _no_points(bench))
    await until(lambda: n in store.values("d"))
    await until(lambda: not writer._queue and _no_points(bench))
    sizes = [int(await bench.client.get(keys.spooled) or 0) for keys in all_keys(PARTITIONS)]
    assert sizes == [0] * PARTITIONS


async def _no_points(bench: Bench) -> bool:
    return not any([await bench.client.xlen(keys.points) for keys in all_keys(PARTITIONS)])


async def test_a_partition_that_moves_takes_its_spool_along(bench: Bench, store: Moody) -> None:
    store.down = StoreUnavailable("down", 0.05)
    plans = save()
    first = await bench.work(plans)
    await bench.ingress.submit([numbered(f"d{d}", n) for n in range(10) for d in range(20)])
    await until(bench.drained)
    second = await bench.work(plans, name="w2")
    await until(lambda: len(first._owned) == len(second._owned) == PARTITIONS // 2)
    store.down = None
    await until(bench.spools_empty)
    for d in range(20):
        assert store.values(f"d{d}") == list(range(10))


async def test_a_refused_point_is_kept_until_its_dead_letter_is(bench: Bench, store: Moody) -> None:
    store.refuse = {7}
    store.gate.clear()
    await bench.work(save())
    await bench.ingress.submit([numbered("d", 7)])
    await until(lambda: store.writes)
    await bench.client.config_set("maxmemory", 1)  # a dead letter has no room, a trim has
    store.gate.set()
    try:
        await until(lambda: store.writes > 1)
        assert not await bench.spools_empty()
    finally:
        await bench.client.config_set("maxmemory", 0)
    await until(lambda: bench.letters(1))
    await until(bench.spools_empty)


async def test_a_notice_that_comes_when_the_spool_is_written_already_is_sent(bench: Bench, store: Moody) -> None:
    worker = await bench.work(save())
    keys = bench.keys("d")
    await until(lambda: keys.number in worker._owned)
    owned = worker._owned[keys.number]
    store.down = StoreUnavailable("down", 0.05)
    await bench.ingress.submit([numbered("d", 1)])
    await until(lambda: store.writes)
    spool = worker._writer._spools[keys.number]
    spool.behind = True
    with bench.replies.wait() as waiting:
        # The commit has spooled, and the writer has read it, before the worker hears of the commit's answer.
        store.down = None
        await until(bench.spools_empty)
        spool.behind = True
        worker._writer.add(owned, spool.read, [], 0, [Awaiting(waiting.to, "acme", "d")])
        assert await waiting.next(5.0) is not None


async def test_a_long_spool_is_written_in_parts(bench: Bench, store: Moody, monkeypatch: pytest.MonkeyPatch) -> None:
    write_at_most(monkeypatch, 10)
    store.down = StoreUnavailable("down", 0.05)
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    await bench.work(save())
    for n in range(60):
        await bench.ingress.submit([numbered("d", n)])
        await until(bench.drained)
    sizes: list[int] = []
    write = store.write

    async def sized(points: Sequence[Point]) -> None:
        sizes.append(len(points))
        await write(points)

    monkeypatch.setattr(store, "write", sized)
    store.down = None
    await until(bench.spools_empty)
    assert store.values("d") == list(range(60))
    assert max(sizes) <= 10


async def test_a_refused_point_is_told_to_its_caller_and_to_nobody_else(bench: Bench, store: Moody) -> None:
    store.refuse = {7}
    await bench.work(save())
    with bench.replies.wait() as bad, bench.replies.wait() as good:
        await bench.ingress.submit(
            [
                message("d", {"n": 7}, reply_to=bad.to, awaited=True),
                message("e", {"n": 8}, reply_to=good.to, awaited=True),
            ]
        )
        assert await bad.next(5) == ("end", None, "store refused the point: out of range")
        assert await good.next(5) == ("end", None, "")


async def test_a_caller_is_told_although_the_commits_answer_was_lost(bench: Bench, store: Moody) -> None:
    worker = await bench.work(save())
    execute, lost = worker._wire.execute, 0

    async def lossy(commands: Sequence[Any], timeout_s: float = 10.0) -> Any:
        nonlocal lost
        replies = await execute(commands, timeout_s)
        if not lost and any(reply and reply[0] == b"ok" for reply in replies if isinstance(reply, list)):
            lost += 1
            raise module.RedisConnectionError("reply lost")
        return replies

    worker._wire = type("Lossy", (), {"execute": staticmethod(lossy), "close": worker._wire.close})()
    with bench.replies.wait() as waiting:
        await bench.ingress.submit([message("d", {"n": 1}, reply_to=waiting.to, awaited=True)])
        assert await waiting.next(5) == ("end", None, "")
    assert lost == 1
    assert store.values("d") == [1]


async def test_the_same_refused_point_is_one_letter_and_other_tenants_have_their_own(
    bench: Bench, store: Moody
) -> None:
    points = [Point(tenant, "d", "a/key", 1, 7) for tenant in ("acme", "umbra")]
    keys = bench.keys("d")
    for _ in range(3):
        await bury(bench.wire, [RefusedPoint(keys, point, "no") for point in [*points, points[0]]])
    for tenant in ("acme", "umbra"):
        [letter] = await bench.dead.list(tenant)
        assert letter.message.tenant == tenant
        assert "/" not in letter.id
    kept = sum(map(len, await bench.client.hvals(keys.dead)))
    assert int(await bench.client.get(keys.dead_bytes)) == kept


async def test_one_large_commit_is_written_in_parts(
    bench: Bench, store: Moody, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_at_most(monkeypatch, 30)
    sizes: list[int] = []
    write = store.write

    async def sized(points: Sequence[Point]) -> None:
        sizes.append(len(points))
        await write(points)

    monkeypatch.setattr(store, "write", sized)
    await bench.work(save())
    with bench.replies.wait() as waiting:
        await bench.ingress.submit(
            [*[numbered("d", n) for n in range(95)], message("d", {"n": 95}, reply_to=waiting.to, awaited=True)]
        )
        assert await waiting.next(5) == ("end", None, "")
    assert max(sizes) == 30
    assert store.values("d") == list(range(96))
    await until(bench.spools_empty)


async def test_an_owner_that_was_replaced_while_it_wrote_does_no_harm(bench: Bench, store: Moody) -> None:
    store.gate.clear()
    first = await bench.work(save())
    await bench.ingress.submit([numbered("d", n) for n in range(10)])
    await until(lambda: store.writes)
    # Its lease goes to another worker, which writes the same spool.
    keys = bench.keys("d")
    owned = first._owned[keys.number]
    first._ownership.disown(owned)
    await bench.client.delete(keys.lease)
    await bench.work(save(), name="w2")
    store.gate.set()
    await until(bench.spools_empty)
    for n in range(10, 20):
        await bench.ingress.submit([numbered("d", n)])
    await until(lambda: len(store.values("d")) == 20)
    await until(bench.spools_empty)
    assert store.values("d") == list(range(20))


async def test_memory_is_bounded_while_the_store_is_away(
    bench: Bench, store: Moody, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_MEMORY", 100)
    monkeypatch.setattr(module, "IN_MEMORY_BYTES", 20_000)
    monkeypatch.setattr(module, "WRITE_BYTES", 10_000)
    monkeypatch.setattr(spool_module, "READ_POINTS", 50)
    monkeypatch.setattr(spool_module, "READ_BYTES", 10_000)
    write_at_most(monkeypatch, 50)
    store.down = StoreUnavailable("down", 0.05)
    worker = await bench.work(save())
    writer = worker._writer
    most = most_bytes = 0
    for n in range(40):
        await bench.ingress.submit([numbered(f"d{d}", 40 * d + n) for d in range(20)])
        await bench.ingress.submit([message("large", {"text": "x" * 3000, "n": n})])
        await until(bench.drained)
        most, most_bytes = max(most, writer._held), max(most_bytes, writer._held_bytes)
    assert 50 < most <= 150
    assert 10_000 < most_bytes <= 30_000
    assert all(owned.store_behind for owned in worker._owned.values()), "what comes now is zipped"
    store.down = None
    await until(bench.spools_empty)
    for d in range(20):
        assert store.values(f"d{d}") == [40 * d + n for n in range(40)]
    assert len(store.values("large")) == 40 + 1
    assert not any(owned.store_behind for owned in worker._owned.values())


async def test_a_worker_starts_and_stops_without_a_store(bench: Bench, store: Moody) -> None:
    async def refuse() -> None:
        raise StoreUnavailable("connection refused", 0.01)

    opening, store.open = store.open, refuse  # type: ignore[method-assign]
    first = await bench.work(save())
    await bench.ingress.submit([numbered("d", n) for n in range(10)])
    await until(bench.drained)
    await until(lambda: first._writer.feed.breaker.state == "open")
    began = time.monotonic()
    await first.stop()
    bench.workers.remove(first)
    assert time.monotonic() - began < 3.0, "it does not wait for a store that is not there"
    assert not await bench.spools_empty()
    await bench.work(save(), name="w2")
    store.open = opening  # type: ignore[method-assign]
    await until(bench.spools_empty)
    assert store.values("d") == list(range(10))


async def test_an_entry_of_another_release_stays_and_holds_up_nobody_else(bench: Bench, store: Moody) -> None:
    unread, other = bench.keys("d"), next(f"e{n}" for n in range(99) if bench.keys(f"e{n}") is not bench.keys("d"))
    await bench.client.xadd(unread.points, {"b": b"\xc1"})
    await bench.work(save())
    await bench.ingress.submit([numbered("d", 1), numbered(other, 2)])
    await until(lambda: store.values(other))
    await until(bench.drained)
    assert store.values("d") == []
    assert await bench.client.xlen(unread.points) == 2
