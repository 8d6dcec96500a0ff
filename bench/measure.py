"""One phase at a time: how many messages went all the way through, what they cost, how long they took."""

import time

from load.counters import ACKED, ARRIVED, LIMIT, UNLIMITED
from processes import cpu_s, machine_s

WARM_S = 1.0
DRAINED_WITHIN_S = 30.0


class Mark:
    """CPU clocks at one moment: of the system under test by role, of the generator, of everybody."""

    def __init__(self, system, generator):
        self.at = time.monotonic()
        self.roles = system.usage.read()
        self.generator = cpu_s(generator.pid)
        self.bench = time.process_time()
        self.machine = machine_s()

    def until(self, later, count):
        """What `count` messages cost between two marks."""
        wall = later.at - self.at
        roles = {role: used - self.roles.get(role, 0.0) for role, used in later.roles.items()}
        ours = sum(roles.values()) + later.generator - self.generator + later.bench - self.bench
        return {
            "cpu_us": {role: used / count * 1e6 for role, used in roles.items()},
            "busy": {role: used / wall for role, used in roles.items()},
            "generator_us": (later.generator - self.generator) / count * 1e6,
            "others": max(0.0, (later.machine - self.machine - ours) / wall),
        }


def closed(system, generator, *, seconds, window, ahead, progress, every_s):
    """The most that goes through: `window` messages of a device unanswered, at most `ahead` not yet at the end.

    `progress()` says how many messages of this generator have reached the end (the store, the sink).
    """
    counters = generator.counters
    counters[LIMIT] = progress() + ahead
    generator.begin("closed", seconds=WARM_S + seconds + 0.2, window=window)
    start = time.monotonic()
    before, first = None, 0
    held = polls = 0
    while True:
        done, now = progress(), time.monotonic()
        held += counters[LIMIT] <= counters[0]
        polls += 1
        counters[LIMIT] = done + ahead
        if before is None and now - start >= WARM_S:
            before, first = Mark(system, generator), done
        elif before is not None and now - before.at >= seconds:
            break
        if generator.done():
            break
        time.sleep(every_s)
    after = Mark(system, generator)
    generator.result()
    counters[LIMIT] = UNLIMITED
    count = max(done - first, 1)
    return {
        "rate": count / (after.at - before.at),
        **before.until(after, count),
        "held": held / polls,
        "drain_s": drained(generator, progress),
        "memory_mb": system.usage.memory(),
    }


def open_loop(system, generator, *, seconds, rate, progress, sample=None):
    """Latency at a fixed rate. `sample()` is called every millisecond or so meanwhile."""
    before = Mark(system, generator)
    generator.begin("open", seconds=seconds, rate=rate)
    while not generator.done(0.001):
        if sample is not None:
            sample()
    made = generator.result()
    end = time.monotonic() + 1.0
    while sample is not None and time.monotonic() < end:
        sample()
        time.sleep(0.001)
    after = Mark(system, generator)
    drained(generator, progress)
    return {**made, "rate": made["acked"] / made["seconds"], **before.until(after, max(made["acked"], 1))}


def calls(system, generator, *, seconds):
    """Calls one after the other on each connection: rate and latency."""
    generator.begin("closed", seconds=0.3, window=1)
    generator.result()
    before, first = Mark(system, generator), generator.counters[ACKED]
    generator.begin("closed", seconds=seconds, window=1)
    made = generator.result()
    cost = before.until(Mark(system, generator), max(generator.counters[ACKED] - first, 1))
    return {**made, "rate": made["acked"] / made["seconds"], **cost}


def drained(generator, progress):
    """Wait until all that was acknowledged is at the end; seconds it took."""
    start = last_change = time.monotonic()
    last = -1
    while (done := progress()) < generator.counters[ACKED]:
        now = time.monotonic()
        if done != last:
            last, last_change = done, now
        if now - last_change > DRAINED_WITHIN_S:
            break
        time.sleep(0.05)
    return time.monotonic() - start


def arrivals(generator):
    """Progress of a generator with a sink."""
    return lambda: generator.counters[ARRIVED]


def visible(dues, samples):
    """Milliseconds from when a message was due to when it was seen in the store: (p50, p99), or None.

    `samples`: (seconds, how many messages are stored), in time.
    """
    delays = []
    at = 0
    for i, due in enumerate(dues):
        if due < samples[0][0]:
            continue
        while at < len(samples) and samples[at][1] <= i:
            at += 1
        if at == len(samples):
            break
        delays.append((samples[at][0] - due) * 1e3)
    if not delays:
        return None
    delays.sort()
    return delays[len(delays) // 2], delays[min(len(delays) - 1, int(len(delays) * 0.99))]
