"""Closed and open loops over many devices, in one event loop."""

import asyncio
import time

from load.counters import ACKED, ERRORS, LIMIT, SENT
from load.http import HttpDevice
from load.mqtt import MqttDevice
from load.sink import Sink, SinkConnection

TICK_S = 0.001
ANSWERS_WITHIN_S = 30.0


class Driver:
    """Connects the devices of a target and runs phases. Connections stay open from one phase to the next."""

    def __init__(self, target, counters):
        self.target, self.counters = target, counters
        self.clock = time.monotonic
        self.devices = []
        self.latencies = []
        self.sink = Sink(self) if target.get("sink_port") else None
        self._window = 0

    async def connect(self):
        """Open the sink, then every device's connection."""
        loop, target = asyncio.get_running_loop(), self.target
        if self.sink is not None:
            await loop.create_server(lambda: SinkConnection(self.sink), "127.0.0.1", target["sink_port"])
        kind = MqttDevice if target["kind"] == "mqtt" else HttpDevice
        for number in range(target["devices"]):
            _, device = await loop.create_connection(
                lambda number=number: kind(self, number, target), target["host"], target["port"]
            )
            self.devices.append(device)
            if self.sink is not None or number == 0:
                device.dues = []
        await asyncio.wait_for(asyncio.gather(*(device.ready for device in self.devices)), 20)

    def answered(self, device):
        """A device has room again."""
        if self._window:
            room = min(device.room(self._window), self._allowed())
            if room > 0:
                device.publish(room, self.clock())

    def _allowed(self):
        return self.counters[LIMIT] - self.counters[SENT]

    async def closed(self, seconds, window):
        """Keep up to `window` messages of each device unanswered, as long as LIMIT lets more be sent."""
        begun = self._begin()
        self._window = window
        end = self.clock() + seconds
        while (now := self.clock()) < end:
            for device in self.devices:
                room = min(device.room(window), self._allowed())
                if room > 0 and not device.closed:
                    device.publish(room, now)
            self._check()
            await asyncio.sleep(5 * TICK_S)
        self._window = 0
        return await self._finish(begun)

    async def open(self, seconds, rate):
        """Send `rate` messages a second, devices in turn, whatever comes back; latency counts from due times."""
        begun = self._begin()
        devices, count = self.devices, len(self.devices)
        start = self.clock()
        sent = turn = tick = 0
        late = 0.0
        while tick * TICK_S < seconds:
            due = start + tick * TICK_S
            wait = due - self.clock()
            if wait > 0:
                await asyncio.sleep(wait)
            else:
                late = max(late, -wait)
                await asyncio.sleep(0)
            wanted = int(tick * TICK_S * rate) - sent
            sent += wanted
            each, more = divmod(wanted, count)
            for i in range(count if each else more):
                devices[(turn + i) % count].publish(each + (i < more), due)
            turn += more
            tick += 1
            if not tick % 100:
                self._check()
        return {**await self._finish(begun), "late_ms": late * 1e3}

    def _begin(self):
        self.latencies.clear()
        if self.sink is not None:
            self.sink.latencies.clear()
        return self.counters[ACKED], self.clock(), time.process_time()

    async def _finish(self, begun):
        acked, started, cpu = begun
        wall, cpu = self.clock() - started, time.process_time() - cpu
        count = self.counters[ACKED] - acked
        deadline = self.clock() + ANSWERS_WITHIN_S
        while any(device.sent != device.acked for device in self.devices):
            self._check()
            if self.clock() > deadline:
                break
            await asyncio.sleep(0.01)
        return {
            "acked": count,
            "seconds": wall,
            "generator_cpu_s": cpu,
            **percentiles(self.latencies),
            **({"sink": percentiles(self.sink.latencies)} if self.sink is not None else {}),
        }

    def _check(self):
        closed = [device for device in self.devices if device.closed]
        if closed:
            self.counters[ERRORS] += 1
            raise ConnectionError(f"device {closed[0].number}: {closed[0].closed} ({len(closed)} connections ended)")

    def ledger(self):
        """What each device sent and how much of it was acknowledged; the sink's findings, where there is one."""
        made = {"sent": [d.sent for d in self.devices], "acked": [d.acked for d in self.devices]}
        made["dues"] = self.devices[0].dues
        if self.sink is not None:
            made["arrived"] = sum(len(seen) for seen in self.sink.seen.values())
            for name in ("repeated", "reordered", "unreadable", "posts"):
                made[name] = getattr(self.sink, name)
            made["dues"] = None
        return made


def percentiles(latencies):
    """Median, 99th percentile and maximum in milliseconds of (seconds, how many) pairs."""
    latencies = sorted(latencies)
    total = sum(count for _, count in latencies)
    made = {}
    for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99)):
        left = total * share
        for seconds, count in latencies:
            left -= count
            if left <= 0:
                made[name] = seconds * 1e3
                break
    return {**made, "max_ms": latencies[-1][0] * 1e3, "answers": total} if latencies else {"answers": 0}
