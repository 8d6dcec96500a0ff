"""What a telemetry store takes and gives: growth while it is filled, bytes a point, and the reads that apps make.

    python bench/stores.py --store sqlite|influxdb [--points N] [--devices 10000] [--keys 1] [--bare] [--json FILE]

Fills an empty store with points as the worker's writer does, 5,000 a write, one in flight, all devices in turn and then
the next time (31 days in all); prints rate and bytes of every twentieth part. Then reads, each for another device every
time: the latest of one device, 24 h of one key, 30 days of one key by hour; medians and the 95th of a hundred.
`--bare` sends what the store sent once more without it (the same statements straight to SQLite, the same requests to
InfluxDB, the answer read and thrown away), in turns with the store's own reads, and prints what the store adds.
`--no-fill` reads a store that was filled before, with the same `--points`, `--devices` and `--keys`.

SQLite: `--file` (stores.db in the temporary folder). InfluxDB: `--url` and, for its bytes, `--folder` with its data;
without a URL it starts `influxd` by itself, with its data in `--folder`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from engine.message import Point
from engine.stores.windows import window

TENANT = "bench"
BATCH = 5000
PARTS = 20
RUNS, WARM = 100, 5
DAY_MS = 86_400_000
SPAN_MS = 31 * DAY_MS
START_MS = 1_750_000_000_000


class Sqlite:
    """The store in one file."""

    def __init__(self, args):
        self._file = Path(args.file or Path(tempfile.gettempdir()) / "stores.db")
        self._said = []

    async def open(self):
        from engine.stores.sqlite import SqliteTimeseries

        bench = self

        class Recorded(SqliteTimeseries):
            def _connect(self):
                db = super()._connect()
                db.set_trace_callback(bench._said.append)
                return db

        self.store = SqliteTimeseries(self._file)
        self._recorded = Recorded(self._file)
        await self.store.open()
        await self._recorded.open()
        self._db = sqlite3.connect(self._file, isolation_level=None, cached_statements=4096)
        self._db.execute("PRAGMA cache_size = -16384")

    async def close(self):
        await self.store.close()
        await self._recorded.close()
        self._db.close()

    def disk_bytes(self):
        return sum(path.stat().st_size for path in self._file.parent.glob(self._file.name + "*"))

    async def said_by(self, read):
        """What the store says to SQLite for a read."""
        self._said.clear()
        await read(self._recorded)
        return [sql for sql in self._said if sql not in ("BEGIN", "ROLLBACK")]

    async def bare(self, said):
        for sql in said:
            self._db.execute(sql).fetchall()


class Influx:
    """The store in an InfluxDB, 1.x, 2.x or 3: `--url`, or one of its own."""

    def __init__(self, args):
        self._args = args
        self._folder = Path(args.folder or Path(tempfile.gettempdir()) / "stores-influxdb")
        self._ended = contextlib.ExitStack()

    async def open(self):
        from engine.stores.influx import InfluxTimeseries

        url = self._args.url
        if not url:
            sys.path.insert(0, str(Path(__file__).parent.parent))
            from tests.services import start_influx

            self._folder.mkdir(parents=True, exist_ok=True)
            process, url = start_influx(self._folder)
            self._ended.callback(process.wait)
            self._ended.callback(process.terminate)
        self.store = InfluxTimeseries(
            url, token=self._args.token, org=self._args.org, bucket=self._args.bucket
        )  # fmt: skip
        await self.store.open()
        self._session = aiohttp.ClientSession()

    async def close(self):
        await self._session.close()
        await self.store.close()
        self._ended.close()

    def disk_bytes(self):
        found = 0
        for folder, _, files in os.walk(self._folder):
            for file in files:
                with contextlib.suppress(OSError):
                    found += os.stat(os.path.join(folder, file)).st_size
        return found

    async def said_by(self, read):
        """What the store says to InfluxDB for a read."""
        from engine.stores.influx_http import Http

        said, query = [], Http.query

        async def recorded(http, text, *args, **options):
            access = http.access
            form = {"q": text, "db": access.database, "rp": access.policy, "epoch": "ms", "chunked": "true"}
            headers = {"Authorization": http.authorization} if http.authorization else {}
            said.append((access.base + "/query", form, headers | {"Accept-Encoding": "identity"}))
            return await query(http, text, *args, **options)

        Http.query = recorded
        try:
            await read(self.store)
        finally:
            Http.query = query
        return said

    async def bare(self, said):
        for url, form, headers in said:
            async with self._session.post(url, data=form, headers=headers) as response:
                await response.read()
                assert response.status == 200


STORES = {"sqlite": Sqlite, "influxdb": Influx}


class Points:
    """The points of a bench: which, and where."""

    def __init__(self, args):
        self.devices = [f"device-{i:06}" for i in range(args.devices)]
        self.keys = [f"key-{i:02}" for i in range(args.keys)]
        self.times = max(1, args.points // (args.devices * args.keys))
        self.step_ms = SPAN_MS // self.times
        self.count = self.times * args.devices * args.keys
        self.end_ms = START_MS + self.times * self.step_ms
        self.by_device = args.by_device

    def batches(self):
        rng, batch = random.Random(1), []
        for ts_ms, device in self._places():
            for key in self.keys:
                batch.append(Point(TENANT, device, key, ts_ms, round(20 + rng.random() * 10, 2)))
                if len(batch) == BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def _places(self):
        times = [START_MS + i * self.step_ms for i in range(self.times)]
        if self.by_device:
            return ((ts_ms, device) for device in self.devices for ts_ms in times)
        return ((ts_ms, device) for ts_ms in times for device in self.devices)

    def reads(self):
        """Name to a function that makes a read for a device."""
        key, end = self.keys[:1], self.end_ms
        hourly = window("1h")
        return {
            "latest of one device": lambda device: lambda store: store.latest(TENANT, [device]),
            "24 h of one key": lambda device: (
                lambda store: store.range(TENANT, [device], key, end - DAY_MS, end, limit=10_000)
            ),
            "30 days of one key by hour": lambda device: (
                lambda store: store.aggregate(
                    TENANT, [device], key, end - 30 * DAY_MS, end, ["mean", "min", "max"], hourly
                )
            ),
        }


async def fill(bench, points):
    """Write all points; figures of each part."""
    print(f"{points.count:,} points, {len(points.devices):,} devices, {len(points.keys)} keys, "
          f"{points.times:,} times {points.step_ms / 1000:g} s apart")  # fmt: skip
    parts, written, begun = [], 0, time.perf_counter()
    of_part, part_begun, making_s, slowest_s = 0, begun, 0.0, 0.0
    made = time.perf_counter()
    for batch in points.batches():
        started = time.perf_counter()
        making_s += started - made
        await bench.store.write(batch)
        made = time.perf_counter()
        slowest_s = max(slowest_s, made - started)
        written += len(batch)
        of_part += len(batch)
        if of_part >= points.count / PARTS or written == points.count:
            seconds = made - part_begun
            part = {
                "points": written, "rate": of_part / (seconds - making_s), "slowest_ms": slowest_s * 1000,
                "bytes_a_point": bench.disk_bytes() / written,
            }  # fmt: skip
            parts.append(part)
            print(f"\r{written:>13,}  {part['rate']:>9,.0f}/s written  slowest write {part['slowest_ms']:7.1f} ms  "
                  f"{part['bytes_a_point']:6.1f} bytes a point")  # fmt: skip
            of_part, part_begun, making_s, slowest_s = 0, made, 0.0, 0.0
        elif sys.stderr.isatty():
            print(f"\r{written:>13,}  {written / points.count:.1%}", end="", file=sys.stderr, flush=True)
    return parts


async def measure(bench, points, with_bare):
    """Medians of each read, in milliseconds."""
    found, rng = {}, random.Random(2)
    for name, of_device in points.reads().items():
        ours, bare, size = [], [], 0
        for run in range(WARM + RUNS):
            read = of_device(rng.choice(points.devices))
            said = await bench.said_by(read) if with_bare else []
            for what in rng.sample(("ours", "bare"), 2):
                started = time.perf_counter()
                if what == "ours":
                    answer = await read(bench.store)
                    size = len(getattr(answer, "points", answer))
                elif with_bare:
                    await bench.bare(said)
                if run >= WARM:
                    (ours if what == "ours" else bare).append((time.perf_counter() - started) * 1000)
        row = {"rows": size, "p50_ms": statistics.median(ours), "p95_ms": statistics.quantiles(ours, n=20)[-1]}
        line = f"{name:<28} {size:>6} rows   p50 {row['p50_ms']:8.3f} ms   p95 {row['p95_ms']:8.3f} ms"
        if with_bare:
            row["bare_p50_ms"] = plain = statistics.median(bare)
            added = row["p50_ms"] - plain
            line += f"   bare p50 {plain:8.3f} ms   added {added:7.3f} ms, {added / plain:.0%}"
        print(line)
        found[name] = row
    return found


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=sorted(STORES), required=True)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--keys", type=int, default=1)
    parser.add_argument("--by-device", action="store_true", help="one device after the other, as an import has them")
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--no-fill", action="store_true")
    parser.add_argument("--settle", type=float, default=0, help="seconds between filling and reading, for compaction")
    parser.add_argument("--json")
    parser.add_argument("--file")
    parser.add_argument("--folder")
    parser.add_argument("--url")
    parser.add_argument("--token", default="")
    parser.add_argument("--org", default="")
    parser.add_argument("--bucket", default="bench")
    args = parser.parse_args()
    bench, points = STORES[args.store](args), Points(args)
    await bench.open()
    try:
        if not args.no_fill and await bench.store.latest(TENANT, points.devices[:1]):
            raise SystemExit("the store has points already: name another, or read it with --no-fill")
        figures = {"store": args.store, "points": points.count}
        if not args.no_fill:
            figures["growth"] = await fill(bench, points)
            await asyncio.sleep(args.settle)
        figures["bytes_a_point"] = bench.disk_bytes() / points.count
        print(f"{figures['bytes_a_point']:.1f} bytes a point on disk")
        figures["reads"] = await measure(bench, points, args.bare)
    finally:
        await bench.close()
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
