"""What level 5 has besides: limits of both sides, sessions that end when they are told to, reasons for everything."""

import asyncio
import logging

import pytest

from api.transports.mqtt.dialect import Refusal
from api.transports.mqtt.encoding import encode
from api.transports.mqtt.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Properties,
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
from api.transports.mqtt.reasons import Reason
from api.transports.mqtt.sessions import SessionStore
from api.transports.mqtt.settings import Settings
from tests.api.transports.mqtt.harness import CloseReason, PlainDialect, Site, publication, until
from tests.api.transports.mqtt.test_packets5 import MALFORMED, WRONG, connect
from tests.api.transports.mqtt.test_sessions import gone

pytestmark = pytest.mark.asyncio


async def logged_in(site, **options):
    client = await site.client()
    answer = await client.login(level=5, **options)
    assert answer.code == Reason.SUCCESS
    return client


async def last_word(client):
    """The code of the DISCONNECT that is the last packet, and its words."""
    packet = await client.hear()
    assert isinstance(packet, Disconnect)
    assert await client.hear() is None
    return packet.reason, packet.properties.reason if packet.properties else None


# Logging in


@pytest.mark.spec("G-9", "G-10")
async def test_what_there_is_and_is_not_is_announced():
    async with Site(settings=Settings(max_unconfirmed=50), dialect=PlainDialect(max_payload=2000)) as site:
        client = await site.client()
        granted = {
            "receive_maximum": 50, "maximum_packet_bytes": 2000, "retain_available": False,
            "subscription_ids_available": False, "shared_available": False,
        }  # fmt: skip
        assert await client.login(level=5) == Connack(False, 0, Properties(**granted))
        client = await site.client()
        answer = await client.login(level=5, client_id="", session_expiry_s=60)
        assigned = site.dialect.logins[1].session.client_id
        assert len(assigned) > 10
        assert answer.properties == Properties(**granted, assigned_client_id=assigned, session_expiry_s=0)


@pytest.mark.spec("G-10")
@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (Connect(5, username="d1", password=b"wrong"), Reason.BAD_LOGIN),
        (Connect(5, properties=Properties(authentication_method="SCRAM")), Reason.BAD_AUTHENTICATION_METHOD),
        (Connect(5, will=Will("dev/will", b"", 0, True)), Reason.RETAIN_NOT_SUPPORTED),
        (Connect(6), Reason.UNSUPPORTED_VERSION),
    ],
)
async def test_refused_logins_are_told_why(asked, code):
    async with Site() as site:
        client = await site.client()
        client.say(asked)
        client.level = 5
        assert await client.hear() == Connack(False, code)
        assert await client.hear() is None


@pytest.mark.spec("G-10")
@pytest.mark.parametrize(("code", "told"), [(3, 0x88), (5, 0x87), (Reason.BANNED, 0x8A)])
async def test_a_dialects_refusal_is_told_at_the_clients_level(code, told):
    class Refusing(PlainDialect):
        async def login(self, connect, peer):
            return Refusal(code, "no")

    async with Site(dialect=Refusing()) as site:
        for level, expected in ((5, told), (4, min(code, 5))):
            client = await site.client()
            assert await client.login(level=level) == Connack(False, expected)


@pytest.mark.spec("G-10")
@pytest.mark.parametrize("level", [1, 2, 0x83, 0x84])
async def test_other_levels_are_told_in_words_of_their_time(level):
    async with Site() as site:
        client = await site.client()
        client.say(Connect(level))
        client.level = 4
        assert await client.hear() == Connack(False, 1)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        *[pytest.param(raw, Reason.MALFORMED, id=name) for raw, name in MALFORMED if raw[0] == 0x10],
        *[pytest.param(raw, Reason.PROTOCOL_ERROR, id=name) for raw, name in WRONG if raw[0] == 0x10],
    ],
)
async def test_a_bad_connect_is_told_what_is_wrong(raw, code):
    async with Site() as site:
        client = await site.client()
        client.say(raw)
        client.level = 5
        assert await client.hear() == Connack(False, code)
        assert await client.hear() is None
        assert site.server.counters.malformed == 1


async def test_a_password_may_come_without_a_name():
    async with Site() as site:
        client = await site.client()
        assert (await client.login(level=5, username=None)).code == Reason.SUCCESS


