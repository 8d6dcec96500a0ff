from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from engine.errors import BadInput, NotFound
from engine.partitions import all_keys, partition_of
from engine.stores import alarm_store, alarms
from engine.stores.alarm_store import AlarmStore
from engine.stores.alarms import Alarm, encode
from engine.stores.merged_index import AT_ONCE, MergedIndex
from engine.stores.tenant_data import forget_device
from engine.wire import Wire

pytestmark = pytest.mark.asyncio

PARTITIONS = 4


@pytest_asyncio.fixture
async def wire(redis_url: str) -> AsyncIterator[Wire]:
    made = Wire(redis_url, "alarm-test")
    yield made
    await made.close()


def alarm(number: int, device: str = "d1", **fields: object) -> Alarm:
    values = {"severity": "MAJOR", "start_ms": number, "end_ms": number, "type": f"type {number}", **fields}
    return Alarm(id=f"alarm-{number:04}", tenant="acme", device=device, **values)


async def put(wire: Wire, *known: Alarm) -> None:
    """What the worker's commit writes for active alarms."""
    for one in known:
        keys = all_keys(PARTITIONS)[partition_of(one.tenant, one.device, PARTITIONS)]
        table = keys.state(alarms.TABLE, one.device)
        name = alarms.past_field(one.id) if one.cleared_ms else alarms.active_field(one.type)
        await wire.execute(
            [
                ("HSET", table, name, encode(one)),
                (
                    "ZADD",
                    keys.index(alarms.INDEX, one.tenant),
                    one.start_ms,
                    alarms.member(one.device, one.type, one.id),
                ),
            ]
        )


async def all_pages(store: AlarmStore, limit: int, **filters: object) -> list[str]:
    ids: list[str] = []
    cursor = ""
    while True:
        page = await store.list("acme", limit=limit, cursor=cursor, **filters)
        assert len(page.alarms) <= limit
        ids += [one.id for one in page.alarms]
        cursor = page.cursor
        if not cursor:
            return ids


async def test_pages_over_all_partitions_are_the_whole_list_newest_first(wire: Wire) -> None:
    known = [alarm(n, f"device-{n % 7}") for n in range(60)]
    await put(wire, *known)
    store = AlarmStore(wire, PARTITIONS)
    expected = [one.id for one in reversed(known)]
    for limit in (1, 7, 60, 100):
        assert await all_pages(store, limit) == expected


async def test_alarms_of_one_millisecond_are_not_lost_between_pages(wire: Wire) -> None:
    known = [alarm(n, f"device-{n % 5}", start_ms=1000, type="same") for n in range(23)]
    await put(wire, *[alarm(n, f"d-{n}", start_ms=1000, type="same") for n in range(23)])
    found = await all_pages(AlarmStore(wire, PARTITIONS), 4)
    assert sorted(found) == [one.id for one in known]


async def test_a_walk_reads_on_where_one_partition_holds_more_than_one_reading(wire: Wire) -> None:
    key = all_keys(PARTITIONS)[0].index("toy", "acme")
    count = AT_ONCE * 2 + 3
    await wire.execute([("ZADD", key, 7, f"m{i:05}") for i in range(count)])
    walk = MergedIndex(wire, [key])
    first = await walk.next(AT_ONCE + 1)
    rest = await MergedIndex(wire, [key], first[-1].cursor()).next(count)
    assert [entry.member.decode() for entry in [*first, *rest]] == [f"m{i:05}" for i in reversed(range(count))]


async def test_filters_by_status_and_device(wire: Wire) -> None:
    await put(
        wire, alarm(1), alarm(2, acked_ms=5), alarm(3, "d2"), alarm(4, cleared_ms=9), alarm(5, "d2", cleared_ms=9)
    )
    store = AlarmStore(wire, PARTITIONS)
    assert await all_pages(store, 10, statuses=["ACTIVE_UNACK"]) == ["alarm-0003", "alarm-0001"]
    assert await all_pages(store, 1, statuses=["ACTIVE_ACK", "CLEARED_UNACK"], device="d1") == [
        "alarm-0004",
        "alarm-0002",
    ]


