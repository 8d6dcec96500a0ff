"""Taking over from an owner that died: find the message that killed it, and lose none of its neighbours.

No count stands on the hot path. What the dead owner may have had in hand (the first 5,000 messages) is run entry by
entry, the entry named in `trial` before each; if that dies too, the named entry runs message by message, the index
named before each and advanced by each commit; if that dies, the named message is dead-lettered unrun. So the guilty
one is delivered three times at most. A lane whose head kills is counted in the lane itself.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from engine import metrics
from engine.commit import Line
from engine.entries import Item, encode, following, unpack_entry
from engine.leases import Owned
from engine.wire import Wire

log = logging.getLogger("rulemill.recovery")

IN_HAND = 5000
"""Messages that an owner may have had in hand when it died."""


class Trial(NamedTuple):
    """What is being run on suspicion: an entry as a whole (`message` -1), or one message of it; or a lane."""

    entry: bytes
    message: int = -1
    running: bool = True

    def text(self) -> bytes:
        """As it stands in Redis."""
        return b"%s %d %d" % (self.entry, self.message, self.running)


def parse_trial(blob: bytes | None) -> Trial | None:
    """What the owner before us was trying when it died, if anything."""
    if not blob or blob.startswith(b"lane "):
        return None
    entry, index, running = blob.split(b" ")
    return Trial(entry, int(index), running == b"1")


Process = Callable[[Owned, list[Item], bytes, list[Line]], Awaitable[None]]
"""Run items of one partition and commit them, trimming up to the given id, with extra lines in the commit."""

Bury = Callable[[Owned, Item, str, bytes, list[Line]], Awaitable[None]]
"""Dead-letter an item unrun, in a commit of its own."""


async def recover(owned: Owned, wire: Wire, process: Process, bury: Bury) -> None:
    """Run what the dead owner may have had in hand, so that what killed it ends as a dead letter."""
    keys = owned.keys
    metrics.RECOVERED.inc()
    blob = (await wire.execute([("GET", keys.trial)]))[0]
    suspect = parse_trial(blob)
    await _blame_lane(owned, wire, blob)
    seen = 0
    while seen < IN_HAND:
        reply = (await wire.execute([("XRANGE", keys.inbox, "-", "+", "COUNT", 1)]))[0]
        if not reply:
            break
        entry, fields = reply[0]
        items = unpack_entry(fields)
        seen += len(items)
        if suspect is not None and suspect.entry == entry:
            log.warning("partition %d: entry %s ended a worker; running it message by message", keys.number, entry)
            await _one_by_one(owned, wire, entry, items, suspect, process, bury)
        else:
            await wire.execute([("SET", keys.trial, Trial(entry).text())])
            await process(owned, items, following(entry), [])
        suspect = None
    await wire.execute([("DEL", keys.trial)])


async def _one_by_one(
    owned: Owned, wire: Wire, entry: bytes, items: list[Item], suspect: Trial, process: Process, bury: Bury
) -> None:
    trial_key = owned.keys.trial
    first = max(suspect.message, 0)
    for index in range(first, len(items)):
        last = index == len(items) - 1
        next_id = following(entry) if last else b""
        advance: list[Line] = [("SET", trial_key, Trial(entry, index + 1, running=False).text())]
        if index == suspect.message and suspect.running:
            reason = "ended the worker process each time it ran"
            log.error("partition %d: message %s %s", owned.keys.number, items[index].message.id, reason)
            await bury(owned, items[index], reason, next_id, advance)
            continue
        await wire.execute([("SET", trial_key, Trial(entry, index).text())])
        await process(owned, [items[index]], next_id, advance)


async def _blame_lane(owned: Owned, wire: Wire, blob: bytes | None) -> None:
    """The owner before us died while it ran a lane: count it there."""
    if not blob or not blob.startswith(b"lane "):
        return
    originator = blob.removeprefix(b"lane ").decode()
    lane = owned.lanes.get(originator)
    if lane is not None:
        lane.blame()
        await wire.execute([("HSET", owned.keys.lanes, originator, encode(lane)), ("DEL", owned.keys.trial)])
