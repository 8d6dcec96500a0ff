"""The data model at the door: what a value and a key may be, whatever format they came in."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from engine.errors import BadInput

MAX_DEPTH: Final = 32
"""How many arrays and objects may stand inside each other; the outermost counts as one."""

MAX_KEY_CHARS: Final = 255

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1

_FLOAT_MAX: Final = 1.7976931348623157e308
_TOO_DEEP: Final = "nested too deeply"

_decoder: Final = msgspec.json.Decoder()
_decoder_with_infinity: Final = msgspec.json.Decoder(float_hook=float)


class _Wrong(Exception):
    """What is wrong and, innermost first, the path to it: collected on the way out, so that good values pay nothing."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str | int] = []


def decode_json(body: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """The JSON value (RFC 8259, UTF-8 without byte order mark) that `body` holds; all of it has passed `check_value`.

    A number with a dot or an exponent is a float, any other an int. Of two members of one name the last stands, as with
    most readers. Raises BadInput; `pointer` names the place, and is empty where the text is not JSON at all.
    """
    try:
        value = _decode(_decoder, body)
    except msgspec.ValidationError:
        # A number out of range. Read again with infinity in its place, so that the check below can name the place.
        try:
            value = _decode(_decoder_with_infinity, body)
        except msgspec.ValidationError:
            raise BadInput("not JSON: a number is far too long") from None
    check_value(value, max_depth=max_depth)
    return value


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except UnicodeDecodeError as error:
        raise BadInput(f"not JSON: text is not UTF-8 ({error.reason})") from None
    except RecursionError:
        raise BadInput(_TOO_DEEP) from None
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as error:
        reason = str(error).removeprefix("JSON is malformed: ").replace("Input data was truncated", "ends too early")
        raise BadInput(f"not JSON: {reason}") from None


def check_value(value: Any, pointer: str = "", *, max_depth: int = MAX_DEPTH) -> None:
    """Raise BadInput unless `value` is null, bool, int64, finite float, valid text, or an array or object of such.

    `pointer` is the JSON pointer of `value` itself; the error's pointer goes on from there.
    """
    try:
        _walk(value, max_depth)
    except _Wrong as wrong:
        raise BadInput(wrong.reason, pointer + "".join(pointer_step(step) for step in reversed(wrong.path))) from None


def check_key(key: Any, pointer: str = "") -> None:
    """Raise BadInput unless `key` is text of 1 to 255 characters without control characters and lone surrogates."""
    reason = _key_problem(key)
    if reason:
        raise BadInput(reason, pointer)


def pointer_step(step: str | int) -> str:
    """One step of a JSON pointer (RFC 6901), with its slash. Control characters and surrogates are shown escaped."""
    text = str(step).replace("~", "~0").replace("/", "~1")
    if not text.isprintable():
        text = text.encode("unicode_escape").decode("ascii")
    return "/" + (text if len(text) <= MAX_KEY_CHARS else text[:MAX_KEY_CHARS] + "…")


def _walk(value: Any, depth_left: int) -> None:
    kind = type(value)
    if kind is dict:
        if depth_left <= 0:
            raise _Wrong(_TOO_DEEP)
        for key, member in value.items():
            # Printable text of a fair length is the common case; the rest is looked at closely.
            if (type(key) is not str or not 0 < len(key) <= MAX_KEY_CHARS or not key.isprintable()) and (
                problem := _key_problem(key)
            ):
                raise _at(_Wrong(problem), key)
            kind = type(member)
            if (kind is str and member.isascii()) or kind is bool:
                continue
            if kind is float and -_FLOAT_MAX <= member <= _FLOAT_MAX:
                continue
            if kind is int and INT64_MIN <= member <= INT64_MAX:
                continue
            try:
                _walk(member, depth_left - 1)
            except _Wrong as wrong:
                raise _at(wrong, key) from None
    elif kind is list:
        if depth_left <= 0:
            raise _Wrong(_TOO_DEEP)
        for index, member in enumerate(value):
            kind = type(member)
            if kind is float and -_FLOAT_MAX <= member <= _FLOAT_MAX:
                continue
            if kind is int and INT64_MIN <= member <= INT64_MAX:
                continue
            try:
                _walk(member, depth_left - 1)
            except _Wrong as wrong:
                raise _at(wrong, index) from None
    elif problem := _scalar_problem(value):
        raise _Wrong(problem)


def _at(wrong: _Wrong, step: Any) -> _Wrong:
    wrong.path.append(step if isinstance(step, (str, int)) else type(step).__name__)
    return wrong


def _scalar_problem(value: Any) -> str:
    if value is None or type(value) is bool:
        return ""
    if type(value) is str:
        return "" if value.isascii() or _is_unicode(value) else "text holds a lone surrogate"
    if type(value) is float:
        return "" if -_FLOAT_MAX <= value <= _FLOAT_MAX else "not a finite number"
    if type(value) is int:
        return "" if INT64_MIN <= value <= INT64_MAX else "integer does not fit 64 bits"
    return f"{type(value).__name__} is not a JSON value"


def _key_problem(key: Any) -> str:
    if type(key) is not str:
        return f"key must be text, not {type(key).__name__}"
    if not key:
        return "key is empty"
    if len(key) > MAX_KEY_CHARS:
        return f"key is longer than {MAX_KEY_CHARS} characters"
    # Unicode's category Cc, spelled out.
    if any(char < " " or "\x7f" <= char <= "\x9f" for char in key):
        return "key holds a control character"
    return "" if _is_unicode(key) else "key holds a lone surrogate"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
