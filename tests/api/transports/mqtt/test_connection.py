"""One connection on a real socket, byte by byte: logging in, publishing, being answered."""

import asyncio
import logging
import struct

import pytest

from api.transports.mqtt.encoding import encode
from api.transports.mqtt.packets import (
    Connack,
    Connect,
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
    Unsuback,
    Unsubscribe,
    Will,
)
from api.transports.mqtt.settings import Settings
from engine.errors import Refused, Unconfirmed
from tests.api.transports.mqtt.harness import CloseReason, MemoryStore, PlainDialect, Site, publication, until

pytestmark = pytest.mark.asyncio


# Logging in.


@pytest.mark.spec("G-10")
@pytest.mark.parametrize("level", [3, 4])
async def test_login(level):
    async with Site() as site:
        client = await site.client()
        assert await client.login(level=level) == Connack(False, 0)
        assert site.dialect.peers[0].listener == "mqtt"
        assert site.dialect.logins[0].session.client_id == "c1"
        assert site.server.counters.read()["connections"] == 1


@pytest.mark.spec("G-10")
@pytest.mark.parametrize(
    ("connect", "code"),
    [
        (Connect(client_id="c", username="d1", password=b"wrong"), 4),
        (Connect(level=2), 1),
        (Connect(level=4, clean=False, username="d1", password=b"secret"), 2),
        (Connect(level=3, clean=True, username="d1", password=b"secret"), 2),
    ],
)
async def test_refused_logins_are_told_why_and_closed(connect, code):
    async with Site() as site:
        client = await site.client()
        client.say(connect)
        assert await client.hear() == Connack(False, code)
        assert await client.hear() is None
        assert site.server.counters.opened == 0


async def test_an_empty_client_id_gets_one_of_its_own():
    async with Site() as site:
        first, second = await site.logged_in(client_id=""), await site.logged_in(client_id="")
        for client in (first, second):
            client.say(Pingreq())
            assert await client.hear() == Pingresp()


async def test_a_login_that_breaks_or_takes_too_long_is_answered_as_unavailable(caplog):
    class Broken(PlainDialect):
        async def login(self, connect, peer):
            if connect.username == "slow":
                await asyncio.sleep(60)
            raise RuntimeError("no registry")

    async with Site(dialect=Broken(), settings=Settings(login_s=0.1)) as site:
        for username in ("slow", "broken"):
            client = await site.client()
            assert await client.login(username=username) == Connack(False, 3)
            assert await client.hear() is None
    assert "no registry" in caplog.text


async def test_what_follows_connect_in_the_same_bytes_waits_for_the_login():
    async with Site() as site:
        site.dialect.gate = asyncio.Event()
        client = await site.client()
        client.say(Connect(client_id="c", username="d", password=b"secret"), publication(b"1", 1), publication(b"2", 2))
        await until(lambda: site.dialect.peers)
        assert site.store.calls == 0
        site.dialect.gate.set()
        assert await client.hear_many(3) == [Connack(False, 0), Puback(1), Puback(2)]
        assert site.store.payloads == [b"1", b"2"]


async def test_bytes_one_at_a_time():
    async with Site() as site:
        client = await site.client()
        raw = encode(Connect(client_id="c", username="d", password=b"secret")) + encode(publication(b"x" * 200, 7))
        for i in range(len(raw)):
            client.say(raw[i : i + 1])
            await asyncio.sleep(0)
        assert await client.hear_many(2) == [Connack(False, 0), Puback(7)]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP"),
        pytest.param(encode(Pingreq()), id="PINGREQ first"),
        pytest.param(b"\x10\xff\xff\xff\x7f", id="a CONNECT of 256 MiB"),
        pytest.param(b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x02\xc3\x28", id="client id not UTF-8"),
        pytest.param(b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x02a\0", id="NUL in the client id"),
    ],
)
async def test_a_bad_first_packet_closes_with_a_log_line(raw, caplog):
    async with Site() as site:
        client = await site.client()
        client.say(raw)
        assert await client.hear() is None
        await until(lambda: site.server.counters.connections == 0)
        assert site.server.counters.malformed == 1
    assert "protocol error" in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_client_that_says_nothing_is_closed():
    async with Site(settings=Settings(connect_s=0.05)) as site:
        client = await site.client()
        assert await client.hear() is None


