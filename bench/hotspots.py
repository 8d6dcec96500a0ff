"""Where the CPU time of the API and worker processes goes under load: microseconds a message by line and function.

    python bench/hotspots.py [A|B|C] [--seconds N] [--top N] [--rate R]

`self` is time in that line itself and in the C code it calls; `with callees` is time in a function and all below it.
"""

import argparse
import json
import os
import signal
import tempfile
import time
from pathlib import Path

from load.counters import ACKED, LIMIT
from load.generator import Generator
from load.payloads import FIRST
from processes import command, cpu_s, tree
from run import AHEAD, MQTT_WINDOW
from server import GROUPS, TENANT, Server, device, role
from stored import Stored

HERE = Path(__file__).parent
GROUP = {"A": "mqtt", "B": "http", "C": "rpc"}


def shown(file):
    """A path as it is known to a reader: in the project, or from the package on."""
    for base in ("/site-packages/", f"{HERE.parent}/"):
        _, found, rest = file.partition(base)
        if found:
            return rest
    return file


def table(rows, count, top):
    """The heaviest rows (file, line, name, seconds) as microseconds a message."""
    for file, line, name, spent in sorted(rows, key=lambda row: -row[3])[:top]:
        yield f"    {spent / count * 1e6:8.2f}  {shown(file)}:{line}  {name}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", nargs="?", default="A", choices=list(GROUP))
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--top", type=int, default=30)
    parser.add_argument("--rate", type=float, default=0, help="messages a second; 0: as many as go through")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rulemill-profile-") as folder:
        path = os.pathsep.join(filter(None, (str(HERE / "profiling"), os.environ.get("PYTHONPATH"))))
        server = Server({"BENCH_PROFILE": folder, "PYTHONPATH": path})
        try:
            profile(server, options, Path(folder))
        finally:
            server.close()


def profile(server, options, folder):
    """Run the load, sample in its middle, print."""
    group = GROUP[options.workload]
    generator = Generator(server.target(group))
    names = [device(group, number) for number in range(GROUPS[group])]
    stored = None if group == "rpc" else Stored(server.data / "telemetry.db", TENANT, names, FIRST)
    progress = stored.progress if stored else lambda: generator.counters[ACKED]
    pids = {}
    for pid in tree(server.pid):
        name = role(pid, command(pid))
        if name in ("api", "worker"):
            pids[pid] = name
    generator.counters[LIMIT] = AHEAD
    if options.rate:
        generator.begin("open", seconds=options.seconds + 2, rate=options.rate)
    else:
        generator.begin("closed", seconds=options.seconds + 2, window=MQTT_WINDOW)
    begun, marks = time.monotonic(), []
    while time.monotonic() - begun < options.seconds + 1.5 and not generator.done():
        done = progress()
        generator.counters[LIMIT] = done + AHEAD
        for at, sign in ((1.0, signal.SIGUSR1), (1.0 + options.seconds, signal.SIGUSR2)):
            if len(marks) == (sign == signal.SIGUSR2) and time.monotonic() - begun >= at:
                marks.append((time.monotonic(), done, {pid: cpu_s(pid) for pid in pids}))
                for pid in pids:
                    os.kill(pid, sign)
        time.sleep(0.02)
    generator.result()
    generator.close()
    (start, first, before), (end, last, after) = marks
    count = max(last - first, 1)
    print(f"{options.workload}: {count / (end - start):,.0f}/s while sampled")
    for pid, process in pids.items():
        found = json.loads((folder / f"{pid}.json").read_text())
        whole = (after[pid] - before[pid]) / count * 1e6
        print(f"\n{process}: {whole:.1f} us a message in all, {found['samples']} samples")
        metrics = found["metrics"]
        for name in sorted(name.removesuffix("_sum") for name in metrics if name.endswith("_sum")):
            if times := metrics[name + "_count"]:
                print(f"  {name}: {times:.0f} times, mean {metrics[name + '_sum'] / times:.5f}")
        print("  self, by line")
        print(*table(found["lines"], count, options.top), sep="\n")
        print("  with callees, by function")
        print(*table(found["functions"], count, options.top), sep="\n")


if __name__ == "__main__":
    main()
