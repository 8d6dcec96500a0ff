"""Lua 5.4 scripts: one hardened runtime per script, messages crossing the border in chunks.

A chunk crosses as one MessagePack text each way: to encode it here costs next to nothing, building tables from outside
some 30 µs a message once memory is limited, and it keeps integers and floats apart both ways. Each message of a chunk
has its time and its failure to itself; one that memory did not suffice for is run again with a runtime of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from lupa import lua54

from engine.errors import ScriptError
from engine.outcomes import Retry
from engine.sandbox.script import (
    DEPTH_MAX,
    RESULT_BYTES_MAX,
    Call,
    asked_retry,
    budget_error,
    find_integer_beyond,
    memory_error,
    normal_source,
    run_calls,
    shown,
)

INT64_MAX = (1 << 63) - 1
CHUNK_CALLS = 100
CHUNK_BYTES = 64 << 10
"""Messages of a chunk, encoded; a larger one goes alone, so that it has the memory to itself."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_SYNTAX = re.compile(r"^script:(\d+): (.*)$", re.DOTALL)


@cache
def _chunk(name: str) -> bytes:
    return files(__package__).joinpath(name).read_bytes()


class LuaScript:
    """A script in Lua 5.4; see `engine.sandbox.script.Script`.

    JSON null is the value `null`, which keeps its place in lists and objects. A list stays a list even when it becomes
    empty; an empty table made by the script is an object unless it is made by `list()`. Integers and floats stay what
    they are. `retry(after_s, reason)` asks to be tried again, `now()` gives milliseconds.
    """

    def __init__(self, source: str, *, name: str, budget_s: float, memory_bytes: int) -> None:
        self._source = normal_source(source).encode()
        self.name = name
        self._budget_s = budget_s
        self._memory_bytes = memory_bytes
        self._run: Any = None
        # What a script does not name it cannot see, but through the table of its globals (_ENV, also the chunk's ...),
        # so it need not cross the border. A name in a comment or a text only costs time. The data always cross, so that
        # what Lua cannot hold fails a message whatever its script looks at.
        names_all = b"_ENV" in self._source or b"..." in self._source
        self._names_metadata = names_all or b"metadata" in self._source
        self._names_type = names_all or b"msgType" in self._source
        self._open()
        self._run = None  # only compiled so far: a plan may hold many scripts that never see a message

    def run(self, calls: Sequence[Call], progress: Callable[[], None]) -> list[Any]:
        """Run the script once per call; see `Script.run`."""
        return run_calls(self, calls, progress)

    def run_columns(
        self,
        msgs: Sequence[Any],
        metadata: Sequence[dict[str, str]],
        types: Sequence[str],
        now_ms: int,
        progress: Callable[[], None],
    ) -> list[Any]:
        """Run the script once per message; see `Script.run_columns`."""
        results: list[Any] = []
        most = CHUNK_CALLS
        while (start := len(results)) < len(msgs):
            end = start + most
            found, most = self._chunk(msgs[start:end], metadata[start:end], types[start:end], now_ms)
            results += found
            progress()
        return results

    def _chunk(
        self, msgs: Sequence[Any], metadata: Sequence[dict[str, str]], types: Sequence[str], now_ms: int
    ) -> tuple[list[Any], int]:
        """Results of the first of some messages, as far as it came, and how many to try next.

        A chunk that cannot be done as a whole is tried again with half of its messages, down to the guilty one alone.
        Scripts have no effects outside their results: running twice does not show.
        """
        size = len(msgs)
        if self._run is None:
            self._open()
        failures: list[Any]
        try:
            packed = self._packed(msgs, metadata, types, now_ms)
            if size > 1 and len(packed) > CHUNK_BYTES:
                return [], size // 2
            if 2 * len(packed) >= self._memory_bytes:
                # Inside it would stand twice, packed and unpacked. And where Lua cannot take even the packed one, lupa
                # calls it unprotected, and Lua ends the whole process.
                return [memory_error(self._memory_bytes)], 2
            text, done, *failures = self._run(packed, size)
        except (OverflowError, UnicodeEncodeError) as error:
            return ([], size // 2) if size > 1 else ([_not_encoded(msgs[0], error)], 2)
        except (lua54.LuaError, MemoryError) as error:
            text, done, failures = None, b"memory" if _is_memory(error) else _text(error).encode(), []
        if text is None:
            self._run = None  # the prelude lets out what is beyond it alone, so this runtime is not to be trusted
            return ([], size // 2) if size > 1 else ([self._unanswered(msgs[0], done)], 2)
        results: list[Any] = _decode(text)
        for at in range(0, len(failures), 4):
            i, status, first, second = failures[at : at + 4]
            if i >= done:
                continue  # told before the chunk was left; it comes again with the rest
            if status == b"memory" and size > 1:
                self._run = None  # its neighbours had a part in that, so it gets a runtime to itself
                return results[:i], 1
            results[i] = self._problem(status, first, second)
        return results, min(size * 2, CHUNK_CALLS)

    def _packed(
        self, msgs: Sequence[Any], metadata: Sequence[dict[str, str]], types: Sequence[str], now_ms: int
    ) -> bytes:
        return _encode(
            (
                now_ms,
                [shown(msg) if type(msg) is bytes else msg for msg in msgs],
                metadata if self._names_metadata else None,
                types if self._names_type else None,
            )
        )

    def _problem(self, status: bytes, first: Any, second: Any) -> ScriptError | Retry:
        if status == b"error":
            return ScriptError(first.decode(errors="replace"), int(second))
        if status == b"retry":
            return asked_retry(first, second.decode(errors="replace"))
        self._run = None  # full of what the script left behind
        return budget_error(self._budget_s) if status == b"time" else memory_error(self._memory_bytes)

    def _unanswered(self, msg: Any, reason: bytes) -> ScriptError:
        if reason == b"wide":
            return _too_wide(msg)
        if reason == b"memory":
            return memory_error(self._memory_bytes)
        return ScriptError(f"script engine of {self.name} failed: {reason.decode(errors='replace')}")

    def _open(self) -> None:
        runtime = lua54.LuaRuntime(
            encoding=None,
            register_eval=False,
            register_builtins=False,
            unpack_returned_tuples=False,
            max_memory=self._memory_bytes,
            attribute_filter=_refuse_attribute,
        )
        settings = runtime.table_from(
            {b"budget_s": self._budget_s, b"result_bytes_max": RESULT_BYTES_MAX, b"depth_max": DEPTH_MAX}
        )
        try:
            parts = [runtime.compile(_chunk(f"lua_{name}.lua")) for name in ("values", "patterns", "environment")]
            found = runtime.execute(_chunk("lua_prelude.lua"), settings, *parts)(self._source)
        except (lua54.LuaMemoryError, MemoryError):
            raise memory_error(self._memory_bytes) from None
        if isinstance(found, tuple):
            text = found[1].decode(errors="replace")
            placed = _SYNTAX.match(text)
            raise ScriptError(placed[2], int(placed[1])) if placed else ScriptError(text)
        self._run = found


def _refuse_attribute(_object: object, name: object, _setting: bool) -> str:
    raise AttributeError(f"no attribute {name!r}")


def _not_encoded(msg: Any, error: Exception) -> ScriptError:
    if isinstance(error, OverflowError):
        return _too_wide(msg)
    return ScriptError("the message holds text that is not valid Unicode")


def _too_wide(msg: Any) -> ScriptError:
    where = find_integer_beyond(shown(msg), INT64_MAX) or "msg"
    return ScriptError(f"{where} is an integer beyond 64 bits, which Lua cannot hold")


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, lua54.LuaMemoryError | MemoryError)


def _text(error: BaseException) -> str:
    first = error.args[0] if error.args else ""
    return first.decode(errors="replace") if isinstance(first, bytes) else str(first)