async def test_too_many_connections():
    async with Site(settings=Settings(max_connections=1)) as site:
        first = await site.logged_in()
        second = await site.client()
        assert await second.hear() is None
        first.say(Pingreq())
        assert await first.hear() == Pingresp()


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(encode(Connect(client_id="c1", username="d1", password=b"secret")), id="a second CONNECT"),
        pytest.param(b"\x20\x02\0\0", id="a server's packet"),
        pytest.param(b"\x32\x05\0\x01a\0\0", id="packet id 0"),
        pytest.param(b"\x82\x06\0\x01\0\x01+\x07", id="QoS 7"),
    ],
)
async def test_malformed_packets_close_and_what_came_before_is_stored(raw, caplog):
    async with Site() as site:
        client = await site.logged_in()
        client.say(publication(b"good", qos=0), raw)
        assert await client.hear() is None
        await until(lambda: CloseReason.PROTOCOL in site.dialect.logins[0].events)
        assert site.store.payloads == [b"good"]
    assert "Traceback" not in caplog.text


@pytest.mark.spec("G-12")
async def test_a_payload_over_the_dialects_limit_closes():
    async with Site(dialect=PlainDialect(max_payload=1000)) as site:
        client = await site.logged_in()
        client.say(publication(b"x" * 1000, 1))
        assert await client.hear() == Puback(1)
        client.say(publication(b"x" * 1001, 2))
        assert await client.hear() is None
        assert len(site.store.stored) == 1


# Publishing.


@pytest.mark.spec("G-20")
async def test_the_acknowledgement_waits_for_the_store():
    async with Site() as site:
        site.store.manual = True
        client = await site.logged_in()
        client.say(publication(b"1", 1), publication(b"2", 2, qos=2), Pingreq())
        assert await client.hear() == Pingresp()
        assert site.store.waiting == [b"1", b"2"]
        assert site.dialect.logins[0].events == ["connected"]
        site.store.store()
        assert await client.hear_many(2) == [Puback(1), Pubrec(2)]
        assert site.dialect.logins[0].events[1:] == ["stored 1", "stored 2"]


@pytest.mark.spec("G-22")
async def test_acknowledgements_leave_in_order_over_many_flushes():
    async with Site() as site:
        site.store.manual = True
        client = await site.logged_in()
        for start in range(1, 301, 50):
            for i in range(start, start + 50):
                client.say(publication(b"%d" % i, i, qos=1 + i % 2, topic="dev/drop" if i % 7 == 0 else "dev/data"))
            await asyncio.sleep(0.01)
        answers = []
        while len(answers) < 300:
            await until(lambda: site.store.waiting)
            site.store.store()
            answers += [await client.hear()]
            while client._packets:
                answers.append(await client.hear())
        assert answers == [Pubrec(i) if i % 2 else Puback(i) for i in range(1, 301)]
        assert site.store.payloads == [b"%d" % i for i in range(1, 301) if i % 7]
        assert site.store.calls < 20


async def test_qos_0_is_stored_and_not_answered():
    async with Site() as site:
        client = await site.logged_in()
        client.say(publication(b"0", qos=0), Pingreq())
        assert await client.hear() == Pingresp()
        assert site.store.payloads == [b"0"]
        counters = site.server.counters
        assert (counters.received, counters.acked, counters.bytes_received > 20) == (1, 0, True)


async def test_qos_0_right_before_disconnect_is_not_lost():
    async with Site() as site:
        site.store.manual = True
        client = await site.logged_in()
        client.say(publication(b"0", qos=0))
        await until(lambda: site.store.waiting)
        client.say(publication(b"1", qos=0), Disconnect())
        assert await client.hear() is None
        site.store.store()
        await until(lambda: site.store.waiting)
        site.store.store()
        assert site.store.payloads == [b"0", b"1"]
        assert CloseReason.DISCONNECT in site.dialect.logins[0].events


async def test_one_publication_may_be_many_messages():
    async with Site() as site:
        client = await site.logged_in()
        client.say(publication(b"m", 1, topic="dev/many"))
        assert await client.hear() == Puback(1)
        assert len(site.store.stored) == 3


async def test_the_dialect_may_answer_by_itself():
    async with Site() as site:
        client = await site.logged_in()
        assert await client.subscribe("dev/echoed") == Suback(99, b"\x01")
        client.say(publication(b"hi", 5, topic="dev/echo"))
        assert await client.hear_many(2) == [Publish("dev/echoed", b"hi", 1, 1), Puback(5)]
        assert site.store.calls == 0


@pytest.mark.spec("G-10")
async def test_publications_outside_the_tree():
    async with Site() as site:
        client = await site.logged_in()
        client.say(publication(b"1", 1, topic="dev/drop"))
        assert await client.hear() == Puback(1)
        client.say(publication(b"2", 2), publication(b"3", 3, topic="other"), publication(b"4", 4))
        assert await client.hear() in (Puback(2), None)
        assert await client.hear() is None
        assert site.store.payloads == [b"2"]
        assert site.dialect.logins[0].events[-1] == CloseReason.FORBIDDEN


