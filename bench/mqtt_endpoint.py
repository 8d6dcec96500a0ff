"""CPU of the MQTT endpoint per QoS 1 publication: the real protocol on a real socket, with a store that takes all.

    python bench/mqtt_endpoint.py [--messages 400000] [--connections 8] [--window 1000] [--level 4] [--runs 3] …

The generator is a process of its own; what is printed is the server process's CPU time (user and system, so the socket
calls count) divided by the publications it acknowledged. With `--delay-ms` the store answers later, once per batch.
"""

import argparse
import asyncio
import multiprocessing
import resource
import socket
import time

import uvloop

from api.transports.mqtt.decoding import decode
from api.transports.mqtt.dialect import Accepted
from api.transports.mqtt.encoding import NO_PROPERTIES, encode, encode_publish
from api.transports.mqtt.packets import Connack, Connect, Puback
from api.transports.mqtt.server import MqttServer
from engine.message import Message, new_id, now_ms

TOPIC, PAYLOAD = "v1/devices/me/telemetry", b'{"temperature":21.5,"humidity":40,"seq":123456}'


class Taker:
    """A login that makes one message of each publication, as a real dialect must, but looks at no payload."""

    scope = "bench"
    max_payload = 65_536
    may_persist = honours_wills = False

    def __init__(self, bare):
        self.bare = bare

    def connected(self, session): ...

    def closed(self, reason): ...

    def publish(self, topic, payload, qos, retain):
        if self.bare:
            return _NOTHING_NEW
        return Accepted(
            (Message(id=new_id(), ts_ms=now_ms(), tenant="t", type="RAW_UPLINK", originator="d", data=payload),)
        )


_NOTHING_NEW = Accepted((Message(id="", ts_ms=0, tenant="t", type="RAW_UPLINK", originator="d"),))


class Dialect:
    def __init__(self, bare):
        self.bare = bare

    async def login(self, connect, peer):
        return Taker(self.bare)


class Generator(asyncio.Protocol):
    """Keeps `window` publications unacknowledged until `total` are answered."""

    def __init__(self, name, total, window, level, done):
        self.level = level
        self.said = NO_PROPERTIES if level == 5 else b""
        self.name, self.left, self.window, self.done = name, total, window, done
        self.unanswered = total
        self.rest = b""
        self.next_id = 0

    def connection_made(self, transport):
        self.transport = transport
        transport.write(encode(Connect(self.level, client_id=self.name)))

    def publish(self, count):
        count = min(count, self.left)
        self.left -= count
        packets = []
        for _ in range(count):
            self.next_id = self.next_id % 65_535 + 1
            packets.append(encode_publish(TOPIC, PAYLOAD, 1, self.next_id, properties=self.said))
        self.transport.write(b"".join(packets))

    def data_received(self, data):
        data = self.rest + data
        packets, consumed, _, error = decode(data, 65_536, level=self.level)
        assert error is None, error
        self.rest = data[consumed:]
        if packets and isinstance(packets[0], Connack):
            assert packets.pop(0).code == 0
            self.publish(self.window)
        assert all(isinstance(packet, Puback) for packet in packets)
        self.unanswered -= len(packets)
        if self.left and packets:
            self.publish(len(packets))
        if not self.unanswered and not self.done.done():
            self.done.set_result(None)


def generate(port, messages, connections, window, level, pipe):
    async def run():
        loop = asyncio.get_running_loop()
        ends = [loop.create_future() for _ in range(connections)]
        for i, end in enumerate(ends):
            part = messages // connections
            await loop.create_connection(
                lambda end=end, part=part, i=i: Generator(f"c{i}", part, window, level, end), "127.0.0.1", port
            )
        await asyncio.gather(*ends)

    uvloop.run(run())
    pipe.send("done")


def cpu_s():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(options):
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    done.set_result(None)
    waiting = []

    def submit(messages):
        if not options.delay_ms:
            return done
        if not waiting:
            waiting.append(loop.create_future())
            loop.call_later(options.delay_ms / 1000, lambda: waiting.pop().set_result(None))
        return waiting[0]

    server = MqttServer(lambda connect, peer: (Dialect(options.bare),), submit)
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    [(_, port)] = await server.start(sockets=[bound])
    ours, theirs = multiprocessing.Pipe()
    generator = multiprocessing.get_context("spawn").Process(
        target=generate, args=(port, options.messages, options.connections, options.window, options.level, theirs)
    )
    generator.start()
    while server.counters.received == 0:
        await asyncio.sleep(0.001)
    cpu, wall, before = cpu_s(), time.perf_counter(), server.counters.acked
    ready = asyncio.Event()
    loop.add_reader(ours.fileno(), ready.set)
    await ready.wait()
    loop.remove_reader(ours.fileno())
    cpu, wall, count = cpu_s() - cpu, time.perf_counter() - wall, server.counters.acked - before
    generator.join()
    await server.stop(1)
    print(f"{count:>9} acknowledged  {cpu / count * 1e6:6.2f} us CPU each  {count / wall:>9.0f}/s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=400_000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--window", type=int, default=1000, help="unacknowledged publications of one connection")
    parser.add_argument("--level", type=int, choices=(4, 5), default=4, help="of MQTT")
    parser.add_argument("--delay-ms", type=float, default=0, help="how long the store takes")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--bare", action="store_true", help="the dialect makes no message: the endpoint alone")
    options = parser.parse_args()
    for _ in range(options.runs):
        uvloop.run(measure(options))


if __name__ == "__main__":
    main()
