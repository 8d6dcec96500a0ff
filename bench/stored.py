"""What has reached the telemetry store, read from its file while the server writes it."""

import sqlite3
import time
from itertools import pairwise

_NEWEST = "SELECT value FROM ts_kv WHERE device = ? AND key = ? ORDER BY ts DESC LIMIT 1"
_ROWS = "SELECT value FROM ts_kv WHERE device = ? AND key = ? ORDER BY ts"
_COUNT = "SELECT count(*) FROM ts_kv WHERE device = ? AND key = ?"


class Stored:
    """Progress and ledger of one workload's devices. A device's messages are numbered from `first`."""

    def __init__(self, file, tenant, devices, first):
        self._db = sqlite3.connect(f"file:{file}?mode=ro", uri=True, isolation_level=None, timeout=5.0)
        self._tenant, self._names, self._first = tenant, devices, first
        self._ids = {}
        self._keys = {}

    def _device(self, name):
        found = self._ids.get(name)
        if found is None:
            row = self._db.execute(
                "SELECT id FROM device_name WHERE tenant = ? AND name = ?", (self._tenant, name)
            ).fetchone()
            found = self._ids[name] = row[0] if row else None
        return found

    def _key(self, name):
        found = self._keys.get(name)
        if found is None:
            row = self._db.execute("SELECT id FROM key_name WHERE name = ?", (name,)).fetchone()
            found = self._keys[name] = row[0] if row else None
        return found

    def newest(self, number):
        """How many messages of a device are stored, judged by the newest."""
        device, key = self._device(self._names[number]), self._key("seq")
        row = None if device is None or key is None else self._db.execute(_NEWEST, (device, key)).fetchone()
        return 0 if row is None else int(row[0]) - self._first + 1

    def progress(self):
        """How many messages of all devices are stored, judged by the newest of each."""
        return sum(self.newest(number) for number in range(len(self._names)))

    def watch(self, number, samples):
        """Note when which message of a device became visible, as (seconds monotonic, how many are stored)."""
        samples.append((time.monotonic(), self.newest(number)))

    def ledger(self, sent, acked):
        """Compare what devices sent and had acknowledged (counts by device) with all that is stored."""
        made = dict.fromkeys(("sent", "acked", "processed", "stored", "lost", "duplicated", "reordered"), 0)
        made["sent"], made["acked"] = sum(sent), sum(acked)
        seq, unit = self._key("seq"), self._key("unit")
        for number, name in enumerate(self._names):
            device = self._device(name)
            if device is None or seq is None:
                made["lost"] += acked[number]
                continue
            rows = [row[0] for row in self._db.execute(_ROWS, (device, seq))]
            distinct = set(rows)
            expected = range(self._first, self._first + acked[number])
            made["stored"] += len(rows)
            made["processed"] += self._db.execute(_COUNT, (device, unit)).fetchone()[0]
            made["lost"] += len(expected) - sum(value in distinct for value in expected)
            made["duplicated"] += len(rows) - len(distinct)
            made["reordered"] += sum(late < early for early, late in pairwise(rows))
        return made

    def close(self):
        self._db.close()