async def test_a_dialect_with_a_bug_hurts_its_own_connection_only(caplog):
    async with Site() as site:
        other = await site.logged_in(client_id="other")
        client = await site.logged_in()
        client.say(publication(b"1", 1, topic="dev/bug"))
        assert await client.hear() is None
        other.say(publication(b"2", 2))
        assert await other.hear() == Puback(2)
    assert "a dialect with a bug" in caplog.text


# Exactly once.


async def test_qos_2_is_stored_once_until_it_is_released():
    async with Site() as site:
        site.store.manual = True
        client = await site.logged_in()
        client.say(publication(b"first", 9, qos=2))
        await until(lambda: site.store.waiting)
        client.say(publication(b"first", 9, qos=2, dup=True), Pingreq())
        assert await client.hear() == Pingresp()
        site.store.store()
        assert await client.hear_many(2) == [Pubrec(9), Pubrec(9)]
        site.store.manual = False
        client.say(publication(b"first", 9, qos=2, dup=True), Pubrel(9), Pubrel(9))
        assert await client.hear_many(3) == [Pubrec(9), Pubcomp(9), Pubcomp(9)]
        client.say(publication(b"second", 9, qos=2))
        assert await client.hear() == Pubrec(9)
        assert site.store.payloads == [b"first", b"second"]


# A store that refuses.


@pytest.mark.parametrize("kind", [Refused, Unconfirmed])
async def test_refused_messages_are_submitted_again_in_order(kind):
    async with Site() as site:
        site.store.refusals = [kind("full", 0), kind("full", 0), kind("full", 0)]
        client = await site.logged_in()
        for i in range(1, 101):
            client.say(publication(b"%d" % i, i))
            if i % 10 == 0:
                await asyncio.sleep(0.002)
        assert await client.hear_many(100) == [Puback(i) for i in range(1, 101)]
        assert site.store.payloads == [b"%d" % i for i in range(1, 101)]
        assert site.server.counters.refused == 3


async def test_a_refusal_in_flight_keeps_later_messages_behind():
    async with Site() as site:
        site.store.manual = True
        client = await site.logged_in()
        client.say(publication(b"1", 1))
        await until(lambda: site.store.waiting == [b"1"])
        client.say(publication(b"2", 2), Pingreq())
        assert await client.hear() == Pingresp()
        assert site.store.waiting == [b"1"]
        site.store.refuse()
        await until(lambda: site.store.waiting == [b"1"])
        site.store.store()
        await until(lambda: site.store.waiting == [b"2"])
        site.store.store()
        assert await client.hear_many(2) == [Puback(1), Puback(2)]
        assert site.store.payloads == [b"1", b"2"]


async def test_while_refused_the_socket_is_not_read():
    async with Site() as site:
        site.store.refusals = [Refused("full", 1)]
        client = await site.logged_in()
        client.say(publication(b"1", 1))
        await until(lambda: site.server.counters.refused)
        before = site.server.counters.bytes_received
        client.say(publication(b"2", 2), Pingreq())
        await asyncio.sleep(0.05)
        assert site.server.counters.bytes_received == before
        assert await client.hear_many(3) == [Puback(1), Pingresp(), Puback(2)]
        assert site.store.payloads == [b"1", b"2"]


async def test_unconfirmed_messages_are_bounded():
    async with Site(settings=Settings(max_unconfirmed=10)) as site:
        site.store.manual = True
        client = await site.logged_in()
        client.say(*[publication(b"%d" % i, i) for i in range(1, 11)])
        await until(lambda: len(site.store.waiting) == 10)
        before = site.server.counters.bytes_received
        client.say(publication(b"11", 11))
        await asyncio.sleep(0.05)
        assert site.server.counters.bytes_received == before
        site.store.store()
        assert await client.hear_many(10) == [Puback(i) for i in range(1, 11)]
        await until(lambda: site.store.waiting == [b"11"])


async def test_unconfirmed_bytes_are_bounded_at_qos_0_too():
    async with Site(settings=Settings(max_unconfirmed_bytes=10_000)) as site:
        site.store.manual = True
        client = await site.logged_in()
        client.say(*[publication(b"x" * 1000, qos=0) for _ in range(5000)])
        await until(lambda: site.store.waiting)
        await asyncio.sleep(0.05)
        held = site.server.counters.received
        assert held < 2000
        site.store.manual = False
        site.store.store()
        await until(lambda: len(site.store.stored) == 5000)


async def test_a_store_that_breaks_closes_without_an_answer(caplog):
    class Broken(MemoryStore):
        def submit(self, messages):
            future = asyncio.get_running_loop().create_future()
            future.set_exception(ValueError("cannot be written"))
            return future

    async with Site(store=Broken()) as site:
        client = await site.logged_in()
        client.say(publication(b"1", 1))
        assert await client.hear() is None
    assert "cannot be written" in caplog.text


