"""An outside broker as a source, with a real one: what is acknowledged when, and what comes again."""

import asyncio
from ipaddress import ip_network

import pytest
import pytest_asyncio

from api.transports import broker as module
from api.transports.broker import Broker, Unusable, attach
from engine.errors import Refused
from nodes.outward.addresses import Guard
from tests.api.transports.mosquitto import Mosquitto
from tests.engine.toy import until

pytestmark = pytest.mark.asyncio

LOCAL = Guard([ip_network("127.0.0.0/8")])


@pytest_asyncio.fixture
async def mosquitto(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.1)
    made = Mosquitto(tmp_path)
    await made.start()
    yield made
    made.stop()


class Taker:
    """Attaches, and keeps what it was given."""

    def __init__(self, mosquitto, guard=LOCAL):
        self.seen = []
        self.stored = []
        self.fail = lambda payload: None
        self.gate = asyncio.Event()
        self.gate.set()
        self.broker = Broker("127.0.0.1", mosquitto.port, "rulemill-test", ("in/#",))
        self.guard = guard
        self.task = None

    async def take(self, topic, payload):
        self.seen.append(payload)
        await self.gate.wait()
        if error := self.fail(payload):
            raise error
        self.stored.append(payload)

    def start(self):
        self.task = asyncio.create_task(attach(self.broker, self.guard, self.take))

    async def stop(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def until_stored(self, *payloads):
        async def done():
            return self.stored == list(payloads)

        await until(done)

    async def until_seen(self, count):
        async def done():
            return len(self.seen) >= count

        await until(done)


@pytest_asyncio.fixture
async def taker(mosquitto):
    taker = Taker(mosquitto)
    # The session begins with the first connection.
    taker.start()
    await mosquitto.publish(("in/hello", b"hello"))
    async with asyncio.timeout(10):
        while not taker.stored:
            await asyncio.sleep(0.05)
            await mosquitto.publish(("in/hello", b"hello"))
    await asyncio.sleep(0.2)
    taker.stored.clear()
    taker.seen.clear()
    yield taker
    await taker.stop()


@pytest.mark.spec("G-9")
async def test_publications_come_in_order(mosquitto, taker):
    bodies = [b"%d" % n for n in range(200)]
    await mosquitto.publish(*[("in/x", body) for body in bodies])
    await taker.until_stored(*bodies)


async def test_what_was_not_stored_is_not_acknowledged_and_comes_again(mosquitto, taker):
    taker.gate.clear()
    await mosquitto.publish(("in/x", b"1"), ("in/x", b"2"))
    await taker.until_seen(1)
    await taker.stop()
    assert taker.stored == []
    taker.gate.set()
    taker.start()
    await taker.until_stored(b"1", b"2")
    await taker.stop()
    taker.start()
    await mosquitto.publish(("in/x", b"3"))
    await taker.until_stored(b"1", b"2", b"3")


async def test_what_comes_while_nobody_is_attached_waits(mosquitto, taker):
    await taker.stop()
    await mosquitto.publish(("in/x", b"1"))
    taker.start()
    await taker.until_stored(b"1")


async def test_a_refusal_is_waited_out_and_nothing_overtakes(mosquitto, taker):
    refusals = [Refused("full"), Refused("full")]
    taker.fail = lambda payload: refusals.pop() if payload == b"1" and refusals else None
    await mosquitto.publish(("in/x", b"1"), ("in/x", b"2"))
    await taker.until_stored(b"1", b"2")
    assert taker.seen == [b"1", b"1", b"1", b"2"]


@pytest.mark.parametrize("error", [Unusable("no json"), RuntimeError("of the test")])
async def test_what_can_never_be_stored_does_not_hold_up_the_rest(mosquitto, taker, error, caplog):
    taker.fail = lambda payload: error if payload == b"1" else None
    await mosquitto.publish(("in/x", b"1"), ("in/x", b"2"))
    await taker.until_stored(b"2")
    assert str(error) in caplog.text
    await taker.stop()
    taker.seen.clear()
    taker.start()
    await mosquitto.publish(("in/x", b"3"))
    await taker.until_stored(b"2", b"3")
    assert taker.seen == [b"3"]


@pytest.mark.parametrize("gently", [True, False])
async def test_a_broker_that_restarts_is_found_again(mosquitto, taker, gently):
    mosquitto.stop(gently=gently)
    await asyncio.sleep(0.5)
    await mosquitto.start()
    async with asyncio.timeout(20):
        while not taker.stored:
            await mosquitto.publish(("in/x", b"1"))
            await asyncio.sleep(0.1)


async def test_what_is_in_hand_when_the_broker_restarts_comes_again(mosquitto, taker):
    taker.gate.clear()
    await mosquitto.publish(("in/x", b"1"))
    await taker.until_seen(1)
    mosquitto.stop(gently=True)
    await mosquitto.start()
    taker.gate.set()
    await taker.until_stored(b"1", b"1")


async def test_qos_0_has_a_bound(mosquitto, taker, monkeypatch):
    monkeypatch.setattr(module, "MOST_UNCONFIRMED", 10)
    before = module.DROPPED._value.get()
    taker.gate.clear()
    await mosquitto.publish(*[("in/x", b"%d" % n) for n in range(50)], qos=0)
    await taker.until_seen(1)
    await asyncio.sleep(0.5)
    taker.gate.set()
    await asyncio.sleep(0.5)
    assert len(taker.stored) + module.DROPPED._value.get() - before == 50
    assert 10 <= len(taker.stored) <= 12


async def test_an_address_that_is_not_allowed_is_not_connected_to(mosquitto, caplog):
    taker = Taker(mosquitto, Guard())
    taker.start()

    async def told():
        return "may not connect" in caplog.text

    await until(told)
    await taker.stop()
