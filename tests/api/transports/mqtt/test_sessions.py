"""Persistent sessions in a real Redis, and client ids taken over, in one process and across two."""

import asyncio

import pytest

from api.transports.mqtt.encoding import encode
from api.transports.mqtt.outgoing import Queued
from api.transports.mqtt.packets import (
    Connack,
    Disconnect,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsubscribe,
)
from api.transports.mqtt.sessions import Holder, SessionStore
from engine.errors import BadInput
from tests.api.transports.mqtt.harness import CloseReason, PlainDialect, Site, publication, until

pytestmark = pytest.mark.asyncio


async def gone(site):
    await until(lambda: not site.server._connections)


@pytest.mark.spec("G-11")
async def test_a_persistent_session_comes_back_with_its_subscriptions(redis):
    async with Site(SessionStore(redis)) as site:
        client = await site.client()
        assert await client.login(clean=False) == Connack(False, 0)
        assert await client.subscribe("dev/a") == Suback(99, b"\x01")
        await client.subscribe("dev/b")
        client.say(Unsubscribe(3, ("dev/b",)))
        await client.hear()
        client.say(Disconnect())
        await gone(site)
        client = await site.client()
        assert await client.login(clean=False) == Connack(True, 0)
        assert site.dialect.logins[1].events == ["connected", "subscribed dev/a 1"]
        assert site.server.send("d1", "dev/a", b"x") == 1
        assert site.server.send("d1", "dev/b", b"x") == 0
        assert await client.hear() == Publish("dev/a", b"x", 1, 1)
        client.say(Puback(1), Disconnect())
        await gone(site)
        client = await site.client()
        assert await client.login(clean=True) == Connack(False, 0)
        client.say(Disconnect())
        await gone(site)
        client = await site.client()
        assert await client.login(clean=False) == Connack(False, 0)


@pytest.mark.spec("G-11")
async def test_what_was_not_acknowledged_is_sent_again_with_dup(redis):
    async with Site(SessionStore(redis)) as site:
        client = await site.logged_in(clean=False)
        await client.subscribe("dev/a")
        for payload in (b"1", b"2", b"3"):
            site.server.send("d1", "dev/a", payload)
        sent = await client.hear_many(3)
        client.say(Puback(sent[0].packet_id))
        client.say(Pingreq())
        assert await client.hear() == Pingresp()
        await client.close()
        await gone(site)
        assert await site.server.enqueue("d1", "dev/a", b"4") == 1
        assert await site.server.enqueue("d1", "dev/b", b"unwanted") == 0
        client = await site.client()
        assert await client.login(clean=False) == Connack(True, 0)
        assert await client.hear_many(3) == [
            Publish("dev/a", b"2", 1, 2, dup=True),
            Publish("dev/a", b"3", 1, 3, dup=True),
            Publish("dev/a", b"4", 1, 4),
        ]
        assert await site.server.enqueue("d1", "dev/a", b"it is connected") == 0
        client.say(Puback(2), Puback(3), Puback(4), Pingreq())
        assert await client.hear() == Pingresp()
        async with asyncio.timeout(5):
            while await redis.exists("rm:{reg}:session:d1:c1:queue"):
                await asyncio.sleep(0.005)


@pytest.mark.spec("G-11")
async def test_a_session_keeps_a_hundred_publications_for_a_day(redis):
    store = SessionStore(redis)
    async with Site(store) as site:
        client = await site.logged_in(clean=False)
        await client.subscribe("dev/#")
        client.say(Disconnect())
        await gone(site)
        for i in range(103):
            assert await site.server.enqueue("d1", "dev/a", b"%d" % i) == 1
        assert await site.server.enqueue("d1", "dev/a", b"never kept", qos=0) == 0
        assert site.server.counters.dropped == 3
        for key in (b"rm:{reg}:session:d1:c1", b"rm:{reg}:session:d1:c1:queue"):
            assert 86_000 < await redis.ttl(key) <= 86_400
        client = await site.logged_in(clean=False)
        assert [packet.payload for packet in await client.hear_many(100)] == [b"%d" % i for i in range(3, 103)]
        site.server.send("d1", "dev/a", b"waits behind them")
        await client.close()
        await gone(site)
        assert site.server.counters.dropped == 4
        assert await redis.llen(b"rm:{reg}:session:d1:c1:queue") == 100


async def test_qos_2_is_stored_once_over_a_reconnect(redis):
    async with Site(SessionStore(redis)) as site:
        client = await site.logged_in(clean=False)
        client.say(publication(b"one", 5, qos=2))
        assert await client.hear() == Pubrec(5)
        await client.close()
        await gone(site)
        client = await site.logged_in(clean=False)
        client.say(publication(b"one", 5, qos=2, dup=True), Pubrel(5))
        assert await client.hear_many(2) == [Pubrec(5), Pubcomp(5)]
        await client.close()
        await gone(site)
        client = await site.logged_in(clean=False)
        client.say(publication(b"two", 5, qos=2))
        assert await client.hear() == Pubrec(5)
        assert site.store.payloads == [b"one", b"two"]


