"""Commands of a commit: what a batch's Effects mean for one partition, as the closed list that commit.lua runs.

No command here can err on keys that only we write: the script has no way back in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from msgspec.structs import replace

from engine.bus import BUS, caller_of, notice
from engine.effects import DeadLetter, Effects, Step
from engine.entries import Item, LaneItem, Parked, encode, pack_points
from engine.lanes import Lane, backoff_s
from engine.leases import Owned
from engine.message import Message, Point, now_ms
from engine.outcomes import Broadcast, Command, Hint, Index, Reply, Write
from engine.partitions import Keys
from engine.redis_scripts import COMMIT
from engine.stores.answers import KEEP_MS as KEEP_ANSWERS_MS
from engine.stores.answers import MAX_A_DEVICE as MAX_ANSWERS
from engine.stores.answers import Kept
from engine.stores.commands import MAX_A_DEVICE, Queued
from engine.wire import Argument, call

MAX_ARGUMENTS = 6000
"""Fields (and their values) in one command; Lua's `unpack` takes hardly more."""

MAX_TOLD = 500
"""Messages whose values are told in one publication."""

Line = tuple[Argument, ...]


class Awaiting(NamedTuple):
    """A caller who wants to hear of a message's end; if it made points, not before they are in the store."""

    reply_to: str
    tenant: str
    device: str
    error: str = ""
    """Why a copy of the message failed."""

    def line(self, refused: str = "") -> Line:
        """The command that tells; `refused` says why a point of the device is not in the store."""
        return notice(self.reply_to, "end", None, self.error or refused)


@dataclass(slots=True)
class Commit:
    """One partition's commit, and what its owner does once Redis has said yes."""

    owned: Owned
    next_id: bytes = b""
    """First entry to keep; empty trims nothing."""
    lines: list[Line] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    points_bytes: int = 0
    """What they take in the spool."""
    parked: list[Parked] = field(default_factory=list)
    after_store: list[Awaiting] = field(default_factory=list)
    lanes: dict[str, Lane | None] = field(default_factory=dict)
    """Lanes as they are after the commit; None: closed."""
    steps: list[Step] = field(default_factory=list)

    def command(self) -> tuple[Argument, ...]:
        """The script call. Calling it again after a lost reply does no harm."""
        owned, keys = self.owned, self.owned.keys
        names = (keys.inbox, keys.lease, keys.commit, keys.points, keys.spooled, keys.command_ids)
        arguments: list[Argument] = []
        for line in self.lines:
            arguments.append(len(line))
            arguments += line
        return call(COMMIT, names, owned.owner, owned.commit + 1, self.next_id, *arguments)


def compose(
    commits: dict[int, Commit], where: Sequence[int], ran: Sequence[tuple[int, Item]], effects: Effects
) -> None:
    """Add what a run did to the commits of its partitions; `where` gives the partition of each position."""
    stored: set[int] = set()
    for position, point in effects.points:
        commits[where[position]].points.append(point)
        stored.add(position)
    _writes(commits, where, effects)
    waiting = _last_waiting(effects)
    for position, request in effects.parked:
        message = request.message
        if message.awaited and waiting.get(position) is not request:
            message = replace(message, awaited=False)
        commit = commits[where[position]]
        parked = Parked(
            f"{message.id}{message.copy}:{message.hops}",
            message,
            request.kind,
            request.due_ms,
            ((commit.owned.commit + 1) << 20) + len(commit.parked),
        )
        _park(commit, parked)
        if request.command is not None:
            _queue(commit, message, request.command, parked.id)
    for position, letter in effects.dead:
        bury(commits[where[position]], letter)
    _lanes(commits, where, effects, waiting)
    for position, item in ran:
        if item.message.awaited:
            _tell_end(commits[where[position]], position, item.message, effects, stored)


def _writes(commits: dict[int, Commit], where: Sequence[int], effects: Effects) -> None:
    fields: dict[tuple[int, str], dict[str, bytes | None]] = {}
    told: dict[tuple[int, str], list[tuple[str, int, dict[str, Any]]]] = {}
    for position, message, effect in effects.effects:
        commit = commits[where[position]]
        keys = commit.owned.keys
        if isinstance(effect, Write):
            key = keys.state(effect.table, message.originator)
            fields.setdefault((where[position], key), {})[effect.field] = effect.value
        elif isinstance(effect, Index):
            index = keys.index(effect.table, message.tenant)
            if effect.score is None:
                commit.lines.append(("ZREM", index, effect.member))
            else:
                commit.lines.append(("ZADD", index, effect.score, effect.member))
        elif isinstance(effect, Hint):
            hint = encode((effect.kind, message.tenant, message.originator, effect.body))
            commit.lines.append(("PUBLISH", BUS, hint))
        elif isinstance(effect, Broadcast):
            values = (message.originator, effect.ts_ms, effect.values)
            told.setdefault((where[position], message.tenant), []).append(values)
        elif isinstance(effect, Reply):
            if caller := caller_of(message):
                commit.lines.append(notice(caller, "reply", effect.data, effect.error))
                name = message.reply_to.split("/", 2)[2:]
                if name and not effect.error:
                    blob = encode(Kept(name[0], effect.data, message.ts_ms, now_ms()))
                    commit.lines.append(
                        ("@answer", keys.answers(message.originator), message.id, blob, MAX_ANSWERS, KEEP_ANSWERS_MS)
                    )
        else:
            _queue(commit, message, effect, "")
    for (partition, tenant), all_told in told.items():
        # One publication for many: nobody may be listening, and that must cost next to nothing.
        commits[partition].lines += [
            ("PUBLISH", values_channel(tenant), encode(all_told[i : i + MAX_TOLD]))
            for i in range(0, len(all_told), MAX_TOLD)
        ]
    for (partition, key), named in fields.items():
        lines = commits[partition].lines
        kept = [part for name, value in named.items() if value is not None for part in (name, value)]
        gone = [name for name, value in named.items() if value is None]
        lines += [("HSET", key, *kept[i : i + MAX_ARGUMENTS]) for i in range(0, len(kept), MAX_ARGUMENTS)]
        lines += [("HDEL", key, *gone[i : i + MAX_ARGUMENTS]) for i in range(0, len(gone), MAX_ARGUMENTS)]


