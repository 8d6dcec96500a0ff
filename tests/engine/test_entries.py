"""Stream entries: what goes in comes out, and nothing is guessed at."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.entries import (
    MAX_BYTES,
    MAX_MESSAGES,
    Item,
    Parked,
    UnknownEntryError,
    decode_parked,
    encode,
    pack_entry,
    pack_messages,
    unpack_entry,
)
from engine.ingress import _entries, _Waiting
from engine.message import WIRE_VERSION, Message
from engine.node import Resumed

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
messages = st.builds(
    Message, id=st.text(min_size=1), ts_ms=st.integers(0, 2**62), tenant=st.sampled_from(["a", "b"]), type=st.text(),
    originator=st.text(), data=values, metadata=st.dictionaries(st.text(), st.text(), max_size=3), node=st.text(),
    copy=st.text(), hops=st.integers(0, 1000), reply_to=st.text(), awaited=st.booleans(),
)  # fmt: skip


@given(st.lists(messages, min_size=1, max_size=8))
def test_messages_come_out_as_they_went_in(batch: list[Message]) -> None:
    assert unpack_entry([b"m", pack_messages(batch)]) == [Item(message) for message in batch]


@given(messages, st.integers(0, 9), st.integers(0, 2**40), values)
def test_parked_messages_come_out_as_they_went_in(message: Message, attempts: int, since_ms: int, body: object) -> None:
    parked = Parked("id", message, "call", 5, 6, attempts, since_ms)
    resumed = Resumed("call", body)
    assert decode_parked(encode(parked)) == parked
    assert unpack_entry([b"p", encode(parked), b"r", encode(resumed)]) == [Item(message, resumed, attempts, since_ms)]


SMALL, LARGE = 10, MAX_BYTES // 3


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from("ab"), max_size=250), st.sets(st.integers(0, 250), max_size=6), st.booleans())
def test_a_flush_is_cut_into_bounded_entries_that_keep_each_tenants_order(
    tenants: list[str], large: set[int], huge: bool
) -> None:
    part = _Waiting(None)
    for n, tenant in enumerate(tenants):
        size = (LARGE * (4 if huge else 1)) if n in large else SMALL
        part.tenants.setdefault(tenant, []).append(msgspec.msgpack.encode((n, bytes(size))))
    cut: dict[str, list[int]] = {}
    for blob in _entries(part):
        version, groups = msgspec.msgpack.decode(blob)
        assert version == WIRE_VERSION
        total = sum(count for _, count, _ in groups)
        assert total <= MAX_MESSAGES
        assert total == 1 or len(blob) < MAX_BYTES + 4096
        for tenant, count, slice_ in groups:
            found = msgspec.msgpack.decode(slice_)
            assert len(found) == count
            cut.setdefault(tenant, []).extend(n for n, _ in found)
    for tenant in "ab":
        assert cut.get(tenant, []) == [n for n, name in enumerate(tenants) if name == tenant]


def test_a_large_message_travels_alone() -> None:
    part = _Waiting(None)
    part.tenants["a"] = [b"\xc4\x01x", bytes(MAX_BYTES), b"\xc4\x01y", bytes(MAX_BYTES // 2), bytes(MAX_BYTES // 2)]
    counts = [[count for _, count, _ in msgspec.msgpack.decode(blob)[1]] for blob in _entries(part)]
    assert counts == [[1], [1], [2], [1]]


@pytest.mark.parametrize(
    "fields",
    [
        [b"z", b""],
        [b"m", b""],
        [b"m", b"\xc1"],
        [b"m", msgspec.msgpack.encode((WIRE_VERSION + 1, []))],
        [b"m", pack_entry([("a", [b"\xc0"])])],
        [b"p", b"\xc0", b"r", b"\xc0"],
    ],
)
def test_what_cannot_be_read_is_named_never_guessed(fields: list[bytes]) -> None:
    with pytest.raises(UnknownEntryError):
        unpack_entry(fields)


@given(st.binary(max_size=200))
@example(b"\x95\xa1\x80")
def test_no_bytes_do_more_than_say_no(blob: bytes) -> None:
    for fields in ([b"m", blob], [b"p", blob, b"r", blob]):
        try:
            items = unpack_entry(fields)
        except UnknownEntryError:
            continue
        assert all(isinstance(item.message, Message) for item in items)
