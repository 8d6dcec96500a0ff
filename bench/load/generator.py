"""A generator in its own process, told what to do over a pipe."""

import asyncio
import gc
import multiprocessing
import time

import uvloop

from load import counters as shared
from load.driver import Driver

_spawn = multiprocessing.get_context("spawn")


class GeneratorError(RuntimeError):
    """The generator could not do what it was told: a connection ended, an answer was wrong."""


class Generator:
    """The near end: starts the process, gives phases, reads counters.

    `target`: kind (mqtt, http, rpc), host, port, devices; format strings of a device's number: login (user name, and
    password if it has one) and topic for MQTT, token for HTTP, where path is one of the token; sink_port (0: no sink).
    """

    def __init__(self, target):
        self.counters = shared.make()
        self._pipe, theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=_run, args=(target, self.counters, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.pid = self._process.pid
        self.result(within_s=40)

    def begin(self, phase, **options):
        """Start a phase (`closed` or `open`); returns at once."""
        self._pipe.send((phase, options))

    def done(self, wait_s=0.0):
        """Whether the phase's result is there."""
        return self._pipe.poll(wait_s)

    def result(self, within_s=120.0):
        """The phase's result."""
        if not self._pipe.poll(within_s):
            raise GeneratorError(f"the generator has not answered for {within_s} s")
        try:
            verdict, made = self._pipe.recv()
        except EOFError:
            raise GeneratorError("the generator's process died") from None
        if verdict != "ok":
            raise GeneratorError(made)
        return made

    def ledger(self):
        self.begin("ledger")
        return self.result()

    def close(self):
        """End the process."""
        self._pipe.close()
        self._process.join(2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _run(target, counters, pipe):
    gc.disable()  # nothing here makes cycles, and a collection would be measured as the server's latency
    uvloop.run(_serve(target, counters, pipe))


async def _serve(target, counters, pipe):
    driver = Driver(target, counters)
    readable = asyncio.Event()
    try:
        await driver.connect()
        pipe.send(("ok", None))
    except Exception as error:
        pipe.send(("failed", f"cannot connect: {error or type(error).__name__}"))
        return
    asyncio.get_running_loop().add_reader(pipe.fileno(), readable.set)
    while True:
        await readable.wait()
        readable.clear()
        try:
            phase, options = pipe.recv()
        except EOFError:
            return
        try:
            made = driver.ledger() if phase == "ledger" else await getattr(driver, phase)(**options)
            pipe.send(("ok", made))
        except Exception as error:
            pipe.send(("failed", f"{type(error).__name__}: {error}"))
            time.sleep(0.1)
            return