# What closes the connection


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        *[pytest.param(raw, Reason.MALFORMED, id=name) for raw, name in MALFORMED if raw[0] != 0x10],
        *[pytest.param(raw, Reason.PROTOCOL_ERROR, id=name) for raw, name in WRONG if raw[0] != 0x10],
        pytest.param(connect(b""), Reason.PROTOCOL_ERROR, id="a second CONNECT"),
        pytest.param(encode(Auth(0x18), 5), Reason.PROTOCOL_ERROR, id="AUTH"),
        pytest.param(b"\x20\x03\0\0\0", Reason.PROTOCOL_ERROR, id="a server's packet"),
        pytest.param(
            encode(Publish("dev/a", b"", properties=Properties(topic_alias=1)), 5),
            Reason.TOPIC_ALIAS_INVALID, id="a topic alias",
        ),
        pytest.param(
            encode(Publish("", b"", properties=Properties(topic_alias=1)), 5),
            Reason.TOPIC_ALIAS_INVALID, id="nothing but an alias",
        ),
        pytest.param(
            encode(Publish("dev/a", b"", properties=Properties(subscription_ids=(1,))), 5),
            Reason.PROTOCOL_ERROR, id="a subscription identifier from a client",
        ),
        pytest.param(
            encode(Publish("dev/a", b"", retain=True), 5), Reason.RETAIN_NOT_SUPPORTED, id="retain"
        ),
        pytest.param(
            encode(Publish("dev/a", b"x" * 70_000), 5), Reason.PACKET_TOO_LARGE, id="a payload over the limit"
        ),
        pytest.param(b"\x30\xff\xff\xff\x7f", Reason.PACKET_TOO_LARGE, id="256 MiB"),
        pytest.param(
            encode(Disconnect(0, Properties(session_expiry_s=5)), 5), Reason.PROTOCOL_ERROR, id="a session made late"
        ),
    ],
)  # fmt: skip
async def test_the_code_says_why_and_what_came_before_is_stored(raw, code, caplog):
    async with Site() as site:
        client = await logged_in(site)
        client.say(publication(b"good", qos=0), raw)
        told, words = await last_word(client)
        assert told == code
        assert words
        await until(lambda: CloseReason.PROTOCOL in site.dialect.logins[0].events)
        assert site.store.payloads == [b"good"]
    assert "Traceback" not in caplog.text


async def test_the_server_says_why_it_goes():
    async with Site() as site:
        first = await logged_in(site)
        await logged_in(site)
        assert await last_word(first) == (Reason.TAKEN_OVER, None)
        kicked = await logged_in(site, username="d2")
        [connection] = site.server.clients("d2")
        connection.close(CloseReason.KICKED)
        assert await last_word(kicked) == (Reason.ADMINISTRATIVE_ACTION, None)
        silent = await logged_in(site, username="d3", keep_alive_s=1)
        forbidden = await logged_in(site, username="d4")
        forbidden.say(publication(b"1", 1, topic="other"))
        assert await last_word(forbidden) == (Reason.NOT_AUTHORISED, "another tree")
        broken = await logged_in(site, username="d5")
        broken.say(publication(b"1", 1, topic="dev/bug"))
        assert await last_word(broken) == (Reason.IMPLEMENTATION_SPECIFIC, None)
        assert await last_word(silent) == (Reason.KEEP_ALIVE_TIMEOUT, None)
        last = await logged_in(site, username="d6")
        await site.server.stop(1)
        assert await last_word(last) == (Reason.SHUTTING_DOWN, None)


async def test_words_are_left_out_where_the_client_takes_no_packet_as_long():
    async with Site() as site:
        client = await logged_in(site, maximum_packet_bytes=12)
        client.say(publication(b"1", 1, topic="other"))
        assert await last_word(client) == (Reason.NOT_AUTHORISED, None)


async def test_too_many_publications_at_once():
    async with Site(settings=Settings(max_unconfirmed=10)) as site:
        site.store.manual = True
        client = await logged_in(site)
        client.say(*[publication(b"%d" % i, i, qos=1 + i % 2) for i in range(1, 11)])
        await until(lambda: len(site.store.waiting) == 10)
        site.store.store()
        assert len(await client.hear_many(10)) == 10
        # Five of QoS 2 are not released yet, and count.
        raw = b"".join(encode(publication(b"%d" % i, i), 5) for i in range(11, 17))
        client.say(raw)
        assert (await last_word(client))[0] == Reason.RECEIVE_MAXIMUM_EXCEEDED
        await until(lambda: site.store.waiting == [b"%d" % i for i in range(11, 16)])
        site.store.store()


