"""Passwords of people: hashed slowly on purpose, and never where it would slow anything else.

One thread of lower priority hashes, one password at a time; more than a few waiting are turned away.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from engine.errors import BadInput, Refused

T = TypeVar("T")

LEAST, MOST = 6, 1000
"""Characters of a password."""
MOST_WAITING: Final = 50
"""Passwords that wait for the thread: some 1.5 s of work."""
NICENESS: Final = 10

_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
"""Argon2id with 19 MiB and two passes, 26 ms: the least that OWASP's password storage advice has for it."""


class Busy(Refused):
    """Too many passwords at once; try again."""


class Passwords:
    """Hashes and verifies passwords, for whoever has any."""

    def __init__(self, most_waiting: int = MOST_WAITING) -> None:
        self._most = most_waiting
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="passwords", initializer=_yield_to_others)
        self._nobody = ""

    def close(self) -> None:
        """End; what is under way is finished."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str, pointer: str = "/password") -> str:
        """What to keep of a new password. BadInput with `pointer` for one that is too short or too long; Busy."""
        check_length(password, pointer)
        return await self._run(lambda: _HASHER.hash(password.encode(errors="surrogatepass")))

    async def verify(self, kept: str, password: str) -> bool:
        """Whether this is the password that `kept` was made of. Takes as long when nothing is kept (""). Busy."""
        return await self._run(lambda: self._verify(kept, password[: MOST + 1]))

    def _verify(self, kept: str, password: str) -> bool:
        if not kept:
            if not self._nobody:
                self._nobody = _HASHER.hash(os.urandom(16))
            _matches(self._nobody, password)
            return False
        return _matches(kept, password)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= self._most:
            raise Busy("too many logins at once")
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        # Whoever asked may go away; the place is free only when the thread is.
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def _done(self, _: object) -> None:
        self._waiting -= 1


def check_length(password: str, pointer: str) -> None:
    """BadInput with `pointer` for a password that is too short or too long."""
    if not LEAST <= len(password) <= MOST:
        raise BadInput(f"a password has {LEAST} to {MOST} characters", pointer)


def _matches(kept: str, password: str) -> bool:
    try:
        return _HASHER.verify(kept, password.encode(errors="surrogatepass"))
    except (VerificationError, InvalidHashError):
        return False


def _yield_to_others() -> None:
    if sys.platform == "linux":
        # There a thread has a priority of its own: a flood of logins takes what messages leave.
        me = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, me, min(os.getpriority(os.PRIO_PROCESS, me) + NICENESS, 19))
