"""A Rulemill server of the bench's own: empty data folder, free ports, devices and a chain from a bootstrap file."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from processes import Usage, end

HERE = Path(__file__).parent
TENANT = "bench"
GROUPS = {"mqtt": 100, "http": 64, "rpc": 64}
"""Devices of each workload; every one has its own token."""


def device(group, number):
    """Id of a device."""
    return f"{group}-{number}"


def bootstrap():
    """The content of the bootstrap file."""
    devices = [
        {
            "id": device(group, number),
            "tenant": TENANT,
            "name": device(group, number),
            "credentials": [{"kind": "ACCESS_TOKEN", "value": f"token-{group}-{number}"}],
        }
        for group, count in GROUPS.items()
        for number in range(count)
    ]
    chain = json.loads((HERE / "chains" / "bench.json").read_text())
    return {
        "tenants": [{"name": TENANT, "root_chain": chain["chain"]}],
        "devices": devices,
        "chains": [{**chain, "tenant": TENANT}],
    }


def role(pid, command):
    """What a process of the server is."""
    words = " ".join(command[:8])
    for name, sign in (
        ("api", "-m api api"),
        ("worker", "-m api worker"),
        ("redis", "redis-server"),
        ("redis", "valkey-server"),
    ):
        if sign in words:
            return name
    return "parent" if "-m api up" in words else "other"


class StartError(RuntimeError):
    """A server did not come up."""


class Server:
    """`rulemill up`, started and ended by the bench. `environment` adds variables, of settings for example."""

    def __init__(self, environment=None, folder=None):
        self._own = folder is None
        self.folder = Path(folder or tempfile.mkdtemp(prefix="rulemill-bench-"))
        file = self.folder / "bootstrap.json"
        file.write_text(json.dumps(bootstrap()))
        self.data = self.folder / "data"
        self._log = (self.folder / "log").open("wb")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "api", "up", "--bootstrap", str(file), "--data", str(self.data)),
                *("--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--log-level", "warning"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
        self.pid = self._process.pid
        self.usage = Usage([self.pid], role)
        try:
            self.ready = self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self):
        ready = self.data / "ready.json"
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise StartError(f"rulemill up ended with {self._process.returncode}:\n{self.log()}")
            if ready.exists():
                return json.loads(ready.read_text())
            time.sleep(0.05)
        raise StartError(f"no ready.json within 30 s:\n{self.log()}")

    def log(self):
        """The end of what the server said."""
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def target(self, group):
        """What the generator of a workload needs to know."""
        host, port = (self.ready["mqtt"] if group == "mqtt" else self.ready["http"].split("//")[1]).rsplit(":", 1)
        return {
            "kind": group,
            "host": host,
            "port": int(port),
            "devices": GROUPS[group],
            "token": f"token-{group}-{{}}",
            "login": [f"token-{group}-{{}}"],
            "topic": "v1/devices/me/telemetry",
            "path": "/api/v1/{}/" + ("rpc" if group == "rpc" else "telemetry"),
        }

    def close(self):
        """SIGTERM; the return code. The data folder goes, unless it was given."""
        code = end(self._process)
        self._log.close()
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)
        return code
