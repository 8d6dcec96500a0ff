"""Processor time of a message in a script node: filter, switch and transform, in Lua and JavaScript, by batch size.

    taskset -c 0 python bench/scripts.py [--rounds 15] [--only lua] [--json]

Whole node calls are measured (`process`: values in, script, values out, outcomes), each on telemetry of 2 to 5 values
and 5 metadata entries. The cases take turns, so that a slow moment of the machine meets all of them; what is printed is
the median over the rounds, in µs a message, and (in brackets) as a multiple of a fixed loop of plain Python that runs
beside them: compare that number between runs and machines.
"""

import argparse
import contextlib
import json
import statistics
import time

import msgspec

from nodes import Message, Outcomes
from nodes.filter import Filter
from nodes.script import ScriptNode
from nodes.switch import Switch

SIZES = (1, 10, 100)
CASES = {
    "lua filter": (Filter, "lua", "return msg.temperature > 20"),
    "lua filter by metadata": (Filter, "lua", "return metadata.deviceType == 'sensor'"),
    "lua switch": (Switch, "lua", "if msg.temperature > 20 then return 'hot' end return {'cold', 'all'}"),
    "lua transform": (ScriptNode, "lua", "msg.f = msg.temperature*9/5+32; msg.k='x'; return {msg=msg}"),
    "lua all three": (ScriptNode, "lua", "return {msg = msg, metadata = metadata, msgType = msgType}"),
    "js filter": (Filter, "js", "return msg.temperature > 20"),
    "js filter by metadata": (Filter, "js", "return metadata.deviceType === 'sensor'"),
    "js switch": (Switch, "js", "if (msg.temperature > 20) return 'hot'; return ['cold', 'all']"),
    "js transform": (ScriptNode, "js", "msg.f = msg.temperature*9/5+32; msg.k='x'; return {msg}"),
    "js all three": (ScriptNode, "js", "return {msg, metadata, msgType}"),
}


class Surroundings:
    """What the node is built with and runs in."""

    tenant, chain, node, now_ms = "t", "bench", "node", 1_700_000_000_000

    def progress(self): ...


def messages(size):
    """Telemetry as devices send it: no two of a batch have the same values."""
    made = []
    for i in range(size):
        data = {
            "temperature": 15 + i % 10 + 0.5,
            "humidity": 40 + i,
            "state": f"run-{i}",
            "open": i % 2 == 0,
            "pressure": 1013.25 + i,
        }
        metadata = {
            "deviceName": f"sensor-{i}",
            "deviceType": "sensor",
            "ts": str(1_700_000_000_000 + i),
            "productId": "8f14e45f",
            "ct": "json",
        }
        data = dict(list(data.items())[: 2 + i % 4])
        made.append(
            Message(id=f"m{i}", ts_ms=i, tenant="t", type="POST_TELEMETRY_REQUEST", originator=f"d{i}", data=data,
                    metadata=metadata)
        )  # fmt: skip
    return made


def reference():
    """µs of a round of plain Python that no change of the project makes faster or slower."""
    began = time.perf_counter()
    for _ in range(20):
        found = {}
        for i in range(100):
            found[str(i)] = [i, i * 2.5]
        sum(value for _, value in found.values())
    return (time.perf_counter() - began) * 1e6 / 2000


def measure(node, batch, calls):
    """µs a message."""
    began = time.perf_counter()
    for _ in range(calls):
        out = Outcomes(len(batch))
        with contextlib.suppress(StopIteration):
            node.process(batch, out, Surroundings).send(None)
    took = time.perf_counter() - began
    if out.failed:
        raise SystemExit(f"failed: {out.failed}")
    return took * 1e6 / (calls * len(batch))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--json", action="store_true", help="print case, size and µs of each round as JSON")
    options = parser.parse_args()
    Surroundings.progress = staticmethod(lambda: None)
    cases = {}
    for name, (kind, lang, source) in CASES.items():
        if options.only in name:
            config = msgspec.convert({"lang": lang, "source": source}, kind.spec.config)
            cases[name] = kind(config, Surroundings)
    batches = {size: messages(size) for size in SIZES}
    took = {(name, size): [] for name in cases for size in SIZES}
    beside = []
    for _ in range(options.rounds + 1):
        for (name, size), found in took.items():
            found.append(measure(cases[name], batches[size], 400 // size + 1))
        beside.append(reference())
    unit = statistics.median(beside[1:])
    if options.json:
        print(json.dumps({f"{name}/{size}": [x / unit for x in found[1:]] for (name, size), found in took.items()}))
        return
    print(f"reference {unit:.3f} µs\n{'':24}" + "".join(f"{f'batch {size}':>18}" for size in SIZES))
    for name in cases:
        row = [statistics.median(took[name, size][1:]) for size in SIZES]
        print(f"{name:24}" + "".join(f"{x:9.2f} ({x / unit:5.1f})" for x in row))


if __name__ == "__main__":
    main()