async def test_the_receive_maximum_may_be_used_for_ever():
    async with Site(settings=Settings(max_unconfirmed=4)) as site:
        client = await logged_in(site)
        for i in range(1, 200, 4):
            client.say(b"".join(encode(publication(b"x", id, qos=1 + id % 2), 5) for id in range(i, i + 4)))
            for answer in await client.hear_many(4):
                if isinstance(answer, Pubrec):
                    client.say(Pubrel(answer.packet_id))
                    assert await client.hear() == Pubcomp(answer.packet_id)
        assert len(site.store.stored) == 200


# Acknowledgements


async def test_what_is_dropped_is_told_so():
    async with Site() as site:
        client = await logged_in(site)
        words = Properties(reason="asked for")
        client.say(
            publication(b"0", qos=0, topic="dev/drop"),
            publication(b"1", 1, topic="dev/drop"),
            publication(b"2", 2, qos=2, topic="dev/drop"),
            publication(b"3", 3, qos=2),
            Pubrel(2),
            Pubrel(3),
        )
        assert await client.hear_many(5) == [
            Puback(1, Reason.PAYLOAD_FORMAT_INVALID, words),
            Pubrec(2, Reason.PAYLOAD_FORMAT_INVALID, words),
            Pubrec(3),
            Pubcomp(2, Reason.PACKET_ID_NOT_FOUND),
            Pubcomp(3),
        ]
        assert site.store.payloads == [b"3"]
        quiet = await logged_in(site, username="d2", wants_problem_information=False)
        quiet.say(publication(b"1", 1, topic="dev/drop"))
        assert await quiet.hear() == Puback(1, Reason.PAYLOAD_FORMAT_INVALID)
        small = await logged_in(site, username="d3", maximum_packet_bytes=10)
        small.say(publication(b"1", 1, topic="dev/drop"))
        assert await small.hear() == Puback(1, Reason.PAYLOAD_FORMAT_INVALID)


async def test_a_client_that_wants_none_of_a_publication_gets_the_next(caplog):
    caplog.set_level(logging.INFO)
    async with Site(settings=Settings(max_in_flight=1)) as site:
        client = await logged_in(site)
        await client.subscribe("dev/a")
        taken = []
        for payload in (b"1", b"2"):
            site.dialect.logins[0].session.send("dev/a", payload, 1, lambda payload=payload: taken.append(payload))
        assert await client.hear() == Publish("dev/a", b"1", 1, 1)
        client.say(Puback(1, Reason.NOT_AUTHORISED))
        assert await client.hear() == Publish("dev/a", b"2", 1, 2)
        client.say(Puback(2, Reason.NO_MATCHING_SUBSCRIBERS), Pingreq())
        assert await client.hear() == Pingresp()
        assert taken == [b"2"]
    assert "0x87" in caplog.text


@pytest.mark.spec("G-24")
async def test_a_client_that_acknowledges_nothing_is_told_that_too_much_waits():
    async with Site(settings=Settings(max_in_flight=1, max_waiting=3)) as site:
        client = await logged_in(site)
        await client.subscribe("dev/a")
        for _ in range(5):
            site.server.send("d1", "dev/a", b"x")
        assert await client.hear() == Publish("dev/a", b"x", 1, 1)
        assert await last_word(client) == (Reason.QUOTA_EXCEEDED, None)


@pytest.mark.spec("G-10")
async def test_every_filter_has_its_code():
    async with Site(settings=Settings(max_subscriptions=3, max_filter=20)) as site:
        client = await logged_in(site)
        # No Local, Retain As Published and Retain Handling change nothing where nobody hears others.
        asked = (("dev/a", 0x2C), ("dev/+", 0x02), ("other/#", 1), ("$share/g/dev/a", 1), ("dev/" + "x" * 20, 1))
        client.say(Subscribe(1, (*asked, ("dev/b", 1), ("dev/c", 1))))
        assert await client.hear() == Suback(
            1,
            bytes((0, 1, Reason.NOT_AUTHORISED, Reason.SHARED_NOT_SUPPORTED, Reason.FILTER_INVALID, 1,
                   Reason.QUOTA_EXCEEDED)),
        )  # fmt: skip
        client.say(Subscribe(2, (("dev/d/d", 1),), Properties(subscription_ids=(7,))))
        assert await client.hear() == Suback(2, bytes((Reason.SUBSCRIPTION_IDS_NOT_SUPPORTED,)))
        client.say(Unsubscribe(3, ("dev/a", "dev/never")))
        assert await client.hear() == Unsuback(3, bytes((Reason.SUCCESS, Reason.NO_SUBSCRIPTION_EXISTED)))
        assert not site.server.send("d1", "dev/d/d", b"x")
        assert site.server.send("d1", "dev/b", b"x")
        assert await client.hear() == Publish("dev/b", b"x", 1, 1)


