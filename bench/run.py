"""Drive Rulemill over real sockets, and Node-RED beside it on the same machine, and print what both did.

    python bench/run.py [A|B|C|all] [--seconds N] [--runs N] [--no-nodered] [--json FILE]

A: MQTT QoS 1 telemetry, 100 devices.  B: HTTP telemetry, 64 keep-alive connections.  Both run through
filter `temperature > 20`, script (Celsius to Fahrenheit, one key added), save_timeseries.
C: a device's RPC request over HTTP, answered by a chain; 1, 8 and 64 connections.
See bench/README.md for what the figures mean.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import measure
import report
from load.generator import Generator, GeneratorError
from load.payloads import FIRST
from peer import Peer, missing
from server import GROUPS, TENANT, Server, device
from stored import Stored

AHEAD = 10_000
"""Messages that may be on their way to the store: enough for full batches, too few for a backlog."""
PEER_AHEAD, PEER_AHEAD_SINGLE = 2_000, 200
MQTT_WINDOW = 50
CONNECTIONS = (1, 8, 64)


def telemetry(server, group, options):
    """Workload A or B against Rulemill: maximum, latency at half of it, ledger."""
    generator = Generator(server.target(group))
    names = [device(group, number) for number in range(GROUPS[group])]
    stored = Stored(server.data / "telemetry.db", TENANT, names, FIRST)
    try:
        half = []
        most = [
            measure.closed(
                server, generator, seconds=options.seconds, window=MQTT_WINDOW, ahead=AHEAD,
                progress=stored.progress, every_s=0.05,
            )
            for _ in range(options.runs)
        ]  # fmt: skip
        rate = report.median([run["rate"] for run in most]) / 2
        for _ in range(options.runs):
            samples = []
            run = measure.open_loop(
                server, generator, seconds=options.seconds, rate=rate, progress=stored.progress,
                sample=lambda samples=samples: stored.watch(0, samples),
            )  # fmt: skip
            run["visible"] = measure.visible(generator.ledger()["dues"], samples)
            half.append(run)
        ends = generator.ledger()
        return {"most": most, "half": half, "ledger": stored.ledger(ends["sent"], ends["acked"])}
    finally:
        generator.close()
        stored.close()


def peer_telemetry(peer, group, options, topic="joined", ahead=PEER_AHEAD):
    """The same against Node-RED."""
    generator = Generator(peer.target(group, topic))
    try:
        progress = measure.arrivals(generator)
        half = []
        most = [
            measure.closed(
                peer, generator, seconds=options.seconds, window=MQTT_WINDOW, ahead=ahead,
                progress=progress, every_s=0.005,
            )
            for _ in range(options.runs)
        ]  # fmt: skip
        rate = report.median([run["rate"] for run in most]) / 2
        for _ in range(options.runs):
            run = measure.open_loop(peer, generator, seconds=options.seconds, rate=rate, progress=progress)
            run["visible"] = (run["sink"]["p50_ms"], run["sink"]["p99_ms"])
            half.append(run)
        ends = generator.ledger()
        ledger = {
            "sent": sum(ends["sent"]), "acked": sum(ends["acked"]), "processed": ends["arrived"],
            "stored": ends["arrived"], "lost": sum(ends["acked"]) - ends["arrived"],
            "duplicated": ends["repeated"], "reordered": ends["reordered"],
        }  # fmt: skip
        return {"most": most, "half": half, "ledger": ledger}
    finally:
        generator.close()


def rpc(system, options):
    """Workload C: connections to runs."""
    results = {}
    for count in CONNECTIONS:
        # Only as many connections as are used: a server closes idle ones.
        generator = Generator({**system.target("rpc"), "devices": count})
        try:
            results[count] = [
                measure.calls(system, generator, seconds=max(1.0, options.seconds / 2)) for _ in range(options.runs)
            ]
        finally:
            generator.close()
    return results


def rulemill(wanted, options):
    """All wanted workloads against a fresh server."""
    server = Server()
    try:
        results = {}
        for name, group in (("A", "mqtt"), ("B", "http")):
            if name in wanted:
                results[name] = telemetry(server, group, options)
        if "C" in wanted:
            results["C"] = rpc(server, options)
    except GeneratorError as error:
        sys.exit(f"{error}\n--- the server's last words:\n{server.log()}")
    finally:
        code = server.close()
    if code:
        print(f"! rulemill up ended with code {code}", file=sys.stderr)
    return results


def node_red(wanted, options):
    """All wanted workloads against Node-RED."""
    peer = Peer(GROUPS)
    try:
        results = {}
        if "A" in wanted:
            results["A"] = peer_telemetry(peer, "mqtt", options)
            results["A single"] = peer_telemetry(peer, "mqtt", options, "single", PEER_AHEAD_SINGLE)
        if "B" in wanted:
            results["B"] = peer_telemetry(peer, "http", options)
        if "C" in wanted:
            results["C"] = rpc(peer, options)
        return results
    finally:
        peer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", nargs="?", default="all", choices=["A", "B", "C", "all"])
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each run (default 3)")
    parser.add_argument("--runs", type=int, default=3, help="runs of which the median counts (default 3)")
    parser.add_argument("--no-nodered", action="store_true", help="Rulemill alone")
    parser.add_argument("--json", metavar="FILE", help="write every figure there")
    options = parser.parse_args()
    wanted = "ABC" if options.workload == "all" else options.workload
    load, started = os.getloadavg()[0], time.monotonic()
    ours = rulemill(wanted, options)
    absent = missing()
    theirs = {} if options.no_nodered or absent else node_red(wanted, options)
    if absent and not options.no_nodered:
        print(f"Node-RED is left out: not installed: {', '.join(absent)}")
    print(f"{os.cpu_count()} cores, load {load:.1f} before the start, {time.monotonic() - started:.0f} s\n")
    report.show(ours, theirs)
    if options.json:
        Path(options.json).write_text(json.dumps({"rulemill": ours, "node-red": theirs}, indent=1))
    lost = [name for name in "AB" if name in ours and not report.intact(ours[name]["ledger"])]
    if lost:
        sys.exit(f"the ledger of workload {', '.join(lost)} does not balance")


if __name__ == "__main__":
    main()
