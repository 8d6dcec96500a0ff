"""ThingsBoard's own SDK against a server under test, in a process of its own: its paho is not the one we have."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.services import thingsboard_sdk

WAIT_S = 20.0


class Sdk:
    """A client of the SDK. `call` does something with it, `event` waits for a callback named by `callback`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._events: dict[str, asyncio.Queue[list[Any]]] = {}
        self._reading = asyncio.create_task(self._read())

    async def call(self, name: str, *args: Any, **named: Any) -> Any:
        """What a method gives (`Class.method` for a static one); of a publication its code, once it is acknowledged.

        The name of an attribute gives its value.
        """
        id, answer = len(self._calls), asyncio.get_running_loop().create_future()
        self._calls[id] = answer
        assert self._process.stdin is not None
        said = json.dumps({"id": id, "call": name, "args": args, "named": named})
        self._process.stdin.write(said.encode() + b"\n")
        async with asyncio.timeout(WAIT_S):
            return await answer

    async def event(self, name: str) -> list[Any]:
        """The arguments of the next call of a callback."""
        async with asyncio.timeout(WAIT_S):
            return await self._events.setdefault(name, asyncio.Queue()).get()

    async def connect(self, **named: Any) -> None:
        """Connect, and wait until it is, with its subscriptions and its limits."""
        # Not by the SDK's own callback: it is remembered only after the connection may have been made.
        await self.call("connect", **named)
        async with asyncio.timeout(WAIT_S):
            while not await self.call("rate_limits_received"):
                await asyncio.sleep(0.02)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            if "event" in said:
                self._events.setdefault(said["event"], asyncio.Queue()).put_nowait(said["args"])
            elif "error" in said:
                self._calls[said["id"]].set_exception(RuntimeError(said["error"]))
            else:
                self._calls[said["id"]].set_result(said["result"])

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 5)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reading


def callback(name: str) -> dict[str, str]:
    """An argument: a function whose calls `Sdk.event` gives."""
    return {"callback": name}


@asynccontextmanager
async def sdk(kind: str = "TBDeviceMqttClient", **options: Any) -> AsyncIterator[Sdk]:
    """A client made with these options, not yet connected. Skips where the SDK is not installed."""
    script = Path(__file__).with_name("sdk_process.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), kind, json.dumps(options), cwd=script.parent,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={"PYTHONPATH": str(thingsboard_sdk())},
    )  # fmt: skip
    client = Sdk(process)
    try:
        await client.event("ready")
        yield client
    finally:
        await client.end()