async def test_properties_of_a_publication_are_read_over():
    async with Site() as site:
        client = await logged_in(site)
        said = Properties(
            payload_is_text=True, message_expiry_s=5, content_type="text/plain", response_topic="dev/answers",
            correlation_data=b"7", user=(("a", "1"), ("a", "2")),
        )  # fmt: skip
        client.say(Publish("dev/data", b"1", 1, 1, properties=said), Publish("dev/data", b"2", 2, 2, properties=said))
        assert await client.hear_many(2) == [Puback(1), Pubrec(2)]
        assert site.store.payloads == [b"1", b"2"]


# What the client takes


async def test_the_clients_receive_maximum_is_kept_over_a_reconnect(redis):
    async with Site(SessionStore(redis)) as site:
        client = await logged_in(site, session_expiry_s=60, receive_maximum=3)
        await client.subscribe("dev/a")
        for i in range(5):
            site.server.send("d1", "dev/a", b"%d" % i)
        assert [packet.payload for packet in await client.hear_many(3)] == [b"0", b"1", b"2"]
        client.say(Pingreq())
        assert await client.hear() == Pingresp()
        await client.close()
        await gone(site)
        client = await site.client()
        answer = await client.login(level=5, clean=False, session_expiry_s=60, receive_maximum=2)
        assert answer.session_present
        assert await client.hear_many(2) == [Publish("dev/a", b"%d" % i, 1, i + 1, dup=True) for i in range(2)]
        client.say(Pingreq())
        assert await client.hear() == Pingresp()
        client.say(Puback(2), Puback(1))
        assert await client.hear_many(2) == [Publish("dev/a", b"2", 1, 3, dup=True), Publish("dev/a", b"3", 1, 4)]
        client.say(Puback(3))
        assert await client.hear() == Publish("dev/a", b"4", 1, 5)


async def test_what_is_longer_than_the_client_takes_is_not_sent(redis, caplog):
    async with Site(SessionStore(redis)) as site:
        client = await logged_in(site, session_expiry_s=60)
        await client.subscribe("dev/a")
        client.say(Disconnect())
        await gone(site)
        assert await site.server.enqueue("d1", "dev/a", b"x" * 100) == 1
        client = await logged_in(site, clean=False, session_expiry_s=60, maximum_packet_bytes=100)
        assert site.server.send("d1", "dev/a", b"y" * 100) == 0
        assert site.server.send("d1", "dev/a", b"y" * 80) == 1
        assert (await client.hear()).payload == b"y" * 80
        assert site.server.counters.dropped == 2
        async with asyncio.timeout(5):
            while await redis.exists("rm:{reg}:session:d1:c1:queue"):
                await asyncio.sleep(0.005)
    assert "takes no packet of" in caplog.text


# Sessions


async def ttl(redis, name="rm:{reg}:session:d1:c1"):
    return await redis.ttl(name)


@pytest.mark.spec("G-11")
@pytest.mark.parametrize(("asked", "granted"), [(60, 60), (86_400, 86_400), (86_401, 86_400), (0xFFFFFFFF, 86_400)])
async def test_a_session_stays_for_as_long_as_was_asked_for_up_to_a_day(redis, asked, granted):
    async with Site(SessionStore(redis)) as site:
        client = await site.client()
        answer = await client.login(level=5, session_expiry_s=asked)
        assert answer.properties.session_expiry_s == (None if asked == granted else granted)
        await client.subscribe("dev/a")
        assert await ttl(redis) > granted
        await client.close()
        await gone(site)
        assert granted - 5 <= await ttl(redis) <= granted
        client = await site.client()
        assert (await client.login(level=5, clean=False, session_expiry_s=asked)).session_present
        assert site.dialect.logins[1].events == ["connected", "subscribed dev/a 1"]


