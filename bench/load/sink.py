"""The end of a peer's flow: takes POSTs of line protocol and tells which messages arrived, when, and in which order."""

import asyncio

from load.counters import ARRIVED
from load.payloads import FIRST


class Sink:
    """What arrived, per device. A line is `telemetry,dev=<number> …,seq=<number>`."""

    def __init__(self, driver):
        self.driver = driver
        self.latencies = []
        self.seen = {}
        self.newest = {}
        self.repeated = self.reordered = self.unreadable = self.posts = 0

    def line(self, line, now):
        start, end = line.find(b"dev="), line.find(b" ")
        try:
            number, seq = int(line[start + 4 : end]), int(line[line.rfind(b"=") + 1 :].rstrip(b"i"))
            due = self.driver.devices[number].dues[seq - FIRST]
        except (ValueError, IndexError):
            self.unreadable += 1
            return
        seen = self.seen.setdefault(number, set())
        if seq in seen:
            self.repeated += 1
            return
        seen.add(seq)
        if seq < self.newest.get(number, 0):
            self.reordered += 1
        else:
            self.newest[number] = seq
        self.latencies.append((now - due, 1))
        self.driver.counters[ARRIVED] += 1


class SinkConnection(asyncio.Protocol):
    """One HTTP connection to the sink."""

    def __init__(self, sink):
        self.sink = sink
        self.buffer = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        buffer = self.buffer + data
        while True:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                break
            head = buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(buffer) < end + 4 + length:
                break
            body, buffer = buffer[end + 4 : end + 4 + length], buffer[end + 4 + length :]
            now = self.sink.driver.clock()
            self.sink.posts += 1
            for line in body.split(b"\n"):
                if line:
                    self.sink.line(line, now)
            self.transport.write(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
        self.buffer = buffer
