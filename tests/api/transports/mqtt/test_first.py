"""Publications that have to wait for something before they can be stored."""

import asyncio

import pytest

from api.transports.mqtt.dialect import Drop
from api.transports.mqtt.packets import Puback, Publish
from api.transports.mqtt.reasons import Reason
from engine.errors import BadInput, Refused
from tests.api.transports.mqtt.harness import CloseReason, MemoryStore, Site, until

pytestmark = pytest.mark.asyncio


def said(topic, payload, packet_id):
    return Publish(topic, payload, 1, packet_id, False, False)


async def connected(site, *firsts):
    client = await site.client()
    assert (await client.login(client_id=f"c{len(site.dialect.logins)}")).code == 0
    login = site.dialect.logins[-1]
    login.firsts += firsts
    return client, login


async def test_nothing_of_the_connection_overtakes_what_waits_and_nobody_else_waits():
    async with Site() as site:
        gate = asyncio.Event()
        client, login = await connected(site, gate)
        other, _ = await connected(site)
        client.say(said("dev/a", b"1", 1), said("dev/first", b"2", 2), said("dev/a", b"3", 3))
        client.say(said("dev/a", b"4", 4))
        await until(lambda: not login.firsts)
        other.say(said("dev/a", b"other", 9))
        assert await other.hear() == Puback(9)
        assert site.store.payloads == [b"other"]
        gate.set()
        assert [await client.hear() for _ in range(4)] == [Puback(i) for i in (1, 2, 3, 4)]
        assert site.store.payloads == [b"other", b"1", b"2", b"3", b"4"]


async def test_several_in_one_batch_keep_their_places_through_refusals():
    async with Site() as site:
        gate = asyncio.Event()
        gate.set()
        client, login = await connected(site, gate, Refused("not now", 0), Refused("not now", 0), gate, gate)
        client.say(*[said("dev/first" if i in (2, 3, 5) else "dev/a", b"%d" % i, i) for i in range(1, 7)])
        assert [await client.hear() for _ in range(6)] == [Puback(i) for i in range(1, 7)]
        assert site.store.payloads == [b"1", b"2", b"3", b"4", b"5", b"6"]
        assert login.firsts == []


async def test_one_that_turns_out_wrong_closes_and_what_came_before_it_is_stored(caplog):
    async with Site() as site:
        client, login = await connected(site, BadInput("no such thing", "/x"))
        client.say(said("dev/a", b"1", 1), said("dev/first", b"2", 2), said("dev/a", b"3", 3))
        assert await client.hear() is None
        await until(lambda: login.events[-1:] == [CloseReason.FORBIDDEN])
        assert site.store.payloads == [b"1"]
        assert "/x: no such thing" in caplog.text


async def test_what_was_stored_before_a_wrong_one_has_its_consequences_and_nothing_else_has():
    async with Site() as site:
        client, login = await connected(site, Drop("two of three"), BadInput("no such thing", "/x"))
        topics = ["dev/a", "dev/first", "dev/b", "dev/first", "dev/c"]
        client.say(*[said(topic, b"%d" % i, i) for i, topic in enumerate(topics, 1)])
        assert await client.hear() is None
        await until(lambda: CloseReason.FORBIDDEN in login.events and site.store.payloads == [b"1", b"2", b"3"])
        after = [event for event in login.events if event.startswith("stored")]
        assert after == ["stored 1", "stored a part", "stored 3"]


@pytest.mark.parametrize(
    ("error", "told"), [(RuntimeError("a bug"), "a bug"), (asyncio.CancelledError(), "waited for was given up")]
)
async def test_one_that_fails_closes_its_own_connection_only(error, told, caplog):
    async with Site() as site:
        client, login = await connected(site, error)
        other, _ = await connected(site)
        client.say(said("dev/first", b"1", 1))
        assert await client.hear() is None
        await until(lambda: login.events[-1:] == [CloseReason.FAULT])
        other.say(said("dev/a", b"2", 2))
        assert await other.hear() == Puback(2)
        assert told in caplog.text
        await until(lambda: len(site.server._connections) == 1)


async def test_what_came_before_one_that_fails_is_stored():
    async with Site() as site:
        client, _ = await connected(site, RuntimeError("a bug"))
        before = Publish("dev/a", b"sent once only", 0, 0, False, False)
        client.say(before, said("dev/a", b"1", 1), said("dev/first", b"2", 2), said("dev/a", b"3", 3))
        assert await client.hear() is None
        await until(lambda: site.store.payloads == [b"sent once only", b"1"])
        assert site.server.counters.dropped == 0


async def test_what_is_under_way_is_finished_when_the_client_leaves():
    async with Site(store=MemoryStore()) as site:
        gate = asyncio.Event()
        client, login = await connected(site, gate)
        client.say(said("dev/first", b"1", 1))
        await until(lambda: not login.firsts)
        await client.close()
        await until(lambda: login.events[-1:] == [CloseReason.LOST])
        gate.set()
        await until(lambda: site.store.payloads == [b"1"])


@pytest.mark.parametrize("level", [4, 5])
async def test_a_client_of_level_5_is_told_what_part_is_not_stored(level, caplog):
    async with Site() as site:
        client = await site.client()
        assert (await client.login(level=level)).code == 0
        login = site.dialect.logins[-1]
        gate = asyncio.Event()
        gate.set()
        login.firsts += [
            Drop("two of three"),
            Refused("not now", 0),
            Drop("three of four", Reason.QUOTA_EXCEEDED),
            gate,
        ]
        topics = ["dev/a", "dev/first", "dev/part", "dev/first", "dev/a", "dev/first"]
        client.say(*[said(topic, b"%d" % i, i) for i, topic in enumerate(topics, 1)])
        answers = [await client.hear() for _ in topics]
        codes = [0, 0x99, 0x99, 0x97, 0, 0] if level == 5 else [0] * 6
        assert [(answer.packet_id, answer.reason) for answer in answers] == list(enumerate(codes, 1))
        if level == 5:
            assert [answer.properties.reason for answer in answers[1:4]] == [
                "two of three",
                "one of two",
                "three of four",
            ]
        assert site.store.payloads == [b"1", b"2", b"3", b"4", b"5", b"6"]
        await until(lambda: login.events.count("stored a part") == 2)
        assert "part of a publication was refused: two of three" in caplog.text