def values_channel(tenant: str) -> str:
    """Where a tenant's live values are told, as lists of (originator, ts_ms, values by key)."""
    return f"rm:values:{tenant}"


def _last_waiting(effects: Effects) -> dict[int, object]:
    """Of the copies of an awaited message that go on waiting, the last one carries the duty to tell the end."""
    last: dict[int, object] = {}
    last.update(effects.parked)
    last.update((position, item) for position, item, _ in effects.lanes)
    return last


def _park(commit: Commit, parked: Parked) -> None:
    keys = commit.owned.keys
    commit.lines.append(("HSET", keys.parked, parked.id, encode(parked)))
    commit.lines.append(("ZADD", keys.due, parked.due_ms, parked.id))
    commit.parked.append(parked)


def _queue(commit: Commit, message: Message, command: Command, parked: str) -> None:
    key = commit.owned.keys.commands(message.originator)
    queued = Queued(
        command.name, command.payload, now_ms(), command.expires_ms, command.oneway, parked, call=command.call,
        notify=message.reply_to if command.oneway else "",
    )  # fmt: skip
    commit.lines.append(
        ("@command", key, message.tenant, message.originator, encode(queued), command.expires_ms, MAX_A_DEVICE)
    )


def bury(commit: Commit, letter: DeadLetter) -> None:
    """Keep a message that ended in failure."""
    commit.lines += letter_lines(commit.owned.keys, letter)


def letter_lines(keys: Keys, letter: DeadLetter, replaced_bytes: int = 0) -> list[Line]:
    """The commands that keep a letter, in the place of one of the same id that had `replaced_bytes`."""
    blob = encode(letter)
    return [
        ("HSET", keys.dead, letter.id, blob),
        ("ZADD", keys.index("dead", letter.message.tenant), letter.at_ms, letter.id),
        ("INCRBY", keys.dead_bytes, len(blob) - replaced_bytes),
    ]


def _lanes(commits: dict[int, Commit], where: Sequence[int], effects: Effects, waiting: dict[int, object]) -> None:
    for position, item, reason in effects.lanes:
        commit = commits[where[position]]
        message = item.message
        known = item
        if message.awaited and waiting.get(position) is not item:
            known = LaneItem(replace(message, awaited=False), item.resumed, item.attempts, item.since_ms)
        join_lane(commit, known)
        if reason or item.attempts:
            lane = commit.lanes[message.originator]
            assert lane is not None
            after_s = effects.retry_after_s.get(message.originator)
            lane.due_ms = now_ms() + int(backoff_s(max(item.attempts, 1), after_s) * 1000)


def join_lane(commit: Commit, item: LaneItem) -> None:
    """Append a message to its originator's lane, opening it if need be."""
    message = item.message
    lane = commit.lanes.get(message.originator) or commit.owned.lanes.get(message.originator)
    lane = Lane(message.tenant, now_ms()) if lane is None else replace(lane)
    lane.length += 1
    commit.lanes[message.originator] = lane
    commit.lines.append(("RPUSH", commit.owned.keys.lane(message.originator), encode(item)))


def lane_lines(commit: Commit) -> list[Line]:
    """The commands that keep the hash of open lanes; made last, when every lane's state is known."""
    keys = commit.owned.keys
    return [
        ("HDEL", keys.lanes, originator) if lane is None else ("HSET", keys.lanes, originator, encode(lane))
        for originator, lane in commit.lanes.items()
    ]


def point_lines(commit: Commit) -> list[Line]:
    """The commands that spool the batch's points; zipped while the store is behind, for they will lie there."""
    blobs = pack_points(commit.points, zipped=commit.owned.store_behind)
    commit.points_bytes = sum(map(len, blobs))
    return [("@points", blob) for blob in blobs]


def _tell_end(commit: Commit, position: int, message: Message, effects: Effects, stored: set[int]) -> None:
    if position in effects.unfinished or not message.reply_to:
        return
    end = Awaiting(message.reply_to, message.tenant, message.originator, effects.failures.get(position, ""))
    if position in stored:
        commit.after_store.append(end)
    else:
        commit.lines.append(end.line())
