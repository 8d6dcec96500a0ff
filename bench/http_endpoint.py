"""CPU of one telemetry POST through listener, front and dialect, with nothing behind that stores.

    python -m bench.http_endpoint [seconds] [connections]

Starts a server process (core 0) and raw-socket clients with keep-alive (core 1), prints requests a second and the
server's CPU time a request; also the cost of one MQTT publication in the dialect alone.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import sys
import time
from typing import Any

import msgspec
import uvloop

TOKEN = "A1_TEST_TOKEN"
BODY = b'{"temperature":42.5,"humidity":73,"pressure":1013,"state":"ok"}'
REQUEST = (
    f"POST /api/v1/{TOKEN}/telemetry HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(BODY)}\r\n\r\n"
).encode() + BODY


def parts() -> Any:
    """The dialect's parts with a device in memory and an ingress that says yes."""
    from api.auth import token_print
    from api.dialects.thingsboard.parts import Parts
    from api.intake import Intake
    from api.rate_limits import RateLimits
    from engine.stores.registry import ACCESS_TOKEN, Device

    device = Device(id="d1", tenant="acme", name="d1")

    class Auth:
        def known(self, print_: str) -> Any:
            return device if print_ == known else None

        def on_change(self, callback: Any) -> Any:
            return lambda: None

    class Live:
        def on_lost(self, callback: Any) -> Any:
            return lambda: None

    class Null:
        def submit(self, messages: Any) -> Any:
            future = asyncio.get_running_loop().create_future()
            future.set_result(None)
            return future

    known = token_print(ACCESS_TOKEN, TOKEN)
    made: Any = {"auth": Auth(), "live": Live()}
    unused = ("replies", "commands", "attributes", "registry", "claims", "tellings", "firmware", "rollouts")
    made |= dict.fromkeys(unused) | {"limits": RateLimits("")}
    return Parts(intake=Intake(Null(), None), **made), device  # type: ignore[arg-type]


async def serve(listening: socket.socket, pipe: Any) -> None:
    from api.dialects.thingsboard.http import ThingsBoardHttp
    from api.transports.http import Front
    from api.transports.http_server import HttpListener

    made, _ = parts()
    listener = HttpListener("http", Front([ThingsBoardHttp(made)]), [listening])
    await listener.start()
    pipe.send("ready")
    while True:
        await asyncio.sleep(0.02)
        if pipe.poll():
            if pipe.recv() == "stop":
                break
            pipe.send(time.process_time())
    await listener.stop(1)


def server(listening: socket.socket, pipe: Any) -> None:
    pin(0)
    uvloop.run(serve(listening, pipe))


class Client(asyncio.Protocol):
    """Sends the next request when it has the answer to the last."""

    count = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        assert data.startswith(b"HTTP/1.1 200"), data
        Client.count += 1
        self.transport.write(REQUEST)


async def load(port: int, connections: int, seconds: float, pipe: Any) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(Client, "127.0.0.1", port)
    await asyncio.sleep(1.0)
    pipe.send("time")
    cpu, count, started = pipe.recv(), Client.count, time.perf_counter()
    await asyncio.sleep(seconds)
    pipe.send("time")
    cpu, count = pipe.recv() - cpu, Client.count - count
    rate = count / (time.perf_counter() - started)
    print(f"HTTP: {rate:,.0f} requests/s over {connections} connections, {cpu / count * 1e6:.1f} us of CPU each")


def pin(core: int) -> None:
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {core})


async def publications() -> None:
    """The dialect's part of one MQTT publication."""
    from api.auth import token_print
    from api.dialects.thingsboard.session import DeviceLogin, Shared
    from engine.stores.registry import ACCESS_TOKEN

    made, device = parts()
    login = DeviceLogin(Shared(made, lambda device: None), device, token_print(ACCESS_TOKEN, TOKEN))
    best = 1.0
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(20_000):
            login.publish("v1/devices/me/telemetry", BODY, 1, False)
        best = min(best, (time.perf_counter() - started) / 20_000)
    print(f"MQTT: {best * 1e6:.2f} us a publication in the dialect ({len(msgspec.json.decode(BODY))} values)")


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    connections = int(sys.argv[2]) if len(sys.argv) > 2 else 32
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(1024)
    listening.setblocking(False)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=server, args=(listening, theirs))
    process.start()
    ours.recv()
    pin(1)
    asyncio.run(publications())
    uvloop.run(load(listening.getsockname()[1], connections, seconds, ours))
    ours.send("stop")
    process.join(5)


if __name__ == "__main__":
    main()
