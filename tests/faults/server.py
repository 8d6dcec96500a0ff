"""A whole server as users start it, with devices and a chain that leaves traces; and ways to hurt it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

TENANT = "faults"
CHAIN = {
    "tenant": TENANT,
    "chain": "faults",
    "start": "by type",
    "nodes": {
        "by type": {"kind": "message_type_switch", "to": {"Post telemetry": "seen"}},
        "seen": {"kind": "seen", "to": {"Success": "copy"}},
        "copy": {
            "kind": "script",
            "config": {"lang": "lua", "source": "msg.copy = msg.seq return {msg = msg}"},
            "to": {"Success": ["save", "last"]},
        },
        "save": {"kind": "save_timeseries"},
        "last": {
            "kind": "script",
            "config": {"source": "return {msg = {last = msg.seq}, msgType = 'POST_ATTRIBUTES_REQUEST'}"},
            "to": {"Success": "keep"},
        },
        "keep": {"kind": "save_attributes", "config": {"scope": "SERVER_SCOPE"}},
    },
}  # fmt: skip


class Server:
    """`rulemill up` on a folder; may be started again after it ended."""

    def __init__(self, folder: Path, devices: int, **settings: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.seen_path = folder / "seen"
        self.devices = [f"device-{n}" for n in range(devices)]
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.facts: dict[str, Any] = {}
        self._write_bootstrap()
        self._write_plugin()

    def _write_bootstrap(self) -> None:
        devices = [
            {"id": id, "tenant": TENANT, "name": id, "credentials": [{"kind": "ACCESS_TOKEN", "value": f"token-{id}"}]}
            for id in self.devices
        ]
        document = {"tenants": [{"name": TENANT, "root_chain": "faults"}], "devices": devices, "chains": [CHAIN]}
        (self.folder / "bootstrap.json").write_text(json.dumps(document))

    def _write_plugin(self) -> None:
        """An installed package as far as Python's metadata can tell."""
        package = self.folder / "plugin" / "rulemill_seen-1.dist-info"
        package.mkdir(parents=True)
        (package / "METADATA").write_text("Metadata-Version: 2.1\nName: rulemill-seen\nVersion: 1\n")
        (package / "entry_points.txt").write_text("[rulemill.nodes]\nseen = tests.faults.seen_node:Seen\n")

    def start(self) -> None:
        """Start and wait until it is ready."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RULEMILL_")}
        environment = {
            **kept, "RULEMILL_DATA": str(self.data), "RULEMILL_HTTP": "127.0.0.1:0", "RULEMILL_MQTT": "127.0.0.1:0",
            "RULEMILL_PLUGINS": "seen", "RULEMILL_TEST_SEEN": str(self.seen_path), "RULEMILL_WORKERS": "2",
            "RULEMILL_LOG_LEVEL": "warning", "PYTHONPATH": f"{self.folder / 'plugin'}:{Path.cwd()}", **self._settings,
        }  # fmt: skip
        command = [str(Path(sys.executable).parent / "rulemill"), "up", "--bootstrap", "bootstrap.json"]
        ready = self.data / "ready.json"
        ready.unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, f"not ready in time\n{self.log()}"
            time.sleep(0.05)
        self.facts = json.loads(ready.read_text())

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self._process is None:
            return 0
        self._process.terminate()
        code = self._process.wait(20)
        self._process = None
        return code

    def log(self) -> str:
        return (self.folder / "log").read_text()[-4000:]

    @property
    def mqtt(self) -> tuple[str, int]:
        host, _, port = self.facts["mqtt"].rpartition(":")
        return host, int(port)

    def children(self, word: str) -> list[int]:
        """Process ids of the server's children whose command line holds a word, the oldest first."""
        assert self._process is not None
        found = []
        for folder in Path("/proc").iterdir():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except (OSError, ValueError, IndexError):
                continue
            if parent == self._process.pid and any(word.encode() in part for part in words):
                found.append(int(folder.name))
        return sorted(found)

    def kill(self, word: str, which: int = 0) -> bool:
        """SIGKILL one of the children, if there is one."""
        found = self.children(word)
        if found:
            os.kill(found[which % len(found)], signal.SIGKILL)
        return bool(found)

    # What it left behind

    def seen(self) -> list[tuple[str, int, float]]:
        """Every delivery that the node saw: device, sequence number, time."""
        if not self.seen_path.exists():
            return []
        rows = (line.split() for line in self.seen_path.read_text().splitlines())
        return [(device, int(seq), float(at)) for device, seq, at in rows]

    def stored(self) -> Counter[tuple[str, int]]:
        """(device, ts) of all stored points, with how many keys there are."""
        if url := self._settings.get("RULEMILL_INFLUX_URL"):
            return self._points_in_influx(url)
        with sqlite3.connect(self.data / "telemetry.db") as database:
            return Counter(dict(self._points(database)))

    @staticmethod
    def _points_in_influx(url: str) -> Counter[tuple[str, int]]:
        query = {"db": "rulemill", "epoch": "ms", "q": 'SELECT t FROM ts_kv GROUP BY device, "key"'}
        answer = httpx.get(f"{url}/query", params=query, timeout=30)
        answer.raise_for_status()
        series = answer.json()["results"][0].get("series", [])
        return Counter((one["tags"]["device"], row[0]) for one in series for row in one["values"])

    def _points(self, database: sqlite3.Connection) -> dict[tuple[str, int], int]:
        names = dict(database.execute("SELECT id, name FROM device_name").fetchall())
        rows = database.execute("SELECT device, ts, count(*) FROM ts_kv GROUP BY device, ts").fetchall()
        return {(names[device], ts): count for device, ts, count in rows}
