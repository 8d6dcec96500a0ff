"""CPU time and memory of process trees, from /proc; ports that are free; ends of processes that we started."""

import os
import signal
import socket
import subprocess
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid):
    """A process and all below it."""
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += tree(int(child))
    except OSError:
        pass
    return found


def cpu_s(pid):
    """User and system time of all threads, in seconds (the kernel counts hundredths); None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS


def machine_s():
    """CPU time that the whole machine has spent, without idling, in seconds."""
    user, nice, system, _idle, _iowait, *rest = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + sum(rest)) / _TICKS


def rss_mb(pid):
    """Resident memory in MB."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6
    except OSError:
        return 0.0


def command(pid):
    """Command line as a list."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return []


class Usage:
    """CPU seconds by role of the processes below some roots. `role(pid, command)` names them; "" is not counted."""

    def __init__(self, roots, role):
        self._roots, self._role = roots, role

    def read(self):
        """Role to CPU seconds so far."""
        used = {}
        for root in self._roots:
            for pid in tree(root):
                name, cpu = self._role(pid, command(pid)), cpu_s(pid)
                if name and cpu is not None:
                    used[name] = used.get(name, 0.0) + cpu
        return used

    def memory(self):
        """Role to resident MB."""
        used = {}
        for root in self._roots:
            for pid in tree(root):
                name = self._role(pid, command(pid))
                if name:
                    used[name] = used.get(name, 0.0) + rss_mb(pid)
        return used


def free_port():
    """A TCP port on 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end(process, within_s=12.0):
    """SIGTERM, and SIGKILL if that does not help; the return code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode
