"""Running a lane: from its head, in order, in a commit of its own that trims nothing of the stream."""

from __future__ import annotations

from engine.batch import BatchRunner
from engine.commit import Commit
from engine.entries import Item
from engine.lanes import MAX_CRASHES, MAX_WAITING, RUN_AT_ONCE, Lane, decode_item
from engine.leases import Owned
from engine.message import now_ms
from engine.runner import TOO_OFTEN
from engine.wire import Wire


def too_long(lane: Lane) -> bool:
    """Whether more wait behind a lane's head than may."""
    return lane.length > MAX_WAITING


def due_lanes(owned: Owned) -> list[str]:
    """Originators whose lane is to be run now: its time has come, or too many wait behind its head."""
    now = now_ms()
    return [originator for originator, lane in owned.lanes.items() if lane.due_ms <= now or too_long(lane)]


async def run_lane(owned: Owned, originator: str, wire: Wire, runner: BatchRunner) -> Commit:
    """Run the first messages of a lane; the commit that takes them out and puts back what is still to be retried."""
    keys, lane = owned.keys, owned.lanes[originator]
    at_once = 1 if lane.alone else RUN_AT_ONCE
    mark, blobs = await wire.execute(
        [("SET", keys.trial, f"lane {originator}"), ("LRANGE", keys.lane(originator), 0, at_once - 1)]
    )
    del mark
    waiting = [decode_item(blob) for blob in blobs]
    commit = Commit(owned)
    commits = {keys.number: commit}
    items = [Item(item.message, item.resumed, item.attempts, item.since_ms) for item in waiting]
    for i in range(min(lane.length - MAX_WAITING, len(items))):
        items[i] = items[i]._replace(attempts=TOO_OFTEN, since_ms=items[i].since_ms or now_ms())
    if lane.crashes >= MAX_CRASHES and items:
        runner.bury_unrun(commit, items[0], "ended the worker process each time it ran")
    else:
        await runner.into(items, [keys.number] * len(items), commits, in_lane=originator)
    _put_back(commit, originator, lane, len(items))
    runner.complete(commits)
    commit.lines.append(("DEL", keys.trial))
    return commit


def _put_back(commit: Commit, originator: str, lane: Lane, taken: int) -> None:
    """What the run left to be retried goes to the head again, before what has not been run."""
    key = commit.owned.keys.lane(originator)
    again = [line for line in commit.lines if line[:2] == ("RPUSH", key)]
    commit.lines = [line for line in commit.lines if line[:2] != ("RPUSH", key)]
    commit.lines.append(("LTRIM", key, taken, -1))
    if again:
        commit.lines.append(("LPUSH", key, *[line[2] for line in reversed(again)]))
    length = max(lane.length - taken, 0) + len(again)
    if not length:
        commit.lanes[originator] = None
        return
    left = commit.lanes.get(originator) if again else None
    due_ms = left.due_ms if left is not None else now_ms()
    alone = max(lane.alone - (taken - len(again)), 0)
    commit.lanes[originator] = Lane(lane.tenant, due_ms, 0, length, alone)
