"""Dates as apps and things write and read them (`TTI-32`, `TTI-S11`, `TTI-S12`)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from engine.errors import BadInput

FIRST_MS: Final = 0
LAST_MS: Final = 8_640_000_000_000_000
"""The end of times, for JavaScript."""

_COMPACT: Final = re.compile(r"(\d{4})(\d\d)(\d\d)T?(\d\d)(\d\d)(\d\d)(?:\.(\d{1,9}))?Z?", re.ASCII)


def ms_of(text: str, what: str) -> int:
    """Milliseconds since 1970 of `YYYYMMDDHHmmss`, `YYYYMMDDTHHmmss` or ISO 8601, UTC unless it says; BadInput."""
    compact = _COMPACT.fullmatch(text)
    try:
        if compact is not None:
            *parts, fraction = compact.groups()
            year, month, day, hour, minute, second = map(int, parts)
            moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
            return int(moment.timestamp()) * 1000 + int((fraction or "0")[:3].ljust(3, "0"))
        # A plus sign that was not encoded has become a blank on the way.
        moment = datetime.fromisoformat(re.sub(r" (\d\d:?\d\d)$", r"+\1", text))
        if "T" not in text and " " not in text:
            raise ValueError
    except (ValueError, OverflowError):
        raise BadInput(
            f"{what} is no date: {text[:40]!r}; for example 20170116102510 or 2017-01-16T10:25:10.644Z"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_SECONDS: Final = 253_402_300_799
"""The last second of the year 9999; times outside its calendar are shown as its ends."""
_LEAST_SECONDS: Final = -62_135_596_800


def _moment(ts_ms: int) -> tuple[datetime, int]:
    seconds, ms = divmod(ts_ms, 1000)
    return datetime.fromtimestamp(min(max(seconds, _LEAST_SECONDS), _MOST_SECONDS), UTC), ms


def iso(ts_ms: int) -> str:
    """As in `2017-01-16T10:25:10.644Z`."""
    moment, ms = _moment(ts_ms)
    return f"{moment.replace(tzinfo=None).isoformat(timespec='seconds')}.{ms:03d}Z"


def compact(ts_ms: int) -> str:
    """As in `20150202T220035.00Z`: to the hundredth of a second."""
    moment, ms = _moment(ts_ms)
    date = moment.replace(tzinfo=None).isoformat(timespec="seconds").replace("-", "").replace(":", "")
    return f"{date}.{ms // 10:02d}Z"
