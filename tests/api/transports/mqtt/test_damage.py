"""Damaged bytes over real sockets: what is acknowledged is stored, and nobody else notices."""

import asyncio
import logging

import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from api.transports.mqtt.decoding import decode
from api.transports.mqtt.dialect import CloseReason, Drop
from api.transports.mqtt.encoding import encode
from api.transports.mqtt.packets import (
    Disconnect,
    Pingreq,
    Puback,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Unsubscribe,
)
from engine.errors import BadInput, Refused
from tests.api.transports.damage import damaged, damages
from tests.api.transports.mqtt.harness import Site, until

NOT_STORED = {"dev/drop", "dev/echo"}
FAILED = 0x80

ids = st.integers(1, 6)
topics = st.sampled_from(["dev/a", "dev/a", "dev/first", "dev/part", "dev/many", *NOT_STORED, "elsewhere"])
filters = st.sampled_from(["dev/#", "dev/+", "dev/echoed", "elsewhere"])
packets = st.one_of(
    *[st.builds(Publish, topics, st.just(b"number"), st.just(qos), ids if qos else st.just(0)) for qos in (0, 1, 1, 2)],
    st.builds(Subscribe, ids, st.lists(st.tuples(filters, st.integers(0, 2)), min_size=1, max_size=2).map(tuple)),
    st.builds(Unsubscribe, ids, st.tuples(filters)),
    st.builds(Pubrel, ids),
    st.builds(Puback, ids),
    st.builds(Pingreq),
    st.builds(Disconnect),
)
firsts = st.sampled_from([None, None, Drop("a part"), Refused("not now", 0), BadInput("no such thing", "/x")])


def numbered(said, level):
    """The packets' bytes, each publication with a payload of its own."""
    return b"".join(
        encode(Publish(each.topic, b"%d" % i, each.qos, each.packet_id) if isinstance(each, Publish) else each, level)
        for i, each in enumerate(said)
    )


async def run(level, raw, cuts, waits, refusals):
    """Say it, in pieces; check every answer when it comes."""
    async with Site() as site:
        other = await site.logged_in(username="other", client_id="other")
        client = await site.logged_in(level=level)
        [connection] = site.server.clients("d1")
        opened = asyncio.Event()
        opened.set()
        site.dialect.logins[-1].firsts += [wait or opened for wait in waits] + [opened] * 50
        site.store.refusals += [Refused("full", 0)] * refusals
        before = site.server.counters.bytes_received
        said = decode(raw, 65_536, level=level).packets
        answers = []

        async def hear():
            while (heard := await client.hear()) is not None:
                answers.append(heard)
                if isinstance(heard, Puback | Pubrec) and heard.reason < FAILED:
                    qos = 1 if isinstance(heard, Puback) else 2
                    sent = [
                        each
                        for each in said
                        if isinstance(each, Publish) and (each.qos, each.packet_id) == (qos, heard.packet_id)
                    ]
                    times = sum(type(each) is type(heard) and each.packet_id == heard.packet_id for each in answers)
                    if qos == 1:
                        sent = sent[times - 1 : times]
                    assert any(each.topic in NOT_STORED or each.payload in site.store.payloads for each in sent)

        hearing = asyncio.create_task(hear())
        at = 0
        for cut in [*cuts, len(raw)]:
            if client.writer.is_closing():
                break
            client.say(raw[at : at + cut])
            at += cut
            await asyncio.sleep(0)
        await until(
            lambda: (
                connection.closing is not None
                or (site.server.counters.bytes_received == before + len(raw) and connection._incoming.idle)
            )
        )
        by_itself = connection.closing is not None
        connection.close(CloseReason.KICKED)
        await hearing
        acknowledged = [each.packet_id for each in answers if isinstance(each, Puback)]
        expected = [each.packet_id for each in said if isinstance(each, Publish) and each.qos == 1]
        assert acknowledged == expected[: len(acknowledged)]
        assert by_itself or acknowledged == expected
        other.say(Publish("dev/a", b"still served", 1, 1))
        assert await other.hear() == Puback(1)
        assert len(site.server.clients("other")) == 1
        await until(lambda: len(site.server._connections) == 1)


@settings(max_examples=150)
@given(
    st.sampled_from([4, 5]),
    st.lists(packets, max_size=12),
    st.lists(damages, max_size=3),
    st.lists(st.integers(1, 40), max_size=8),
    st.lists(firsts, max_size=4),
    st.integers(0, 2),
)
def test_what_is_acknowledged_is_stored_whatever_else_is_said(level, said, wounds, cuts, waits, refusals):
    logged = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = logged.append
    logging.getLogger().addHandler(handler)
    try:
        uvloop.run(run(level, damaged(numbered(said, level), wounds), cuts, waits, refusals))
    finally:
        logging.getLogger().removeHandler(handler)
    assert [record.getMessage() for record in logged] == []
