"""The lenient JSON that ThingsBoard's devices send, and its typing of numbers."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from engine.errors import BadInput
from nodes.codecs.values import INT64_MAX, INT64_MIN, MAX_DEPTH, check_value

MAX_SCALE: Final = 16
"""Decimals with more digits behind the point are kept as text (TB-S6)."""

MAX_NUMBER_CHARS: Final = 1000
"""How long a number kept as text may be when written out: `1e999999999` is a short way to ask for a gigabyte."""

MAX_LENIENT_BYTES: Final = 1024 * 1024
"""Longer texts must be strict JSON: the exact reader takes up to half a second of the processor for a megabyte."""

_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_NUMERIC_TEXT: Final = re.compile(r"-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)", re.ASCII)
_SKIPPED: Final = re.compile(r"(?:[ \t\f\r\n]+|(?://|#)[^\r\n]*|/\*(?:[^*]|\*(?!/))*+\*/)*+")
_WORD: Final = re.compile(r"[^{}\[\]:,;=#/\\ \t\f\r\n]+")
_PLAIN: Final = {'"': re.compile(r'[^"\\]*'), "'": re.compile(r"[^'\\]*")}
_HEX4: Final = re.compile(r"[0-9a-fA-F]{4}", re.ASCII)
_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"} | {c: c for c in "\"'\\/\n"}
_LITERALS: Final = {"true": True, "false": False, "null": None}


def decode_lenient(body: bytes, *, max_depth: int = MAX_DEPTH, long_as_text: bool = True) -> Any:
    """The value that `body` holds, read as JSON and, where that fails, with ThingsBoard's leniency (TB-12, TB-S7).

    Taken besides JSON: names and text without quotes or in single quotes, comments (`//`, `#`, `/* */`), `=` and `=>`
    for `:`, `;` for `,`, a byte order mark. An unquoted word is a number, true, false, null or else text. Nothing may
    follow the value. Numbers are typed as in TB-S6: with a dot and no exponent a float; whatever is integral an int
    (`1e3` is 1000); integers beyond 64 bits and decimals of a scale above 16 become text, or are refused when
    `long_as_text` is off. Everything returned passed `check_value`. More than a megabyte must be strict JSON.

    Raises BadInput, with line and column (from 1) where the text cannot be read and a JSON pointer where a value cannot
    be taken. Takes time in proportion to the length of `body`.
    """
    try:
        value = (_strict if long_as_text else _strict_short).decode(body)
        check_value(value, max_depth=max_depth)
        return value
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, BadInput) as error:
        # Not strict JSON, or a number that only its text tells: the exact reader decides.
        if len(body) > MAX_LENIENT_BYTES:
            raise BadInput(f"not strict JSON ({error}), and too long for any other") from None
    value = _read(body, max_depth, long_as_text)
    check_value(value, max_depth=max_depth)
    return value


def decode_members(body: bytes, *, long_as_text: bool = True) -> dict[str, Any]:
    """The members of an object, each read by itself as `decode_lenient` reads: one that is wrong spoils no other.

    In the place of a member that cannot be taken stands the BadInput that says why. Names are not checked. Raises
    BadInput for what is no object, or not JSON even with leniency.
    """
    members: dict[str, Any] = {}
    try:
        for name, raw in _raw_members.decode(body).items():
            try:
                members[name] = decode_lenient(bytes(raw), long_as_text=long_as_text)
            except BadInput as error:
                members[name] = error
        return members
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        if len(body) > MAX_LENIENT_BYTES:
            raise BadInput(f"not a strict JSON object ({error}), and too long for any other") from None
    value = _read(body, MAX_DEPTH, long_as_text)
    if type(value) is not dict:
        raise BadInput("an object is expected")
    for name, member in value.items():
        try:
            check_value(member)
            members[name] = member
        except BadInput as error:
            members[name] = error
    return members


def _read(body: bytes, max_depth: int, long_as_text: bool) -> Any:
    """The value by the exact reader, not checked."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"not UTF-8 at byte {error.start}: {error.reason}") from None
    return _Reader(text, max_depth, long_as_text).document()


def tb_cast(value: Any) -> Any:
    """The number that a numeric string stands for (`"42"` is 42, `"3.5"` is 3.5); anything else as it is (TB-S6).

    Numeric is: digits with at most one dot that is not the last character, and maybe a minus in front. A number that
    neither 64 bits nor a double can hold stays text.
    """
    if type(value) is not str or len(value) > MAX_NUMBER_CHARS or not _NUMERIC_TEXT.fullmatch(value):
        return value
    try:
        return typed_number(value)
    except BadInput:
        return value


def typed_number(text: str, *, long_as_text: bool = True) -> int | float | str:
    """The value of a number's text by ThingsBoard's rules (TB-S6); raises BadInput for one that nothing can hold."""
    if len(text) > MAX_NUMBER_CHARS:
        raise BadInput(f"number of more than {MAX_NUMBER_CHARS} characters")
    dotted = "." in text
    simple = dotted and "e" not in text and "E" not in text
    if simple and len(text) <= MAX_SCALE:
        return float(text)
    if not dotted and len(text) <= 18 and text.lstrip("-").isdigit():
        return int(text)
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise BadInput("number out of range") from None
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)  # the text has digits only, so neither infinity nor NaN
    if max(number.adjusted(), -exponent) > MAX_NUMBER_CHARS:
        raise BadInput("number out of range")
    if not simple and number == number.to_integral_value():
        integer = int(number)
        if INT64_MIN <= integer <= INT64_MAX:
            return integer
        reason = "integer does not fit 64 bits"
    elif -exponent <= MAX_SCALE:
        value = float(number)
        if value in (float("inf"), float("-inf")):
            raise BadInput("number out of range")
        return value
    else:
        reason = f"decimal with more than {MAX_SCALE} digits behind the point"
    if not long_as_text:
        raise BadInput(reason)
    return f"{number:f}"


