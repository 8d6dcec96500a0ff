"""An HTTP device on one keep-alive connection, one request at a time: POSTs telemetry or RPC requests."""

import asyncio
from collections import deque

from load.counters import ACKED, ERRORS, SENT
from load.payloads import FIRST, rpc, telemetry


class HttpDevice(asyncio.Protocol):
    """One connection. What is due while a request is out waits for its answer."""

    def __init__(self, driver, number, target):
        self.driver, self.number = driver, number
        self.ready = asyncio.get_running_loop().create_future()
        self.closed = ""
        self._payload = rpc if target["kind"] == "rpc" else telemetry
        self._echo = target["kind"] == "rpc"
        self._head = (
            f"POST {target['path'].format(target['token'].format(number))} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(self._payload(FIRST))}\r\n\r\n"
        ).encode()
        self._due = deque()
        self._out = 0.0
        self._buffer = b""
        self.sent = self.acked = 0
        self.dues = None

    def connection_made(self, transport):
        self.transport = transport
        self.ready.set_result(None)

    def connection_lost(self, error):
        self.closed = str(error or "closed by the server")

    def room(self, window):
        return 1 - (self.sent - self.acked)

    def publish(self, count, due):
        """Send `count` messages that were to be sent at `due` (seconds, monotonic), one after the other."""
        self._due += [due] * count
        if self.sent == self.acked:
            self._next()

    def _next(self):
        self._out = self._due.popleft()
        if self.dues is not None:
            self.dues.append(self._out)
        self.transport.write(self._head + self._payload(FIRST + self.sent))
        self.sent += 1
        self.driver.counters[SENT] += 1

    def data_received(self, data):
        if self._buffer:
            data = self._buffer + data
        body = self._complete(data)
        if body is None:
            self._buffer = data
            return
        self._buffer = b""
        counters = self.driver.counters
        if data[9:10] != b"2" or (self._echo and b'"seq":%d' % (FIRST + self.acked) not in body.replace(b" ", b"")):
            counters[ERRORS] += 1
            self.closed = f"unexpected answer: {data[:300]!r}"
            self.transport.abort()
            return
        self.acked += 1
        counters[ACKED] += 1
        self.driver.latencies.append((self.driver.clock() - self._out, 1))
        if self._due:
            self._next()
        else:
            self.driver.answered(self)

    @staticmethod
    def _complete(data):
        """The body of a whole response; None while some of it is missing."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = data[:end].lower()
        at = head.find(b"content-length:")
        body = data[end + 4 :]
        if at >= 0:
            length = head[at + 15 :].split(b"\r\n", 1)[0]
            return body if len(body) >= int(length) else None
        if b"chunked" in head:
            return body if body.endswith(b"0\r\n\r\n") else None
        return body