async def test_a_client_that_leaves_during_a_refusal_is_let_go(caplog):
    async with Site() as site:
        site.store.refusals = [Refused("full", 0), Refused("full", 3600)]
        client = await site.logged_in()
        client.say(publication(b"1", qos=0), publication(b"2", 2))
        await until(lambda: site.server.counters.refused == 2)
        [connection] = site.server.clients("d1")
        connection.close(CloseReason.KICKED)
        assert await client.hear() is None
        await until(lambda: not site.server._connections)
        assert site.server.counters.dropped == 1
    assert "1 publications of QoS 0" in caplog.text


# Subscribing.


@pytest.mark.spec("G-10")
async def test_subscribe_and_unsubscribe():
    async with Site() as site:
        client = await site.logged_in()
        client.say(Subscribe(1, (("dev/a", 0), ("other/#", 1), ("dev/+", 2))))
        assert await client.hear() == Suback(1, b"\x00\x80\x01")
        assert site.dialect.logins[0].events[1:] == ["subscribed dev/a 0", "subscribed dev/+ 1"]
        session = site.dialect.logins[0].session
        assert session.send("dev/a", b"once", 2)
        assert session.send("dev/b", b"as sent", 0)
        assert not session.send("other/a", b"unwanted", 1)
        assert await client.hear_many(2) == [Publish("dev/a", b"once", 1, 1), Publish("dev/b", b"as sent")]
        client.say(Unsubscribe(2, ("dev/+", "dev/never")))
        assert await client.hear() == Unsuback(2)
        assert site.dialect.logins[0].events[-1] == "unsubscribed dev/+"
        assert session.send("dev/a", b"lower", 1)
        assert await client.hear() == Publish("dev/a", b"lower", 0)


async def test_what_a_subscription_brings_comes_after_its_suback():
    async with Site() as site:
        client = await site.logged_in()
        client.say(Subscribe(1, (("dev/commands", 1),)))
        assert await client.hear_many(2) == [Suback(1, b"\x01"), Publish("dev/commands", b"waiting since long", 1, 1)]


async def test_subscriptions_are_bounded():
    async with Site(settings=Settings(max_subscriptions=2, max_filter=10)) as site:
        client = await site.logged_in()
        client.say(Subscribe(1, (("dev/123456789", 1), ("dev/1", 1), ("dev/2", 1), ("dev/3", 1), ("dev/1", 0))))
        assert await client.hear() == Suback(1, b"\x80\x01\x01\x80\x00")


# Keep-alive, wills, endings.


async def test_a_silent_client_is_closed_after_one_and_a_half_keep_alives():
    async with Site() as site:
        client = await site.logged_in(keep_alive_s=1)
        idle = await site.logged_in(client_id="idle", keep_alive_s=0)
        for _ in range(4):
            await asyncio.sleep(0.5)
            client.say(Pingreq())
            assert await client.hear() == Pingresp()
        assert await client.hear() is None
        assert site.dialect.logins[0].events[-1] == CloseReason.KEEP_ALIVE
        idle.say(Pingreq())
        assert await idle.hear() == Pingresp()


@pytest.mark.spec("G-11")
@pytest.mark.parametrize(
    ("honoured", "polite", "expected"), [(True, False, [b"gone"]), (True, True, []), (False, False, [])]
)
async def test_a_will_is_published_where_the_dialect_honours_it_and_the_client_was_lost(honoured, polite, expected):
    async with Site(dialect=PlainDialect(honours_wills=honoured)) as site:
        client = await site.logged_in(will=Will("dev/will", b"gone", 1))
        if polite:
            client.say(Disconnect())
        await client.close()
        await until(lambda: not site.server._connections)
        assert site.store.payloads == expected
        assert site.dialect.logins[0].events[-1] == (CloseReason.DISCONNECT if polite else CloseReason.LOST)


async def test_a_reset_connection_is_cleaned_up():
    async with Site() as site:
        client = await site.logged_in()
        sock = client.writer.get_extra_info("socket")
        sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER: close sends RST
        client.writer.transport.abort()
        await until(lambda: not site.server._connections)
        assert site.server.counters.connections == 0
        assert site.server.clients("d1") == []


async def test_a_normal_life_writes_no_warnings(caplog):
    caplog.set_level(logging.WARNING)
    async with Site() as site:
        client = await site.logged_in()
        client.say(publication(b"1", 1), Disconnect())
        assert await client.hear() in (Puback(1), None)
    assert caplog.text == ""
