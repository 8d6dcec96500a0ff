"""User scripts of either language: what they are called with, what they give back, and how to get one."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple, Protocol, get_args

from engine.errors import ScriptError
from engine.outcomes import Retry

Lang = Literal["lua", "js"]
LANGS: Final[tuple[str, ...]] = get_args(Lang)

BUDGET_S: Final = 0.5
"""Processor time that one message may take, in seconds (G-23)."""
MEMORY_BYTES: Final = 16 << 20
"""Memory that a script's runtime may hold, in bytes (G-23)."""
SOURCE_BYTES_MAX: Final = 256 << 10
SOURCE_LINES_MAX: Final = 10_000
RESULT_BYTES_MAX: Final = 1 << 20
"""Largest result of one message, in bytes of its encoded form."""
DEPTH_MAX: Final = 64
"""Deepest nesting of a result."""


class Call(NamedTuple):
    """One message as a script sees it: globals `msg`, `metadata` and `msgType`, and what `now()` answers."""

    msg: Any
    """A JSON value; bytes are shown as `{"hex", "raw_b64", "bytes"}`."""
    metadata: dict[str, str]
    msg_type: str
    now_ms: int


class Script(Protocol):
    """A script that compiles. Its runtime is made at the first run; one instance serves one thread."""

    name: str
    """Whose script it is, e.g. `chain/node`."""

    def run(self, calls: Sequence[Call], progress: Callable[[], None]) -> list[Any]:
        """Run the script once per call and give one result each, in their order.

        A result is the JSON value that the script returned (None for nothing), a `ScriptError` if this call failed or
        broke a limit, or a `Retry` if it asked to be tried again. No call sees what another one left behind.
        `progress` is called between calls, once or more in a second.
        """
        ...

    def run_columns(
        self,
        msgs: Sequence[Any],
        metadata: Sequence[dict[str, str]],
        types: Sequence[str],
        now_ms: int,
        progress: Callable[[], None],
    ) -> list[Any]:
        """As `run`, for many calls at one time: what a `Call` holds of each, in lists of the same length."""
        ...


def run_calls(script: Script, calls: Sequence[Call], progress: Callable[[], None]) -> list[Any]:
    """`Script.run` by way of `Script.run_columns`: calls of the same time are run together."""
    results: list[Any] = []
    for now_ms, same in groupby(calls, key=attrgetter("now_ms")):
        msgs, metadata, types, _ = zip(*same, strict=True)
        results += script.run_columns(msgs, metadata, types, now_ms, progress)
    return results


def compile_script(
    lang: str, source: str, *, name: str, budget_s: float = BUDGET_S, memory_bytes: int = MEMORY_BYTES
) -> Script:
    """Make a script of a source text; raises ScriptError with the line in that text if it does not compile.

    A message has `budget_s` seconds of the process's processor time
    (not of the wall clock, so that a busy machine fails nobody) and the runtime `memory_bytes` of memory.
    """
    if lang == "lua":
        from engine.sandbox.lua import LuaScript

        return LuaScript(source, name=name, budget_s=budget_s, memory_bytes=memory_bytes)
    if lang == "js":
        from engine.sandbox.js import JsScript

        return JsScript(source, name=name, budget_s=budget_s, memory_bytes=memory_bytes)
    raise ScriptError(f"unknown language {lang!r}, known are {', '.join(LANGS)}")


def check_script(lang: str, source: str) -> None:
    """Raise ScriptError, with the line, if the source does not compile. Runs nothing of it."""
    compile_script(lang, source, name="check")


def normal_source(source: str) -> str:
    """The source with plain line ends; raises ScriptError if it is too large for a script."""
    plain = source.replace("\r\n", "\n").replace("\r", "\n")
    if len(plain) > SOURCE_BYTES_MAX:
        raise ScriptError(f"script is longer than {SOURCE_BYTES_MAX} characters")
    if plain.count("\n") >= SOURCE_LINES_MAX:
        raise ScriptError(f"script has more than {SOURCE_LINES_MAX} lines")
    try:
        plain.encode()
    except UnicodeEncodeError as error:
        raise ScriptError(f"script is not valid Unicode text: {error.reason}") from None
    return plain


def shown(data: Any) -> Any:
    """What a script sees of a message's data: a JSON value as it is, bytes in three forms (CT-S19)."""
    if isinstance(data, bytes):
        return {"hex": data.hex(), "raw_b64": base64.b64encode(data).decode(), "bytes": list(data)}
    return data


def find_integer_beyond(value: Any, largest: int, path: str = "msg") -> str | None:
    """Path of the first integer of a JSON value that is above `largest` or below its negative; None if there is none.

    With the largest int64 the smallest int64 is taken for too small too; the caller asks only once one did not fit.
    """
    stack = [(path, value)]
    while stack:
        where, found = stack.pop()
        if isinstance(found, dict):
            stack.extend((f"{where}.{key}", member) for key, member in reversed(found.items()))
        elif isinstance(found, list):
            stack.extend((f"{where}[{i}]", member) for i, member in reversed(list(enumerate(found))))
        elif isinstance(found, int) and abs(found) > largest:
            return where
    return None


def asked_retry(after_s: Any, reason: str) -> Retry | ScriptError:
    """What `retry(after_s, reason)` of a script comes to: seconds are a finite number from 0 on, or nothing."""
    if after_s is not None and (not isinstance(after_s, int | float) or not math.isfinite(after_s) or after_s < 0):
        return ScriptError("retry takes seconds from 0 on and a reason")
    return Retry(reason[:1000], after_s)


def budget_error(budget_s: float) -> ScriptError:
    """The script took more processor time than it has."""
    return ScriptError(f"time budget of {budget_s * 1000:g} ms exceeded")


def memory_error(memory_bytes: int) -> ScriptError:
    """The script took more memory than it has."""
    return ScriptError(f"memory budget of {memory_bytes / (1 << 20):g} MiB exceeded")
