"""Answers of InfluxDB to InfluxQL, as JSON, and the points in them."""

from __future__ import annotations

import json
import re
from typing import Any, Final, Generic, TypeVar

import msgspec

from engine.errors import StoreUnavailable
from engine.message import Point
from engine.stores.line_protocol import PLACES, shown_name

Fields = tuple[
    int | None, float | None, bool | None, str | None, str | None, str | None, float | None, float | None
]  # fmt: skip
"""l, d, b, s, j, t, lat, lon of one point."""

Typed = tuple[int | None, float | None, bool | None, str | None, str | None, str | None]
"""l, d, b, s, j, t of one point."""

FieldRow = tuple[
    int, int | None, float | None, bool | None, str | None, str | None, str | None, float | None, float | None
]  # fmt: skip
"""A time in milliseconds and `Fields`."""

NamedRow = tuple[
    int, str, str, int | None, float | None, bool | None, str | None, str | None, str | None, float | None,
    float | None,
]  # fmt: skip
"""A time in milliseconds, device and key as they are stored, and `Fields`."""

Row = TypeVar("Row")

_LETTERS: Final = "ldbsj"
_AT: Final = {letter: i for i, letter in enumerate(_LETTERS)}
_JSON: Final = _AT["j"]
_HAS: Final = {letter: has for has, letter in PLACES.items()}


class Series(msgspec.Struct, gc=False):
    """A part of what a statement found: rows that share their tags; `values` is decoded by who knows the columns."""

    tags: dict[str, str] = {}
    columns: list[str] = []
    values: msgspec.Raw = msgspec.Raw(b"[]")

    @property
    def device(self) -> str:
        """The name in the tag `device`."""
        return shown_name(self.tags.get("device", ""))

    @property
    def key(self) -> str:
        """The name in the tag `key`."""
        return shown_name(self.tags.get("key", ""))


class Result(msgspec.Struct, gc=False):
    """What one statement gave, or a part of it."""

    statement_id: int = 0
    series: list[Series] = []
    error: str = ""


class Answer(msgspec.Struct, gc=False):
    """One document of an answer; there are several when it comes in chunks."""

    results: list[Result] = []
    error: str = ""


_MINUS_ZERO: Final = re.compile(rb"-0[,\]]")

_answers = msgspec.json.Decoder(Answer)


class Rows(Generic[Row]):
    """Decodes the values of a series whose columns are of the types of `row`."""

    def __init__(self, row: Any) -> None:
        self._type: Any = list.__class_getitem__(row)
        self._decoder: msgspec.json.Decoder[list[Row]] = msgspec.json.Decoder(self._type)

    def __call__(self, series: Series) -> list[Row]:
        """The rows; StoreUnavailable for others."""
        try:
            if _MINUS_ZERO.search(series.values) is None:
                return self._decoder.decode(series.values)
            # InfluxDB writes the double -0.0 as the integer -0, which has no sign for whoever reads it as one.
            loose = json.loads(bytes(series.values), parse_int=_number)
            rows: list[Row] = msgspec.convert(loose, self._type)
            return rows
        except ValueError as error:  # of msgspec, of json, and of text that is not UTF-8
            raise StoreUnavailable(f"InfluxDB's rows cannot be read: {error}") from error


field_rows: Final = Rows[FieldRow](FieldRow)
named_rows: Final = Rows[NamedRow](NamedRow)


def answer(line: bytes) -> Answer:
    """A document; StoreUnavailable for what is none."""
    try:
        return _answers.decode(line)
    except ValueError as error:  # of msgspec, and of text that is not UTF-8
        raise StoreUnavailable(f"InfluxDB's answer cannot be read: {error}: {line[:200]!r}") from error


def point_of(tenant: str, device: str, key: str, ts_ms: int, fields: Fields) -> Point | None:
    """The point of a row; None where no value stands."""
    value, t = value_of(fields[:6]), fields[5]
    if value is None:
        return None
    if not t or len(t) == 1:
        return Point(tenant, device, key, ts_ms, value)
    has_lat, has_lon = _HAS.get(t[1:], (False, False))
    return Point(tenant, device, key, ts_ms, value, fields[6] if has_lat else None, fields[7] if has_lon else None)


def value_of(fields: Typed) -> Any:
    """The value that was sent last: the one that `t` names; None where no value stands."""
    t = fields[5]
    at = _AT.get(t[:1], -1) if t else -1
    if at < 0 or fields[at] is None:  # not written by us: the first value there is
        at = next((i for i in range(len(_LETTERS)) if fields[i] is not None), -1)
    if at < 0:
        return None
    value: Any = fields[at]
    if at == _JSON:
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value


def _number(text: str) -> int | float:
    return -0.0 if text == "-0" else int(text)
