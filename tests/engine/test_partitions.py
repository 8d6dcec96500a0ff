"""Partitions: fixed for ever, spread evenly, each in one slot of a cluster."""

from __future__ import annotations

import binascii
import re
import zlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.partitions import SLOTS, Keys, all_keys, partition_of, tags


def slot(key: str) -> int:
    """As Redis Cluster counts it: CRC-16/XMODEM of what stands between the first braces."""
    tag = re.search(r"\{(.+?)\}", key)
    return binascii.crc_hqx((tag[1] if tag else key).encode(), 0) % SLOTS


def test_the_place_of_an_originator_never_changes() -> None:
    """State lies under these numbers in existing installations."""
    assert [partition_of("acme", f"d{n}", 16) for n in range(8)] == [9, 15, 5, 3, 0, 6, 12, 10]
    assert partition_of("acme", "größe", 16) == zlib.crc32("acme\0größe".encode()) % 16


@given(st.text(), st.text(), st.integers(1, 64))
def test_every_originator_has_a_partition(tenant: str, originator: str, count: int) -> None:
    assert 0 <= partition_of(tenant, originator, count) < count


def test_originators_spread_evenly() -> None:
    spread = Counter(partition_of("acme", f"device-{n}", 16) for n in range(16_000))
    assert min(spread.values()) > 700
    assert max(spread.values()) < 1300


@pytest.mark.parametrize("count", [1, 4, 16, 24])
@pytest.mark.parametrize("primaries", [1, 3, 5])
def test_partitions_spread_over_the_primaries_of_a_cluster(count: int, primaries: int) -> None:
    slots = [slot(f"{{{tag}}}") for tag in tags(count)]
    assert slots == [(2 * i + 1) * SLOTS // (2 * count) for i in range(count)]
    held = Counter(found * primaries // SLOTS for found in slots)
    assert max(held.values()) - min(held[n] for n in range(primaries)) <= 1


@given(st.text(max_size=30))
def test_all_keys_of_a_partition_share_its_slot(originator: str) -> None:
    keys = all_keys(16)[7]
    names = [getattr(keys, name) for name in Keys.__slots__ if name not in ("number", "prefix")]
    names += [
        keys.state("attr", originator), keys.index("dead", originator), keys.lane(originator), keys.commands(originator)
    ]  # fmt: skip
    assert {slot(name) for name in names} == {slot(keys.inbox)}
    assert len(set(names)) == len(names)
