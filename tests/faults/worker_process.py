"""A worker process for tests that kill it: `python -m tests.faults.worker_process URL NAME LOG`.

Its one chain notes each message it runs in a file (before anything else is done with it, so that every delivery
counts), counts it in the device's state, sends commands, and saves a point. Poison kills the process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from engine import leases
from engine.message import Message, now_ms
from engine.outcomes import Command, Outcomes, Write
from engine.stores.sqlite import SqliteTimeseries
from engine.stores.timeseries import Timeseries
from tests.engine.bench import PARTITIONS
from tests.engine.toy import Delay, Do, Plans, Save, plan, worker


def deadly(log: int) -> Any:
    async def run(i: int, m: Message, out: Outcomes, ctx: Any) -> None:
        os.write(log, f"{m.originator} {m.data['n']}\n".encode())
        poison = m.data.get("poison", "")
        if poison == "abort":
            os.abort()
        if poison == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if poison == "exit":
            os._exit(3)
        await ctx.load([(m.originator, "attr", "n")])
        seen = int(ctx.get(m.originator, "attr", "n") or 0)
        out.effect(i, Write("attr", "n", b"%d" % (seen + 1)))
        out.effect(i, Command("turn", m.data["n"], now_ms() + 3_600_000))
        out.emit(i, "wait" if m.data.get("wait") else "Success", m)

    return run


def store_for(log: str) -> Timeseries:
    """InfluxDB if the test names one, else a file beside the log."""
    if url := os.environ.get("RULEMILL_TEST_STORE", ""):
        from engine.stores.influx import InfluxTimeseries

        return InfluxTimeseries(url)
    return SqliteTimeseries(f"{log}.db")


async def main(url: str, name: str, log: str) -> None:
    # A frozen worker's lease must run out while the test watches.
    leases.LIFE_MS = int(os.environ.get("RULEMILL_TEST_LEASE_MS", leases.LIFE_MS))
    leases.RENEW_EVERY_S, leases.BEAT_LIFE_S = leases.LIFE_MS / 5000, leases.LIFE_MS * 0.0008
    notes = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    chain = plan(
        ("deadly", Do(deadly(notes)), {"Success": ["save"], "wait": ["wait"]}),
        ("save", Save(), {}),
        ("wait", Delay(50), {"timer": ["save"]}),
        rounds=True,
    )
    made = worker(url, Plans(chain), store_for(log), name, PARTITIONS)
    await made.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await made.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