def _typed_short(text: str) -> Any:
    return typed_number(text, long_as_text=False)


_strict: Final = msgspec.json.Decoder(float_hook=typed_number)
_strict_short: Final = msgspec.json.Decoder(float_hook=_typed_short)
_raw_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Reader:
    """Reads one text once, front to back; every step moves on, and nothing is read twice."""

    __slots__ = ("at", "long_as_text", "max_depth", "text")

    def __init__(self, text: str, max_depth: int, long_as_text: bool) -> None:
        self.text = text
        self.at = 1 if text.startswith("\ufeff") else 0
        self.max_depth = max_depth
        self.long_as_text = long_as_text

    def document(self) -> Any:
        self.skip()
        value = self.value(0)
        self.skip()
        if self.at < len(self.text):
            raise self.wrong("text after the end of the value")
        return value

    def value(self, depth: int) -> Any:
        """The value that starts here; `depth` containers are open around it."""
        char = self.peek()
        if char in ("{", "["):
            if depth >= self.max_depth:
                raise self.wrong("nested too deeply")
            self.at += 1
            return self.object(depth + 1) if char == "{" else self.array(depth + 1)
        if char in _PLAIN:
            return self.quoted()
        start = self.at
        word = self.word("a value")
        if word.lower() in _LITERALS:
            return _LITERALS[word.lower()]
        if _NUMBER.fullmatch(word):
            try:
                return typed_number(word, long_as_text=self.long_as_text)
            except BadInput as error:
                self.at = start
                raise self.wrong(error.reason) from None
        return word

    def object(self, depth: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        self.skip()
        if self.take("}"):
            return members
        while True:
            name = self.quoted() if self.peek() in _PLAIN else self.word("a name")
            self.skip()
            if self.take("="):
                self.take(">")
            elif not self.take(":"):
                raise self.wrong("expected ':' after the name")
            self.skip()
            members[name] = self.value(depth)
            self.skip()
            if self.take("}"):
                return members
            if not (self.take(",") or self.take(";")):
                raise self.wrong("expected ',' or '}'")
            self.skip()

    def array(self, depth: int) -> list[Any]:
        members: list[Any] = []
        self.skip()
        if self.take("]"):
            return members
        while True:
            members.append(self.value(depth))
            self.skip()
            if self.take("]"):
                return members
            if not (self.take(",") or self.take(";")):
                raise self.wrong("expected ',' or ']'")
            self.skip()

    def quoted(self) -> str:
        start, quote = self.at, self.text[self.at]
        self.at += 1
        parts: list[str] = []
        while True:
            plain = _PLAIN[quote].match(self.text, self.at)
            assert plain  # it matches the empty text too
            parts.append(plain[0])
            self.at = plain.end()
            if self.take(quote):
                return "".join(parts)
            if self.at + 1 >= len(self.text):
                self.at = start
                raise self.wrong("text without its closing quote")
            parts.append(self.escape())

    def escape(self) -> str:
        escaped = self.text[self.at + 1]
        if escaped in _ESCAPES:
            self.at += 2
            return _ESCAPES[escaped]
        if escaped != "u":
            raise self.wrong("unknown escape")
        unit = self.utf16_unit(self.at)
        if 0xDC00 <= unit <= 0xDFFF:
            raise self.wrong("lone surrogate")
        if not 0xD800 <= unit <= 0xDBFF:
            self.at += 6
            return chr(unit)
        low = self.utf16_unit(self.at + 6) if self.text.startswith("\\u", self.at + 6) else 0
        if not 0xDC00 <= low <= 0xDFFF:
            raise self.wrong("lone surrogate")
        self.at += 12
        return chr(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00))

    def utf16_unit(self, at: int) -> int:
        digits = _HEX4.match(self.text, at + 2)
        if not digits:
            raise self.wrong("expected four hexadecimal digits")
        return int(digits[0], 16)

    def word(self, expected: str) -> str:
        found = _WORD.match(self.text, self.at)
        if not found:
            raise self.wrong(f"expected {expected}" if self.peek() else f"ends where {expected} should stand")
        self.at = found.end()
        return found[0]

    def skip(self) -> None:
        """Go past blanks and comments."""
        found = _SKIPPED.match(self.text, self.at)
        assert found  # it matches the empty text too
        self.at = found.end()
        if self.text.startswith("/*", self.at):
            raise self.wrong("comment without its end")

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self, char: str) -> bool:
        if self.text.startswith(char, self.at):
            self.at += 1
            return True
        return False

    def wrong(self, reason: str) -> BadInput:
        line = self.text.count("\n", 0, self.at) + 1
        column = self.at - self.text.rfind("\n", 0, self.at)
        return BadInput(f"line {line}, column {column}: {reason}")
