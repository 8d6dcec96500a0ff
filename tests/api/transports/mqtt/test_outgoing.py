"""The sending half of a session: order, limits, packet ids."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.transports.mqtt.decoding import decode
from api.transports.mqtt.outgoing import MAX_WAITING_BYTES, Outgoing, Queued
from api.transports.mqtt.packets import Publish


class Wire:
    def __init__(self, max_in_flight=2, max_waiting=256):
        self.raw, self.cuts, self.settled, self.refused = b"", 0, 0, []
        self.outgoing = Outgoing(
            self.write, self.cut, self.settle, self.refuse, max_in_flight=max_in_flight, max_waiting=max_waiting
        )
        self.outgoing.subscriptions.add("a", 1)

    def write(self, data):
        self.raw += data

    def cut(self):
        self.cuts += 1

    def settle(self):
        self.settled += 1

    def refuse(self, topic, size):
        self.refused.append((topic, size))

    def sent(self):
        raw, self.raw = self.raw, b""
        return decode(raw, 10_000_000).packets


def test_in_flight_is_bounded_and_order_kept_across_qos():
    wire = Wire()
    for payload, qos in [(b"1", 1), (b"2", 1), (b"3", 1), (b"4", 0), (b"5", 1)]:
        assert wire.outgoing.send("a", payload, qos)
    assert [packet.payload for packet in wire.sent()] == [b"1", b"2"]
    wire.outgoing.acknowledged(2)
    assert wire.sent() == [Publish("a", b"3", 1, 3), Publish("a", b"4")]
    wire.outgoing.acknowledged(77)
    assert wire.sent() == []
    wire.outgoing.acknowledged(1)
    assert wire.sent() == [Publish("a", b"5", 1, 4)]
    assert wire.outgoing.remaining() == [Queued("a", b"3", 1, 3), Queued("a", b"5", 1, 4)]


def test_nothing_is_written_while_the_client_does_not_read():
    wire = Wire()
    wire.outgoing.pause()
    wire.outgoing.send("a", b"0", 0)
    wire.outgoing.send("a", b"1", 1)
    assert wire.sent() == []
    assert wire.outgoing.remaining() == [Queued("a", b"1", 1)]
    wire.outgoing.resume()
    assert [packet.payload for packet in wire.sent()] == [b"0", b"1"]


@pytest.mark.spec("G-24")
def test_one_more_than_may_wait_cuts():
    wire = Wire(max_in_flight=1, max_waiting=256)
    for _ in range(257):
        wire.outgoing.send("a", b"x", 1)
    assert wire.cuts == 0
    wire.outgoing.send("a", b"x", 1)
    assert wire.cuts == 1


def test_waiting_bytes_are_bounded_but_one_large_message_passes():
    wire = Wire(max_in_flight=1)
    wire.outgoing.send("a", b"x", 1)
    wire.outgoing.send("a", b"x" * (MAX_WAITING_BYTES + 1), 1)
    assert wire.cuts == 0
    wire.outgoing.send("a", b"x", 1)
    assert wire.cuts == 1


def test_restored_publications_are_settled_once_all_are_acknowledged():
    wire = Wire(max_in_flight=2)
    wire.outgoing.restore([Queued("a", b"1", 1, 65_535), Queued("a", b"2", 1), Queued("a", b"3", 1)])
    wire.outgoing.send("a", b"4", 1)
    assert wire.sent() == [Publish("a", b"1", 1, 65_535, dup=True), Publish("a", b"2", 1, 1)]
    for packet_id in (1, 65_535):
        wire.outgoing.acknowledged(packet_id)
    assert wire.settled == 0
    assert [packet.payload for packet in wire.sent()] == [b"3", b"4"]
    wire.outgoing.acknowledged(2)
    assert wire.settled == 1
    wire.outgoing.acknowledged(3)
    assert wire.settled == 1


@given(st.lists(st.one_of(st.just("send"), st.just("pause"), st.just("resume"), st.integers(0, 5)), max_size=60))
def test_every_publication_is_sent_once_in_order_and_known_until_acknowledged(steps):
    wire = Wire(max_in_flight=3)
    sent, made, open_ids, paused = [], 0, {}, False
    for step in [*steps, "resume"]:
        if step == "send":
            wire.outgoing.send("a", b"%d" % made, 1)
            made += 1
        elif step == "pause":
            wire.outgoing.pause()
            paused = True
        elif step == "resume":
            wire.outgoing.resume()
            paused = False
        elif open_ids:
            packet_id = list(open_ids)[step % len(open_ids)]
            del open_ids[packet_id]
            wire.outgoing.acknowledged(packet_id)
        news = wire.sent()
        assert not (news and paused)
        for packet in news:
            assert packet.packet_id not in open_ids
            open_ids[packet.packet_id] = packet.payload
            sent.append(packet.payload)
        assert len(open_ids) <= 3
        waiting = [b"%d" % i for i in range(len(sent), made)]
        assert [item.payload for item in wire.outgoing.remaining()] == [*open_ids.values(), *waiting]
    assert sent == [b"%d" % i for i in range(len(sent))]
    assert len(sent) == made or len(open_ids) == 3


def test_an_acknowledgement_is_told_to_whoever_asked_for_it():
    wire, told = Wire(max_in_flight=1), []
    assert wire.outgoing.send("a", b"1", 1, lambda: told.append(1))
    assert wire.outgoing.send("a", b"2", 1, lambda: told.append(2))
    assert wire.outgoing.send("a", b"3", 0, lambda: told.append(3))
    assert wire.outgoing.remaining() == [Queued("a", b"1", 1, 1), Queued("a", b"2", 1)]
    assert told == []
    wire.outgoing.acknowledged(2)
    assert told == []
    wire.outgoing.acknowledged(1)
    assert told == [1, 3]
    wire.outgoing.acknowledged(1)
    wire.outgoing.acknowledged(2)
    assert told == [1, 3, 2]
    assert msgspec.msgpack.encode(wire.outgoing.remaining()) == b"\x90"


def test_nobody_is_told_of_what_is_not_sent():
    wire, told = Wire(), []
    assert not wire.outgoing.send("b", b"1", 1, lambda: told.append(1))
    assert not wire.outgoing._acked
    assert told == []
