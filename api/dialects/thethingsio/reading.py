"""Reading values: what a call asks for, and how values are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from api.dialects.thethingsio.dates import FIRST_MS, LAST_MS, iso, ms_of
from api.dialects.thethingsio.settings import MAX_VALUES
from engine.errors import BadInput
from engine.message import Point
from engine.stores.timeseries import Timeseries

_WORDS: Final = {"true": True, "1": True, "false": False, "0": False}


class Asked(Protocol):
    """A request, of whatever transport, with the parameters of its address."""

    @property
    def query(self) -> Mapping[str, str]:
        """Parameters by name."""


class Wanted(NamedTuple):
    """The newest `limit` values of each thing in start <= time < end (`TTI-32`, `TTI-S10`, `TTI-S11`)."""

    limit: int
    start_ms: int
    end_ms: int

    async def read(
        self, store: Timeseries, tenant: str, things: Sequence[str], keys: Sequence[str] | None
    ) -> list[Point]:
        """The points, by thing, then key, the newest first; in one query."""
        if not things or self.start_ms >= self.end_ms:
            return []
        return await store.latest(
            tenant, things, keys, count=self.limit, start_ms=self.start_ms, end_ms=self.end_ms
        )  # fmt: skip


def wanted(request: Asked, usual: int = 1) -> Wanted:
    """What the parameters of a call ask for, `usual` being the limit of one that names none; BadInput."""
    query = request.query
    limit = number(query.get("limit"), "limit", usual)
    if limit < 1:
        raise BadInput("limit is at least 1")
    start, end = query.get("startDate"), query.get("endDate")
    return Wanted(
        min(limit, MAX_VALUES),
        ms_of(start, "startDate") if start else FIRST_MS,
        ms_of(end, "endDate") if end else LAST_MS,
    )


def number(text: str | None, what: str, default: int) -> int:
    """A whole number in a parameter; BadInput."""
    if text is None or text == "":
        return default
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 18:
        raise BadInput(f"{what} is a whole number, not {text[:40]!r}")
    return int(text)


def flag(request: Asked, name: str) -> bool:
    """A switch in a parameter, on by default (`TTI-36`, `TTI-37`); BadInput."""
    return choice(request, name) is not False


def choice(request: Asked, name: str) -> bool | None:
    """True or false in a parameter, None where it is not there; BadInput."""
    text = request.query.get(name)
    if text is None:
        return None
    if text not in _WORDS:
        raise BadInput(f"{name} is true or false, not {text[:40]!r}")
    return _WORDS[text]


def shown(point: Point) -> dict[str, Any]:
    """As in `{"key": "temperature", "value": 24.3, "datetime": "2017-01-16T10:25:10.644Z"}`."""
    return {"key": point.key, "value": point.value, "datetime": iso(point.ts_ms)}
