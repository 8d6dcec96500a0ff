"""Which partition a message belongs to, and the names of a partition's keys. Pure."""

from __future__ import annotations

import binascii
import zlib
from functools import lru_cache
from typing import Final

SLOTS: Final = 16384
_TAGS_16: Final = (
    "p0.2074",
    "p1.40c0b",
    "p2.b208",
    "p3.109b",
    "p4.be7",
    "p5.12c2",
    "p6.e79",
    "p7.10983",
    "p8.7927",
    "p9.11935",
    "p10.19cf",
    "p11.32b",
    "p12.16fb",
    "p13.45f",
    "p14.7f19",
    "p15.774",
)


@lru_cache(maxsize=8)
def tags(count: int) -> tuple[str, ...]:
    """Hash tags of `count` partitions: tag i lies in the middle of the i-th part of the cluster's slots.

    `p0`…`p15` would land 7 : 5 : 4 on three primaries.
    """
    if count == len(_TAGS_16):
        return _TAGS_16
    return tuple(_search(i, count) for i in range(count))


def _search(i: int, count: int) -> str:
    wanted = (2 * i + 1) * SLOTS // (2 * count)
    for n in range(1 << 24):
        tag = f"p{i}.{n:x}"
        if binascii.crc_hqx(tag.encode(), 0) % SLOTS == wanted:
            return tag
    raise AssertionError("every slot is reached long before")


def partition_of(tenant: str, originator: str, count: int) -> int:
    """The partition of an originator: the same in every process and release."""
    return zlib.crc32(f"{tenant}\0{originator}".encode()) % count


class Keys:
    """Names of one partition's keys. All share a hash tag, so that one script may touch them all."""

    __slots__ = (
        "calls_due", "calls_where", "clean", "command_ids", "commit", "dead", "dead_bytes", "due", "fence",
        "inbox", "lanes", "lease", "number", "parked", "points", "prefix", "producers", "quiet", "spooled", "trial",
    )  # fmt: skip

    def __init__(self, number: int, count: int) -> None:
        self.number = number
        self.prefix = prefix = f"rm:{{{tags(count)[number]}}}:"
        self.inbox = prefix + "in"
        self.lease = prefix + "lease"
        self.fence = prefix + "fence"
        self.clean = prefix + "clean"
        self.commit = prefix + "commit"
        self.producers = prefix + "producers"
        self.parked = prefix + "parked"
        self.due = prefix + "due"
        self.lanes = prefix + "lanes"
        self.points = prefix + "points"
        self.spooled = prefix + "spooled"
        self.trial = prefix + "trial"
        self.dead = prefix + "dead"
        self.dead_bytes = prefix + "dead-bytes"
        self.command_ids = prefix + "cmd-ids"
        self.calls_where = prefix + "calls-where"
        self.calls_due = prefix + "calls-due"
        self.quiet = prefix + "quiet"

    def state(self, table: str, originator: str) -> str:
        """Hash of one state table of an originator (`attr`, `alarm`, `node`)."""
        return f"{self.prefix}{table}:{originator}"

    def index(self, table: str, tenant: str) -> str:
        """Sorted set that lists a tenant's things of this partition (`alarms`, `dead`)."""
        return f"{self.prefix}index:{table}:{tenant}"

    def lane(self, originator: str) -> str:
        """List of an originator's messages behind one that is to be retried."""
        return f"{self.prefix}lane:{originator}"

    def commands(self, device: str) -> str:
        """Hash of a device's queued and open commands: id to record."""
        return f"{self.prefix}cmd:{device}"

    def given_command(self, device: str, id: int) -> str:
        """Record of a command that a session was given a moment ago."""
        return f"{self.prefix}given:{device}:{id}"

    def calls(self, device: str) -> str:
        """Hash of a device's kept calls: id to record."""
        return f"{self.prefix}calls:{device}"

    def gone(self, device: str) -> str:
        """When a device of this id was deleted."""
        return f"{self.prefix}gone:{device}"

    def answers(self, device: str) -> str:
        """Hash of the answers that are kept for a device: id of the message that asked to record."""
        return f"{self.prefix}ans:{device}"


@lru_cache(maxsize=8)
def all_keys(count: int) -> tuple[Keys, ...]:
    """Keys of every partition, by number."""
    return tuple(Keys(number, count) for number in range(count))
