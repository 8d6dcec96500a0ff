"""JavaScript scripts on QuickJS: one frozen realm per script, messages crossing in chunks as one JSON text.

The engine interrupts loops and regular expressions, but only for a whole call. So a chunk gets one message's budget,
and a chunk that breaks a limit is run again one message at a time, each with the budget to itself: scripts have no
effects outside their result, so running twice does not show.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from itertools import repeat
from typing import Any

import msgspec
import quickjs

from engine.errors import ScriptError
from engine.sandbox.script import (
    DEPTH_MAX,
    RESULT_BYTES_MAX,
    SOURCE_LINES_MAX,
    Call,
    asked_retry,
    budget_error,
    find_integer_beyond,
    memory_error,
    normal_source,
    run_calls,
    shown,
)

EXACT_INTEGER_MAX = (1 << 53) - 1
"""Largest integer that a JavaScript number holds exactly."""
CHUNK_CALLS = 100
CHUNK_BYTES = 256 << 10
_VALUE_BYTES = 16
"""What JavaScript needs for each number of a list."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_LONG_NUMBER = re.compile(rb"\d{16}")
_LINE = re.compile(r"<input>:(\d+)")
_ARGUMENTS = "msg, metadata, msgType, now, retry"


class _Broken(Exception):
    """A call into the engine broke a limit or the engine: its results are lost, its realm is spent."""

    def __init__(self, error: ScriptError) -> None:
        super().__init__(str(error))
        self.error = error


@cache
def _prelude() -> str:
    # Moved behind every line that a user's source can have, so that a stack's lines tell whose they are.
    return "\n" * (SOURCE_LINES_MAX + 1) + files(__package__).joinpath("js_prelude.js").read_text(encoding="utf-8")


class JsScript:
    """A script in JavaScript, in strict mode; see `engine.sandbox.script.Script`.

    JavaScript has one kind of number: what is integral comes back as an integer when it is within ±(2^53 - 1), anything
    else as a float. An integer beyond that in the message fails it, rather than changing unseen. Members that are
    undefined or functions are left out, as JSON does. `retry(after_s, reason)` asks to be tried again, `now()` gives
    milliseconds.
    """

    def __init__(self, source: str, *, name: str, budget_s: float, memory_bytes: int) -> None:
        self._source = normal_source(source)
        self.name = name
        self._budget_s = budget_s
        self._memory_bytes = memory_bytes
        # What a script does not name it cannot see, so it need not cross the border. There are two more ways to a
        # parameter: `arguments`, and an escape in its name.
        names_all = "arguments" in self._source or "\\" in self._source
        self._names_metadata = names_all or "metadata" in self._source
        self._names_type = names_all or "msgType" in self._source
        self._context: Any = None
        self._drive: Any = None
        _compile(_new_context(budget_s, memory_bytes), self._source)

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
        results: list[Any] = [None] * len(msgs)
        given = zip(
            msgs,
            metadata if self._names_metadata else repeat(None),
            types if self._names_type else repeat(None),
            repeat(now_ms),
            strict=False,
        )
        for chunk in self._chunks(given, results):
            try:
                answers = self._call([text for _, text in chunk])
            except _Broken as broken:
                answers = [broken.error] if len(chunk) == 1 else self._singly(chunk, progress)
            for (i, _), answer in zip(chunk, answers, strict=True):
                results[i] = answer
            progress()
        return results

    def _chunks(self, given: Iterable[tuple[Any, ...]], results: list[Any]) -> Iterator[list[tuple[int, bytes]]]:
        """Arguments as JSON texts with their index, in chunks; what cannot be passed gets its error in `results`."""
        chunk: list[tuple[int, bytes]] = []
        size = 0
        for i, arguments in enumerate(given):
            if type(arguments[0]) is bytes and _VALUE_BYTES * len(arguments[0]) >= self._memory_bytes:
                # As numbers they cannot fit; to find that out by writing them all as text takes seconds.
                results[i] = memory_error(self._memory_bytes)
                continue
            text = _call_text(arguments)
            if isinstance(text, ScriptError):
                results[i] = text
                continue
            if chunk and (len(chunk) >= CHUNK_CALLS or size + len(text) > CHUNK_BYTES):
                yield chunk
                chunk, size = [], 0
            chunk.append((i, text))
            size += len(text)
        if chunk:
            yield chunk

    def _singly(self, chunk: list[tuple[int, bytes]], progress: Callable[[], None]) -> list[Any]:
        answers: list[Any] = []
        for _, text in chunk:
            progress()
            try:
                answers += self._call([text])
            except _Broken as broken:
                answers.append(broken.error)
        return answers

    def _call(self, texts: list[bytes]) -> list[Any]:
        """Results of some calls; raises _Broken when they cannot be told."""
        fresh = self._drive is None
        if fresh:
            self._open()
        try:
            found = self._drive((b"[" + b",".join(texts) + b"]").decode())
        except (quickjs.JSException, MemoryError) as error:
            self._drive = self._context = None
            if "interrupted" in str(error):
                raise _Broken(budget_error(self._budget_s)) from None
            if not fresh and len(texts) == 1:
                return self._call(texts)  # what earlier messages left in memory is not this one's fault
            if isinstance(error, quickjs.StackOverflow):
                raise _Broken(ScriptError("the message or its result is nested too deep")) from None
            raise _Broken(memory_error(self._memory_bytes)) from None
        encoded = found.encode()
        try:
            answers = _decode(encoded)
        except (msgspec.DecodeError, RecursionError):
            raise _Broken(ScriptError("result is nested too deep, or holds text that is not valid Unicode")) from None
        deep = encoded.count(b"[") + encoded.count(b"{") > DEPTH_MAX
        long = _LONG_NUMBER.search(encoded) is not None
        return [_result(answer, deep, long) for answer in answers]

    def _open(self) -> None:
        context = _new_context(self._budget_s, self._memory_bytes)
        drive = context.eval(_prelude())
        self._drive = drive(_compile(context, self._source), RESULT_BYTES_MAX)
        self._context = context


