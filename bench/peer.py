"""Node-RED with a broker before it and our sink behind it, doing the same work from the same payloads."""

import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from os import environ
from pathlib import Path

from processes import Usage, end, free_port

HERE = Path(__file__).parent / "nodered"
NEEDED = ("node-red", "mosquitto")

MOSQUITTO = """listener {port} 127.0.0.1
allow_anonymous true
persistence false
set_tcp_nodelay true
max_inflight_messages 1000
max_queued_messages 0
log_type error
"""


def missing():
    """What is not installed of what the comparison needs."""
    return [name for name in NEEDED if shutil.which(name) is None]


def role(pid, command):
    """What a process of the peer is."""
    return "mosquitto" if command and command[0].endswith("mosquitto") else "node-red"


class Peer:
    """Mosquitto and Node-RED on free ports, started and ended by the bench."""

    def __init__(self, devices):
        self._devices = devices
        self._folder = Path(tempfile.mkdtemp(prefix="nodered-bench-"))
        self._log = (self._folder / "log").open("wb")
        self._mqtt, self._http, self.sink = free_port(), free_port(), free_port()
        flows = (HERE / "flows.json").read_text()
        flows = flows.replace("${BENCH_MQTT_PORT}", str(self._mqtt)).replace("${BENCH_SINK_PORT}", str(self.sink))
        (self._folder / "flows.json").write_text(flows)
        shutil.copy(HERE / "settings.js", self._folder)
        config = self._folder / "mosquitto.conf"
        config.write_text(MOSQUITTO.format(port=self._mqtt))
        self._processes = [self._start("mosquitto", "-c", str(config))]
        time.sleep(0.3)
        self._processes.append(
            self._start("node-red", "-u", str(self._folder), "-s", str(self._folder / "settings.js"), "flows.json")
        )
        self.usage = Usage([process.pid for process in self._processes], role)
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _start(self, *command):
        return subprocess.Popen(
            command,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**environ, "BENCH_HTTP_PORT": str(self._http)},
        )

    def _wait(self):
        url = f"http://127.0.0.1:{self._http}/api/v1/0/rpc"
        body, kind = b'{"params":{"seq":1}}', {"Content-Type": "application/json"}
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            if any(process.poll() is not None for process in self._processes):
                break
            try:
                with urllib.request.urlopen(urllib.request.Request(url, body, kind), timeout=1):
                    time.sleep(1.0)  # the broker node connects behind the HTTP server
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise RuntimeError(f"Node-RED did not start:\n{(self._folder / 'log').read_text()[-2000:]}")

    def target(self, group, topic="joined"):
        """What the generator of a workload needs to know."""
        return {
            "kind": group,
            "host": "127.0.0.1",
            "port": self._mqtt if group == "mqtt" else self._http,
            "devices": self._devices[group],
            "token": "{}",
            "login": ["{}"],
            "topic": topic + "/{}",
            "path": "/api/v1/{}/" + ("rpc" if group == "rpc" else "telemetry"),
            "sink_port": 0 if group == "rpc" else self.sink,
        }

    def close(self):
        for process in reversed(self._processes):
            end(process)
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)
