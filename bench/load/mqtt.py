"""An MQTT 3.1.1 device that publishes at QoS 1: just enough of the protocol, and all answers checked."""

import asyncio
from collections import deque
from struct import pack

from load.counters import ACKED, ERRORS, SENT
from load.payloads import FIRST, telemetry

PUBACK = 0x40
IDS = 65_535


def _text(value):
    return pack("!H", len(value)) + value


def _length(count):
    made = bytearray()
    while True:
        count, digit = divmod(count, 128)
        made.append(digit | (128 if count else 0))
        if not count:
            return bytes(made)


class MqttDevice(asyncio.Protocol):
    """One connection. Publications are numbered from FIRST; acknowledgements must keep their order (MQTT-4.6.0-2)."""

    def __init__(self, driver, number, target):
        self.driver, self.number = driver, number
        self.ready = asyncio.get_running_loop().create_future()
        self.closed = ""
        login = [part.format(number).encode() for part in target["login"]]
        flags = b"\xc2" if len(login) == 2 else b"\x82"  # user name and password, or user name; a clean session
        rest = b"".join([_text(b"MQTT"), b"\x04", flags, b"\x00\x3c", _text(b"bench-%d" % number), *map(_text, login)])
        self._connect = b"\x10" + _length(len(rest)) + rest
        topic = _text(target["topic"].format(number).encode())
        self._head = b"\x32" + _length(len(topic) + 2 + len(telemetry(FIRST))) + topic
        self._waiting = deque()
        self._rest = b""
        self.sent = self.acked = 0
        self.dues = None

    def connection_made(self, transport):
        self.transport = transport
        transport.write(self._connect)

    def connection_lost(self, error):
        self.closed = str(error or "closed by the server")
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(self.closed))

    def room(self, window):
        return window - (self.sent - self.acked)

    def publish(self, count, due):
        """Send `count` messages that were to be sent at `due` (seconds, monotonic)."""
        head, first = self._head, self.sent
        self.transport.write(
            b"".join([head + pack("!H", n % IDS + 1) + telemetry(FIRST + n) for n in range(first, first + count)])
        )
        self.sent = first + count
        self._waiting.append([due, count])
        if self.dues is not None:
            self.dues += [due] * count
        self.driver.counters[SENT] += count

    def data_received(self, data):
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if not self.ready.done():
            if len(data) < 4:
                self._rest = data
                return
            if data[:4] != b"\x20\x02\x00\x00":
                self.ready.set_exception(ConnectionError(f"CONNACK {data[:4].hex()}"))
                return
            self.ready.set_result(None)
            data = data[4:]
        count, odd = divmod(len(data), 4)
        if odd:
            self._rest, data = data[4 * count :], data[: 4 * count]
        if not count:
            return
        # Only PUBACKs come, so a few comparisons check them all; their ids follow each other.
        first, last = self.acked % IDS + 1, (self.acked + count - 1) % IDS + 1
        if data[::4] != b"\x40" * count or data[2:4] != pack("!H", first) or data[-2:] != pack("!H", last):
            self.driver.counters[ERRORS] += 1
            self.closed = f"expected acknowledgement of {first}, got {data[:8].hex()}"
            self.transport.abort()
            return
        self.acked += count
        self.driver.counters[ACKED] += count
        now, waiting, left = self.driver.clock(), self._waiting, count
        while left:
            oldest = waiting[0]
            taken = min(left, oldest[1])
            self.driver.latencies.append((now - oldest[0], taken))
            left -= taken
            oldest[1] -= taken
            if not oldest[1]:
                waiting.popleft()
        self.driver.answered(self)
