"""A worker: owns partitions, reads them from the head, runs batches, commits. One batch at a time.

The stream is the work left: a commit trims what it finished, so a stale owner, a cancelled read or a dead client
cannot take an entry with it. One XREAD goes over all owned partitions, in the same write as the last batch's commits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from engine import metrics
from engine.batch import BatchRunner
from engine.commit import Commit, Line
from engine.deployments import Deployments, Plans
from engine.entries import Item, UnknownEntryError, following, unpack_entry
from engine.errors import StateUnavailable
from engine.failpoints import failpoint
from engine.lanework import due_lanes, run_lane, too_long
from engine.leases import Leases, Owned
from engine.message import now_ms
from engine.node import Product
from engine.outward import Outward
from engine.ownership import ADJUST_EVERY_S, Ownership
from engine.parked import Timers
from engine.points import PointsWriter
from engine.recovery import recover
from engine.service import end_all
from engine.state import State
from engine.store_state import StateBoard
from engine.stores.timeseries import Timeseries
from engine.tail import Tail
from engine.watch import Progress
from engine.wire import Argument, Reply, Subscriber, Wire, failed

log = logging.getLogger("rulemill.worker")

MAX_BATCH = 5000
MAX_BATCH_BYTES = 16 << 20
READ_AT_LEAST, READ_AT_MOST = 4, 500
"""Entries asked of each partition, as long as the batch does not get too large by it."""
BLOCK_MS = 250
STUCK_S = 60.0
"""A batch that takes longer is no progress, even while the loop turns."""


@dataclass(slots=True, kw_only=True)
class WorkerParts:
    """What the composition root hands a worker."""

    url: str
    name: str
    partitions: int
    plans: Plans
    store: Timeseries
    product: Callable[[str, str], Awaitable[Product | None]]
    secret: Callable[[str, str], str | None]


class Worker:
    """One worker process's engine."""

    def __init__(self, parts: WorkerParts) -> None:
        self._parts = parts
        self._wire = Wire(parts.url, f"{parts.name}-main")
        self._side = Wire(parts.url, f"{parts.name}-side")
        self._leases = Leases(parts.url, parts.name, parts.partitions, self._side)
        self._outward = Outward(self._side, parts.plans.plan_for, parts.secret)
        self._timers = Timers(self._side, self._outward.add, self._outward.has)
        self._writer = PointsWriter(self._side, parts.store)
        self._store_state = StateBoard(self._side, parts.name, self._writer.feed)
        self._progress = Progress()
        self._tail = Tail(self._side)
        deployments = Deployments(parts.plans)
        self._runner = BatchRunner(
            plans=parts.plans, deployments=deployments, state=State(self._side, parts.partitions),
            product=parts.product, secret=parts.secret, progress=self._progress,
            room=self._outward.room, tail=self._tail,
        )  # fmt: skip
        self._deployed = Subscriber(
            parts.url, f"{parts.name}-deployed", ["rm:deployed"], lambda _, tenant: deployments.moved(tenant.decode())
        )
        self._ownership = Ownership(
            parts.partitions, self._leases, self._side, self._timers, self._outward, self._writer,
            lambda owned: recover(owned, self._side, self._process, self._bury),
        )  # fmt: skip
        self._owned = self._ownership.owned
        self._stopping = False
        self._busy_since = 0.0
        self._read_count = READ_AT_LEAST
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Connect and begin; returns when the worker reads."""
        await self._writer.open()
        await self._wire.execute([("PING",)])
        await asyncio.to_thread(self._leases.start)
        await self._deployed.start()
        self._timers.start()
        self._writer.start()
        await self._store_state.start()
        self._tasks = [
            asyncio.create_task(self._tick(), name="worker-tick"),
            asyncio.create_task(self._tail.watch(), name="worker-tail"),
            asyncio.create_task(self._run(), name="worker"),
        ]
        self._progress.ready()

    async def stop(self) -> None:
        """Finish the batch in hand, write the points in memory, give the partitions back in order."""
        self._stopping = True
        if not self._tasks:
            return
        await asyncio.wait([self._tasks[-1]], timeout=5.0)
        await asyncio.gather(self._outward.stop(), self._writer.stop(finish_s=3.0))
        await self._timers.stop()
        await self._store_state.stop()
        await end_all(self._tasks)
        self._tasks = []
        try:
            await self._ownership.release_all()
        except RedisConnectionError as error:
            log.warning("leases are left to expire: %s", error)
        await asyncio.to_thread(self._leases.stop)
        await self._deployed.stop()
        await self._parts.store.close()
        await self._wire.close()
        await self._side.close()

    async def wait(self) -> None:
        """Return or raise when the worker has ended by itself."""
        await self._tasks[-1]

    async def _tick(self) -> None:
        while True:
            late = time.perf_counter()
            await asyncio.sleep(0.25)
            metrics.LOOP_LAG_S.set(max(0.0, time.perf_counter() - late - 0.25))
            if not self._busy_since or time.monotonic() - self._busy_since < STUCK_S:
                self._progress()

    # The loop

    async def _run(self) -> None:
        commits: dict[int, Commit] = {}
        while True:
            try:
                if commits and self._upkeep_due():
                    await self._commit(commits)
                    commits = {}
                if not commits:
                    await self._ownership.adjust()
                    await self._lanes()
                entries = await self._commit_and_read(commits)
                commits = {}
                if entries:
                    commits = await self._batch(entries)
                elif self._stopping:
                    return
                if self._stopping:
                    await self._commit(commits)
                    return
            except (RedisConnectionError, RedisTimeoutError, StateUnavailable) as error:
                log.warning("worker waits for Redis: %s", error)
                await self._forget_reads(commits)
                commits = {}
                await asyncio.sleep(0.25)

    def _upkeep_due(self) -> bool:
        """Leases and lanes get their turn under load too; they need a moment without a batch in hand."""
        return time.monotonic() - self._ownership.adjusted >= ADJUST_EVERY_S or self._lane_due()

    def _lane_due(self) -> bool:
        return any(due_lanes(owned) for owned in self._owned.values() if owned.lanes)

    async def _forget_reads(self, commits: dict[int, Commit]) -> None:
        """After a break: try the commits in hand to their end, then read from the head again."""
        await self._commit(commits)
        for owned in self._owned.values():
            owned.cursor = b"0-0"

    async def _commit_and_read(self, commits: dict[int, Commit]) -> list[tuple[Owned, bytes, list[bytes]]]:
        """Commit the last batch and read the next one, in one round trip; wait a moment when there is nothing."""
        pending = list(commits.values())
        started = time.perf_counter()
        if pending:
            failpoint("before-commit")
        if not self._owned:
            await asyncio.sleep(0.1)
            return []
        commands = [commit.command() for commit in pending]
        try:
            replies = await self._wire.execute([*commands, self._read_command(0)])
        except RedisConnectionError:
            if not pending:
                raise
            # Whether they were done, the commits' numbers will tell.
            await self._commit(commits)
            return []
        if pending:
            failpoint("after-commit")
            metrics.COMMIT_S.observe(time.perf_counter() - started)
        for commit, reply in zip(pending, replies, strict=False):
            await self._committed(commit, reply)
        # Whatever becomes of the read: these are done, and must not be sent under their next number.
        commits.clear()
        entries = self._entries(replies[-1])
        if entries or self._stopping:
            return entries
        if pending or self._lane_due():
            # Lanes and leases get their turn before the wait, which Redis may stretch to a tenth of a second.
            return []
        return self._entries((await self._wire.execute([self._read_command(self._patience_ms())]))[0])

    def _read_command(self, block_ms: int) -> tuple[Argument, ...]:
        block = ("BLOCK", block_ms) if block_ms else ()
        streams = [owned.keys.inbox for owned in self._owned.values()]
        cursors = [owned.cursor for owned in self._owned.values()]
        return ("XREAD", "COUNT", self._read_count, *block, "STREAMS", *streams, *cursors)

    def _patience_ms(self) -> int:
        """How long a blocking read may wait: until the next lane is due, at most BLOCK_MS."""
        due = [lane.due_ms for owned in self._owned.values() for lane in owned.lanes.values()]
        return max(1, min(BLOCK_MS, min(due, default=BLOCK_MS + now_ms()) - now_ms()))

    def _entries(self, reply: Reply) -> list[tuple[Owned, bytes, list[bytes]]]:
        """What a read gave, in the order of partitions."""
        if failed(reply):
            raise RedisConnectionError(str(reply))
        if not reply:
            return []
        by_key = {owned.keys.inbox.encode(): owned for owned in self._owned.values()}
        entries = []
        for key, rows in reply:
            owned = by_key.get(key)
            if owned is None:
                continue
            entries += [(owned, id, fields) for id, fields in rows]
        return entries

    async def _batch(self, entries: list[tuple[Owned, bytes, list[bytes]]]) -> dict[int, Commit]:
        """Run what was read, as far as one batch goes; the commits of its partitions."""
        items: list[Item] = []
        where: list[int] = []
        commits: dict[int, Commit] = {}
        given: dict[int, int] = {}
        used = size = 0
        for owned, id, fields in entries:
            number = owned.keys.number
            given[number] = given.get(number, 0) + 1
            if number in self._ownership.shunned or len(items) >= MAX_BATCH or size >= MAX_BATCH_BYTES:
                continue  # not in hand: the cursor stays before it, so it is read again
            try:
                found = unpack_entry(fields)
            except UnknownEntryError as error:
                self._ownership.shun(owned, id, error)
                continue
            items += found
            where += [number] * len(found)
            used, size = used + 1, size + len(fields[1])
            owned.cursor = id
            commits.setdefault(number, Commit(owned)).next_id = following(id)
        if used:
            self._read_count = _next_count(self._read_count, given, used, len(items), size)
        metrics.BATCH.observe(len(items))
        await self._until_run(items, where, commits)
        return commits

    async def _until_run(self, items: list[Item], where: list[int], commits: dict[int, Commit]) -> None:
        """Run a batch; when Redis goes away meanwhile, run it again: nothing of it is visible yet."""
        fresh = {number: commit.next_id for number, commit in commits.items()}
        while True:
            self._busy_since = time.monotonic()
            try:
                await self._runner.run(items, where, commits)
            except (RedisConnectionError, RedisTimeoutError, StateUnavailable) as error:
                log.warning("batch waits for Redis: %s", error)
                for number, next_id in fresh.items():
                    commits[number] = Commit(commits[number].owned, next_id)
                await asyncio.sleep(0.25)
            else:
                return
            finally:
                self._busy_since = 0.0

    # Commits

    async def _commit(self, commits: dict[int, Commit]) -> None:
        """Commit until Redis has said yes or that the partition is not ours."""
        pending = list(commits.values())
        while pending:
            try:
                replies = await self._wire.execute([commit.command() for commit in pending])
            except RedisConnectionError as error:
                log.warning("commit waits for Redis: %s", error)
                self._progress()
                await asyncio.sleep(0.25)
                continue
            for commit, reply in zip(pending, replies, strict=True):
                await self._committed(commit, reply)
            return

    async def _committed(self, commit: Commit, reply: Reply) -> None:
        """What the owner does once the commit's answer is there."""
        owned = commit.owned
        while failed(reply):
            log.error("commit in partition %d refused: %s", owned.keys.number, reply)
            await asyncio.sleep(0.25)
            try:
                reply = (await self._wire.execute([commit.command()]))[0]
            except RedisConnectionError as error:
                log.warning("commit waits for Redis: %s", error)
        status, spooled = reply
        if status == b"fenced":
            metrics.FENCED.inc()
            log.warning("partition %d has another owner", owned.keys.number)
            self._ownership.disown(owned)
            return
        owned.commit += 1
        for originator, lane in commit.lanes.items():
            if lane is None:
                owned.lanes.pop(originator, None)
            else:
                owned.lanes[originator] = lane
        if commit.lanes:
            metrics.LANES.set(sum(len(other.lanes) for other in self._owned.values()))
        if commit.parked:
            self._timers.add(owned, commit.parked)
        if commit.points:
            self._writer.add(owned, spooled, commit.points, commit.points_bytes, commit.after_store)
        self._tail.publish(commit.steps)
        self._tail.publish_points(commit.points)

    # Recovery and lanes run single partitions

    async def _process(self, owned: Owned, items: list[Item], next_id: bytes, lines: list[Line]) -> None:
        """Run items of one partition and commit them."""
        commits = {owned.keys.number: Commit(owned, next_id)}
        await self._until_run(items, [owned.keys.number] * len(items), commits)
        commit = commits[owned.keys.number]
        commit.lines += lines
        await self._commit(commits)
        self._ownership.still_ours(owned)

    async def _bury(self, owned: Owned, item: Item, reason: str, next_id: bytes, lines: list[Line]) -> None:
        """Dead-letter an item unrun."""
        commit = Commit(owned, next_id, list(lines))
        self._runner.bury_unrun(commit, item, reason)
        await self._commit({owned.keys.number: commit})
        self._ownership.still_ours(owned)

    async def _lanes(self) -> None:
        """Run the lanes that are due."""
        for owned in list(self._owned.values()):
            for originator in due_lanes(owned):
                await self._lane(owned, originator)

    async def _lane(self, owned: Owned, originator: str) -> None:
        """Run the head of a lane, and go on while it is too long: a batch may bring more than one run takes away."""
        while self._owned.get(owned.keys.number) is owned:
            commit = await run_lane(owned, originator, self._side, self._runner)
            await self._commit({owned.keys.number: commit})
            self._progress()
            lane = owned.lanes.get(originator)
            if lane is None or not too_long(lane) or self._stopping:
                return


def _next_count(count: int, given: Mapping[int, int], used: int, items: int, size: int) -> int:
    """How many entries to ask of each partition after a read: more while there is more, as far as batches fit.

    `given` counts the entries that each partition gave; `used` of all became `items` messages of `size` bytes.
    """
    count = min(2 * count, READ_AT_MOST) if max(given.values()) >= count else max(count // 2, READ_AT_LEAST)
    share = max(items / used / MAX_BATCH, size / used / MAX_BATCH_BYTES)
    return max(1, min(count, int(0.5 / share / len(given))))