@pytest.mark.parametrize("count", [1, 9, 10, 50, 400, 10_000])
async def test_the_newest_of_some_devices(wire: Wire, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(alarm_store, "FIELDS_AT_ONCE", 20)
    monkeypatch.setattr(alarm_store, "DEVICES_AT_ONCE", 3)
    # One device with much of a past, others with little, three of each that began in one millisecond.
    known = [
        alarm(n, "much" if n % 4 else f"d{n % 5}", start_ms=n // 3, cleared_ms=n % 7 and n + 1, acked_ms=n % 3)
        for n in range(1, 400)
    ]
    await put(wire, *known, *[alarm(n, "foreign") for n in range(3)])
    store = AlarmStore(wire, PARTITIONS)
    devices = ["much", *(f"d{n}" for n in range(5)), "none"]
    for wanted in (lambda _: True, lambda alarm: alarm.active, lambda alarm: not alarm.acked_ms, lambda _: False):
        expected = sorted(filter(wanted, known), key=lambda alarm: (-alarm.start_ms, alarm.id))
        last_ms = expected[count - 1].start_ms if count <= len(expected) else 0
        found = await store.of_devices("acme", devices, count, wanted)
        assert found == [alarm for alarm in expected if alarm.start_ms >= last_ms]
    assert await store.of_devices("acme", [], count, lambda _: True) == []
    assert await store.of_devices("other", devices, count, lambda _: True) == []


async def test_an_operators_word_counts_in_the_list_of_a_device_too(wire: Wire) -> None:
    await put(wire, alarm(1), alarm(2), alarm(3))
    store = AlarmStore(wire, PARTITIONS)
    await store.acknowledge("acme", "d1", "alarm-0001")
    await store.clear("acme", "d1", "alarm-0002")
    found = await store.of_devices("acme", ["d1"], 10, lambda _: True)
    assert [alarm.status for alarm in found] == ["ACTIVE_UNACK", "CLEARED_UNACK", "ACTIVE_ACK"]


async def test_an_operator_acknowledges_and_clears(wire: Wire) -> None:
    await put(wire, alarm(1))
    store = AlarmStore(wire, PARTITIONS)
    acked = await store.acknowledge("acme", "d1", "alarm-0001", "ann")
    assert (acked.status, acked.acked_by) == ("ACTIVE_ACK", "ann")
    again = await store.acknowledge("acme", "d1", "alarm-0001", "bob")
    assert again == acked
    cleared = await store.clear("acme", "d1", "alarm-0001", "bob")
    assert (cleared.status, cleared.cleared_by) == ("CLEARED_ACK", "bob")
    assert await store.get("acme", "d1", "alarm-0001") == cleared
    assert (await store.list("acme")).alarms == [cleared]


async def test_what_is_not_there_is_not_found(wire: Wire) -> None:
    await put(wire, alarm(1))
    store = AlarmStore(wire, PARTITIONS)
    for attempt in (store.get, store.acknowledge, store.clear):
        for tenant, device, id in (("other", "d1", "alarm-0001"), ("acme", "d2", "alarm-0001"), ("acme", "d1", "x")):
            with pytest.raises(NotFound):
                await attempt(tenant, device, id)


@pytest.mark.parametrize("cursor", ["!", "AAAA", "gqFh", "é"])
async def test_text_that_is_no_cursor_is_refused(wire: Wire, cursor: str) -> None:
    with pytest.raises(BadInput, match="not a cursor"):
        await AlarmStore(wire, PARTITIONS).list("acme", cursor=cursor)


async def test_forgetting_a_device_takes_its_alarms_off_the_list_and_leaves_others(wire: Wire) -> None:
    await put(wire, alarm(1), alarm(2, cleared_ms=3), alarm(3, "d2"))
    await forget_device(wire, PARTITIONS, "acme", "d1")
    await forget_device(wire, PARTITIONS, "acme", "d1")
    assert await all_pages(AlarmStore(wire, PARTITIONS), 10) == ["alarm-0003"]
    with pytest.raises(NotFound):
        await AlarmStore(wire, PARTITIONS).get("acme", "d1", "alarm-0001")