@pytest.mark.spec("G-11")
async def test_a_clean_start_forgets_what_was_and_keeps_what_comes(redis):
    async with Site(SessionStore(redis)) as site:
        client = await logged_in(site, session_expiry_s=60)
        await client.subscribe("dev/old")
        await client.close()
        await gone(site)
        client = await site.client()
        assert not (await client.login(level=5, clean=True, session_expiry_s=60)).session_present
        assert not site.server.send("d1", "dev/old", b"x")
        await client.subscribe("dev/new")
        await client.close()
        await gone(site)
        client = await site.client()
        assert (await client.login(level=5, clean=False, session_expiry_s=60)).session_present
        assert site.dialect.logins[-1].events == ["connected", "subscribed dev/new 1"]


@pytest.mark.spec("G-11")
async def test_a_session_that_is_taken_up_without_a_time_ends_with_the_connection(redis):
    async with Site(SessionStore(redis)) as site:
        client = await logged_in(site, session_expiry_s=60)
        await client.subscribe("dev/a")
        site.server.send("d1", "dev/a", b"unread")
        await client.close()
        await gone(site)
        client = await site.client()
        assert (await client.login(level=5, clean=False)).session_present
        assert await client.hear() == Publish("dev/a", b"unread", 1, 1, dup=True)
        assert await redis.keys("rm:{reg}:session:*") == []
        await client.subscribe("dev/b")
        await client.close()
        await gone(site)
        assert await redis.keys("rm:{reg}:session*") == []
        client = await site.client()
        assert not (await client.login(level=5, clean=False)).session_present


@pytest.mark.spec("G-11")
@pytest.mark.parametrize(("last", "left"), [(0, -2), (30, 30), (None, 60), (100_000, 86_400)])
async def test_the_last_word_says_how_long_a_session_stays(redis, last, left):
    async with Site(SessionStore(redis)) as site:
        client = await logged_in(site, session_expiry_s=60)
        await client.subscribe("dev/a")
        client.say(Disconnect(0, Properties(session_expiry_s=last)) if last is not None else Disconnect())
        assert await client.hear() is None
        await gone(site)
        assert left - 5 <= await ttl(redis) <= left
        assert (await redis.zcard("rm:{reg}:sessions:d1")) == (0 if left < 0 else 1)


@pytest.mark.spec("G-11")
async def test_a_session_of_an_older_level_is_taken_up(redis):
    async with Site(SessionStore(redis)) as site:
        client = await site.logged_in(clean=False)
        await client.subscribe("dev/a")
        await client.close()
        await gone(site)
        client = await site.client()
        assert (await client.login(level=5, clean=False, session_expiry_s=60)).session_present
        await client.close()
        await gone(site)
        client = await site.client()
        assert (await client.login(level=4, clean=False)).session_present


async def test_a_dialect_may_rule_persistent_sessions_out(redis):
    async with Site(SessionStore(redis), dialect=PlainDialect(may_persist=False)) as site:
        client = await site.client()
        answer = await client.login(level=5, clean=False, session_expiry_s=60)
        assert (answer.session_present, answer.properties.session_expiry_s) == (False, 0)
        client.say(Disconnect(0, Properties(session_expiry_s=30)))
        assert await client.hear() is None
        assert await redis.keys("rm:{reg}:session:*") == []


# Wills


@pytest.mark.spec("G-11")
@pytest.mark.parametrize(("reason", "expected"), [(0, []), (4, [b"gone"])])
async def test_a_client_may_leave_with_its_will(reason, expected):
    async with Site(dialect=PlainDialect(honours_wills=True)) as site:
        client = await logged_in(site, will=Will("dev/will", b"gone", 1, properties=Properties(will_delay_s=5)))
        client.say(Disconnect(reason))
        assert await client.hear() is None
        await gone(site)
        assert site.store.payloads == expected
        assert site.dialect.logins[0].events[-1] == CloseReason.DISCONNECT


async def test_a_client_that_leaves_with_an_error_is_heard(caplog):
    caplog.set_level(logging.INFO)
    async with Site() as site:
        client = await logged_in(site)
        client.say(Disconnect(Reason.QUOTA_EXCEEDED, Properties(reason="no room")))
        assert await client.hear() is None
        await gone(site)
    assert "0x97 no room" in caplog.text
