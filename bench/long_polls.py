"""Memory and CPU of open long polls of ThingsBoard devices, and how soon a change reaches them.

    python bench/long_polls.py [polls] [changes]

Starts a whole server, opens that many polls (2000), half of them for changes of shared attributes and half for
commands, each of a device of its own, on raw sockets. Prints what each costs the API process in resident memory, what
all of them cost at rest in CPU and in commands to Redis; how long after the call of the management API a change was on
the socket, one after the other (400) and all polls of one device at once; and how far from their time polls ended that
nothing happened to. Exits with 1 when a change took more than 50 ms at the 99th percentile.
"""

import asyncio
import json
import sys
import time

import httpx
import redis
import server as bench_server
import uvloop

LIMIT_MS = 50
OPENED_PER_S = 500
REST_S = 5.0
TIMEOUT_MS = 10_000
TOKEN = "bench-operator"


def bootstrap(count):
    """A tenant with the default chain, its devices, and one device for which all wait."""
    names = [f"p{number}" for number in range(count)] + ["all"]
    devices = [
        {"tenant": "bench", "name": name, "id": name, "credentials": [{"kind": "ACCESS_TOKEN", "value": f"t-{name}"}]}
        for name in names
    ]
    return {"tenants": [{"name": "bench"}], "devices": devices}


def own(number):
    """The device of a poll, its own."""
    return f"p{number}"


def what(number):
    """Which poll a device has open."""
    return "rpc" if number % 2 else "attributes/updates"


async def open_poll(address, name, path, timeout_ms, after_s):
    """A poll that was asked for: its reader and writer, and when."""
    await asyncio.sleep(after_s)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(f"GET /api/v1/t-{name}/{path}?timeout={timeout_ms} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return reader, writer, time.perf_counter()


async def answered(reader, status=200):
    """When the answer's head was there."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), head
    return time.perf_counter()


async def change(client, number):
    """Do what the poll of a device waits for."""
    device = f"/flow/v1/tenants/bench/devices/p{number}"
    if what(number) == "rpc":
        call = client.post(device + "/rpc", json={"method": "turn", "params": "ON", "oneway": True})
    else:
        call = client.put(device + "/attributes/SHARED", json={"a": 1})
    (await call).raise_for_status()


async def reached(client, number, reader):
    """Milliseconds from the call until the answer was there."""
    began = time.perf_counter()
    call = asyncio.create_task(change(client, number))
    took = await answered(reader) - began
    await call
    return 1000 * took


def at(share, values):
    """The value below which that share of the values is."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def shown(values):
    """The middle, the tail and the worst."""
    return f"median {at(0.5, values):.1f} ms, p99 {at(0.99, values):.1f} ms, slowest {max(values):.1f} ms"


async def open_polls(address, count, name, path, timeout_ms):
    """That many polls, opened one after the other; `name` and `path` tell of each."""
    calls = [open_poll(address, name(i), path(i), timeout_ms, i / OPENED_PER_S) for i in range(count)]
    polls = await asyncio.gather(*calls)
    await asyncio.sleep(1)
    return polls


def close_all(polls):
    """Hang up."""
    for _, writer, _ in polls:
        writer.close()


async def at_rest(usage, store):
    """Print what open polls cost while nothing happens."""
    calls = store.info("stats")["total_commands_processed"]
    cpu, began = usage.read()["api"], time.perf_counter()
    await asyncio.sleep(REST_S)
    took = time.perf_counter() - began
    calls = store.info("stats")["total_commands_processed"] - calls
    return (usage.read()["api"] - cpu) / took, calls / took


async def measure(running, count, changes):
    """Print the numbers; whether they hold."""
    host, _, port = running.ready["listeners"]["http"].rpartition(":")
    address = (host, int(port))
    store = redis.Redis(unix_socket_path=str(running.data / "redis" / "redis.sock"))
    close_all(await open_polls(address, 20, own, what, 60_000))
    await asyncio.sleep(2)
    before = running.usage.memory()["api"]
    share, rate = await at_rest(running.usage, store)
    print(f"no poll: {share:.1%} of a core in the API process, {rate:.0f} commands/s to Redis from all processes")
    polls = await open_polls(address, count, own, what, 300_000)
    each_kb = (running.usage.memory()["api"] - before) * 1000 / count
    print(f"{count} polls: {each_kb:.1f} KB resident each ({before:.0f} MB before)")
    share, rate = await at_rest(running.usage, store)
    print(f"at rest: {share:.1%} of a core in the API process, {rate:.0f} commands/s to Redis from all processes")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=running.ready["http"], headers=headers) as client:
        times = [await reached(client, i, polls[i][0]) for i in range(changes)]
        for kind in ("attributes/updates", "rpc"):
            print(f"{kind}: {shown([each for i, each in enumerate(times) if what(i) == kind])}")
        close_all(polls)
        polls = await open_polls(address, count, lambda _: "all", lambda _: "attributes/updates", 300_000)
        waiting = [asyncio.create_task(answered(reader)) for reader, _, _ in polls]
        cpu, began = running.usage.read()["api"], time.perf_counter()
        (await client.put("/flow/v1/tenants/bench/devices/all/attributes/SHARED", json={"a": 1})).raise_for_status()
        at_once = [1000 * (each - began) for each in await asyncio.gather(*waiting)]
        cpu_us = (running.usage.read()["api"] - cpu) * 1e6 / count
        print(f"{count} polls of one device at once: {shown(at_once)}, {cpu_us:.0f} us of CPU each")
        close_all(polls)
    polls = await open_polls(address, count, own, lambda i: what(i + 1), TIMEOUT_MS)
    ends = await asyncio.gather(*[answered(reader, 408) for reader, _, _ in polls])
    late = [1000 * (end - polls[i][2]) - TIMEOUT_MS for i, end in enumerate(ends)]
    print(f"polls of {TIMEOUT_MS} ms: off by {min(late):.0f} to {max(late):.0f} ms, median {at(0.5, late):.0f} ms")
    close_all(polls)
    return at(0.99, times) <= LIMIT_MS


def main():
    """Run it."""
    count = int(sys.argv[1]) if sys.argv[1:] else 2000
    changes = int(sys.argv[2]) if sys.argv[2:] else 400
    bench_server.bootstrap = lambda: bootstrap(count)
    running = bench_server.Server({"RULEMILL_OPERATOR_TOKEN": TOKEN})
    try:
        print(json.dumps(running.ready), file=sys.stderr)
        held = uvloop.run(measure(running, count, min(changes, count)))
    finally:
        running.close()
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