def _new_context(budget_s: float, memory_bytes: int) -> Any:
    context = quickjs.Context()
    context.set_memory_limit(memory_bytes)
    context.set_time_limit(budget_s)
    return context


def _compile(context: Any, source: str) -> Any:
    """The source as a function; raises ScriptError with the line if it is not a function's body."""
    try:
        # A body that closes its function early can pass as an expression or as a declaration, not as both.
        context.eval(f'"use strict"; if (false) {{ function check({_ARGUMENTS}) {{{source}\n}} }}')
        found = context.eval(f'"use strict"; (function ({_ARGUMENTS}) {{{source}\n}})')
    except quickjs.JSException as error:
        text = str(error)
        placed = _LINE.search(text)
        raise ScriptError(text.split("\n", 1)[0], int(placed[1]) if placed else 0) from None
    return found


def _call_text(arguments: tuple[Any, ...]) -> bytes | ScriptError:
    msg = arguments[0]
    if type(msg) is bytes:
        msg = shown(msg)
        arguments = (msg, *arguments[1:])
    try:
        text = _encode(arguments)
    except UnicodeEncodeError:
        return ScriptError("the message holds text that is not valid Unicode")
    if _LONG_NUMBER.search(text) and (where := find_integer_beyond(msg, EXACT_INTEGER_MAX)):
        return ScriptError(f"{where} is an integer beyond 2^53, which JavaScript cannot hold exactly")
    return text


def _result(answer: list[Any], deep: bool, long: bool) -> Any:
    """What one call gave: [0, value], [1, text, line] or [2, after_s, reason]."""
    if answer[0] == 1:
        return ScriptError(answer[1][:1000], answer[2])
    if answer[0] == 2:
        return asked_retry(answer[1], answer[2])
    value = answer[1]
    if deep and _deeper_than(value, DEPTH_MAX):
        return ScriptError(f"result is nested deeper than {DEPTH_MAX} levels")
    return _as_numbers(value) if long else value


def _deeper_than(value: Any, most: int) -> bool:
    stack = [(value, 1)]
    while stack:
        found, depth = stack.pop()
        if isinstance(found, dict | list):
            if depth > most:
                return True
            stack.extend((member, depth + 1) for member in (found.values() if isinstance(found, dict) else found))
    return False


def _as_numbers(value: Any) -> Any:
    """The value with integers that JavaScript writes out but does not hold exactly as the floats they are."""
    if isinstance(value, dict):
        return {key: _as_numbers(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_as_numbers(member) for member in value]
    if isinstance(value, int) and abs(value) > EXACT_INTEGER_MAX:
        return float(value)
    return value