async def test_qos_2_that_was_stored_while_the_client_was_away_is_known_when_it_returns(redis):
    async with Site(SessionStore(redis)) as site:
        site.store.manual = True
        client = await site.logged_in(clean=False)
        client.say(publication(b"one", 5, qos=2))
        await until(lambda: site.store.waiting)
        await client.close()
        client = await site.client()
        login = asyncio.create_task(client.login(clean=False))
        await asyncio.sleep(0.05)
        assert not login.done()
        site.store.store()
        assert await login == Connack(True, 0)
        client.say(publication(b"one", 5, qos=2, dup=True))
        assert await client.hear() == Pubrec(5)
        assert site.store.payloads == [b"one"]


@pytest.mark.spec("G-29")
@pytest.mark.parametrize("clean", [True, False])
async def test_a_second_connection_of_a_client_id_closes_the_first(redis, clean):
    async with Site(SessionStore(redis)) as site:
        first = await site.logged_in(clean=clean)
        stranger = await site.logged_in(username="d2", clean=clean)
        sibling = await site.logged_in(client_id="c2", clean=clean)
        second = await site.logged_in(clean=clean)
        assert await first.hear() is None
        assert site.dialect.logins[0].events[-1] == CloseReason.TAKEN_OVER
        for client in (stranger, sibling, second):
            client.say(Pingreq())
            assert await client.hear() == Pingresp()
        assert len(site.server.clients("d1")) == 2


@pytest.mark.spec("G-29")
@pytest.mark.parametrize("clean", [True, False])
async def test_a_client_id_is_taken_over_from_another_process(redis, clean):
    async with Site(SessionStore(redis)) as here, Site(SessionStore(redis)) as there:
        await until_listening(redis, 2)
        first = await here.logged_in(clean=clean)
        await first.subscribe("dev/a")
        here.server.send("d1", "dev/a", b"in flight")
        assert await first.hear() == Publish("dev/a", b"in flight", 1, 1)
        second = await there.client()
        assert await second.login(clean=clean) == Connack(not clean, 0)
        assert await first.hear() is None
        await gone(here)
        if clean:
            second.say(Pingreq())
            assert await second.hear() == Pingresp()
        else:
            assert await second.hear() == Publish("dev/a", b"in flight", 1, 1, dup=True)
        assert len(there.server.clients("d1")) == 1


async def until_listening(redis, count):
    async with asyncio.timeout(5):
        while (await redis.pubsub_numsub("rm:takeover"))[0][1] < count:
            await asyncio.sleep(0.005)


async def test_many_connections_of_one_client_id_at_once_leave_one(redis):
    async with Site(SessionStore(redis)) as site:
        clients = [await site.client() for _ in range(5)]
        answers = await asyncio.gather(*[c.login(clean=False) for c in clients], return_exceptions=True)
        assert [a for a in answers if isinstance(a, Connack)]
        await until(lambda: len(site.server._connections) == 1)
        assert len(site.server.clients("d1")) == 1


async def test_a_session_whose_owner_is_silent_is_taken_and_the_old_owner_writes_no_more(redis, monkeypatch):
    monkeypatch.setattr("api.transports.mqtt.sessions.RELEASE_WAIT_S", 0.1)
    store = SessionStore(redis)
    old, new = Holder("s", "c", "old"), Holder("s", "c", "new")
    await store.open(old, clean=False)
    assert await store.apply(old, {"s:a": b"1", "q:7": b"1"})
    opened = await store.open(new, clean=False)
    assert (opened.present, dict(opened.subscriptions), opened.received) == (True, {"a": 1}, {7})
    assert not await store.apply(old, {"s:a": b""})
    await store.leave(old, [Queued("a", b"stale", 1)])
    await store.leave(new, [Queued("a", b"kept", 1, 3)])
    again = await store.open(old, clean=False)
    assert again.queue == [Queued("a", b"kept", 1, 3)]
    assert again.subscriptions == {"a": 1}
    assert again.number > opened.number


async def test_the_beat_finds_out_who_lost_its_session(redis):
    store, lost = SessionStore(redis, beat_s=0.02), []
    mine, other = Holder("s", "mine", "o1"), Holder("s", "other", "o2")
    for holder in (mine, other):
        await store.open(holder, clean=False)
    await redis.hset("rm:{reg}:session:s:other", "owner", "somebody else")
    await redis.expire("rm:{reg}:session:s:mine", 10)
    store.start(lambda *_: None, lambda: [mine, other], lost.append)
    await until(lambda: lost)
    await store.stop()
    assert set(lost) == {other}
    assert await redis.ttl("rm:{reg}:session:s:mine") > 10


