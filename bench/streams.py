"""Memory and CPU of idle command streams, and how soon a command reaches them.

    python bench/streams.py [streams] [keep-alive in ms] [listener]

Starts a whole server, opens that many streams of as many devices (1000, 10000, ct_http) on raw sockets, and prints what
each costs the API process in resident memory and in CPU at rest, whether blank messages were on time, and how long one
command to each of 100 devices took from the call of the management API to the socket. Exits with 1 above 40 KB.
"""

import asyncio
import base64
import json
import os
import statistics
import sys
import time
from pathlib import Path

import httpx
import server as bench_server
import uvloop
from processes import tree

LIMIT_KB = 40
CONNECTING = 50
COMMANDED = 100
TOKEN = "bench-operator"
COMMAND = {"method": "turn", "params": "ON", "oneway": True}


def bootstrap(count):
    """A tenant with the default chain, and its devices."""
    devices = [
        {
            "tenant": "bench",
            "name": f"s{number}",
            "id": f"s{number}",
            "external_id": f"s{number}",
            "credentials": [{"kind": "CT_TOKEN", "value": f"token-{number}"}],
        }
        for number in range(count)
    ]
    return {"tenants": [{"name": "bench"}], "devices": devices}


def api_process(pid):
    """The id of the server's API process."""
    for each in tree(pid):
        words = Path(f"/proc/{each}/cmdline").read_bytes().split(b"\0")
        if b"api" in words and b"worker" not in words and b"up" not in words:
            return each
    raise SystemExit("the server has no API process")


def resident_kb(pid):
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def cpu_s(pid):
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def open_stream(number, address, every_ms, gate):
    """A stream whose head has come: its reader and writer."""
    async with gate:
        reader, writer = await asyncio.open_connection(*address)
        login = base64.b64encode(f"s{number}:token-{number}".encode()).decode()
        head = (
            f"GET /v1/s{number}/commands?stream={every_ms} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {login}\r\n\r\n"
        )
        writer.write(head.encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in answer.split(b"\r\n")[0], answer
        return reader, writer


async def reached(client, number, reader):
    """Seconds from the call until the chunk is there."""
    began = time.perf_counter()
    call = asyncio.create_task(client.post(f"/flow/v1/tenants/bench/devices/s{number}/rpc", json=COMMAND))
    wanted = b"2;id=turn\r\nON\r\n"
    heard = b""
    while not heard.endswith(wanted):
        heard += await reader.readexactly(1)
    took = time.perf_counter() - began
    (await call).raise_for_status()
    return took


async def measure(ready, pid, count, every_ms, listener):
    """Print the numbers; whether they hold."""
    host, _, port = ready["listeners"][listener].rpartition(":")
    address = (host, int(port))
    gate = asyncio.Semaphore(CONNECTING)
    warm = [await open_stream(number, address, every_ms, gate) for number in range(min(20, count))]
    for _, writer in warm:
        writer.close()
    await asyncio.sleep(2)
    before = resident_kb(pid)
    streams = await asyncio.gather(*[open_stream(number, address, every_ms, gate) for number in range(count)])
    await asyncio.sleep(1)
    each_kb = (resident_kb(pid) - before) / count
    print(f"{count} streams on {listener}: {each_kb:.1f} KB resident each ({before / 1024:.0f} MB before)")
    used, began = cpu_s(pid), time.perf_counter()
    blank = b"1\r\n\n\r\n"

    async def silence(reader):
        await reader.readexactly(len(blank))
        first = time.perf_counter()
        assert await reader.readexactly(len(blank)) == blank
        return time.perf_counter() - first

    gaps = await asyncio.gather(*[silence(reader) for reader, _ in streams])
    share = (cpu_s(pid) - used) / (time.perf_counter() - began)
    late_ms = [gap * 1000 - every_ms for gap in gaps]
    print(f"blank messages every {every_ms} ms: off by {min(late_ms):.0f} to {max(late_ms):.0f} ms")
    print(f"CPU of the API process meanwhile: {share:.1%} of a core")
    async with httpx.AsyncClient(base_url=ready["http"], headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        times = [
            await reached(client, number, reader) for number, (reader, _) in enumerate(streams[: min(COMMANDED, count)])
        ]
    times = sorted(1000 * each for each in times)
    print(f"a command to the socket: median {statistics.median(times):.1f} ms, slowest {times[-1]:.1f} ms")
    for _, writer in streams:
        writer.close()
    return each_kb <= LIMIT_KB


def main():
    """Run it."""
    count, every_ms = int(sys.argv[1]) if sys.argv[1:] else 1000, int(sys.argv[2]) if sys.argv[2:] else 10_000
    listener = sys.argv[3] if sys.argv[3:] else "ct_http"
    bench_server.bootstrap = lambda: bootstrap(count)
    environment = {"RULEMILL_OPERATOR_TOKEN": TOKEN}
    if listener != "http":
        environment[f"RULEMILL_LISTEN_{listener.upper()}"] = "127.0.0.1:0"
    running = bench_server.Server(environment)
    try:
        print(json.dumps(running.ready), file=sys.stderr)
        held = uvloop.run(measure(running.ready, api_process(running.pid), count, every_ms, listener))
    finally:
        running.close()
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