@pytest.mark.parametrize("odd", ["a:b", "a/+/#", "{x}", "a b\n", "é😀", ":queue", "%3A", "x" * 300])
async def test_odd_client_ids_have_sessions_of_their_own(redis, odd):
    async with Site(SessionStore(redis)) as site:
        for client_id in (odd, "plain"):
            client = await site.logged_in(client_id=client_id, clean=False, username=odd)
            await client.subscribe(f"dev/{client_id[:1].encode().hex()}")
            client.say(Disconnect())
        await gone(site)
        assert await site.server.enqueue(odd, f"dev/{odd[:1].encode().hex()}", b"x") == 1
        client = await site.client()
        assert await client.login(client_id=odd, clean=False, username=odd) == Connack(True, 0)
        assert (await client.hear()).payload == b"x"


async def test_the_session_unused_for_longest_goes_first(redis, monkeypatch):
    monkeypatch.setattr("api.transports.mqtt.sessions.MAX_SESSIONS", 2)
    store = SessionStore(redis)
    for i in range(3):
        holder = Holder("s", f"c{i}", "o")
        await store.open(holder, clean=False)
        await store.leave(holder, [Queued("a", b"x", 1)])
        await asyncio.sleep(0.002)
    assert [(await store.open(Holder("s", f"c{i}", "o"), clean=False)).present for i in (1, 2, 0)] == [
        True,
        True,
        False,
    ]


async def test_a_dialect_may_rule_persistent_sessions_out(redis):
    async with Site(SessionStore(redis), dialect=PlainDialect(may_persist=False)) as site:
        for _ in range(2):
            client = await site.client()
            assert await client.login(clean=False) == Connack(False, 0)
            client.say(Disconnect())
            await gone(site)
        assert await redis.keys("rm:{reg}:session:*") == []


async def test_without_redis_a_login_is_unavailable_and_a_subscription_waits(redis):
    class Moody(SessionStore):
        down = False

        async def apply(self, holder, changes):
            if self.down:
                raise ConnectionError("down")
            return await super().apply(holder, changes)

        async def open(self, holder, *, clean):
            if self.down:
                raise ConnectionError("down")
            return await super().open(holder, clean=clean)

    store = Moody(redis)
    async with Site(store) as site:
        client = await site.logged_in(clean=False)
        store.down = True
        other = await site.client()
        assert await other.login(client_id="c2") == Connack(False, 3)
        client.say(publication(b"2", 2, qos=2))
        await until(lambda: site.server.counters.refused)
        assert site.store.payloads == [b"2"]
        store.down = False
        assert await client.hear() == Pubrec(2)
        assert site.store.payloads == [b"2"]


async def test_of_a_batch_that_ends_early_only_what_is_stored_counts_as_received(redis):
    async with Site(SessionStore(redis)) as site:
        client = await site.logged_in(clean=False)
        site.dialect.logins[-1].firsts += [BadInput("no such thing", "/x")]
        wrong = publication(b"2", 2, qos=2, topic="dev/first")
        behind = [publication(b"3", 3, qos=2), Unsubscribe(4, ("dev/a",)), Subscribe(5, (("dev/b", 1),))]
        before = [publication(b"1", 1, qos=2), Subscribe(6, (("dev/a", 1),))]
        client.say(b"".join(map(encode, [*before, wrong, *behind])))
        assert await client.hear() is None
        await gone(site)
        client = await site.client()
        assert await client.login(clean=False) == Connack(True, 0)
        client.say(publication(b"1", 1, qos=2, dup=True), publication(b"3", 3, qos=2, dup=True))
        assert await client.hear_many(2) == [Pubrec(1), Pubrec(3)]
        assert site.store.payloads == [b"1", b"3"]
        assert site.dialect.logins[-1].events == ["connected", "subscribed dev/a 1", "stored 3"]


async def test_a_session_that_cannot_be_written_ends_its_connection_and_denies_nothing_that_is_stored(redis, caplog):
    class Broken(SessionStore):
        async def apply(self, holder, changes):
            raise RuntimeError("a bug")

    async with Site(Broken(redis)) as site:
        client = await site.logged_in(clean=False)
        client.say(publication(b"1", 0, qos=0), publication(b"2", 2, qos=2))
        assert await client.hear() is None
        await gone(site)
        assert site.store.payloads == [b"1", b"2"]
        assert site.dialect.logins[-1].events[-1] == CloseReason.FAULT
        assert site.server.counters.dropped == 0
        assert "a bug" in caplog.text
