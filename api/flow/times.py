"""Times as callers give them: milliseconds since 1970 UTC, or ISO 8601."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from typing import Annotated, Any, Final

from msgspec import Meta

from engine.errors import BadInput

FAR_MS: Final = 9_007_199_254_740_991
"""The last millisecond that every JSON reader can tell from its neighbours."""

Time = Annotated[int, Meta(ge=-FAR_MS, le=FAR_MS)] | Annotated[str, Meta(max_length=40)]
First = Annotated[
    Time, Meta(description="First time, in milliseconds since 1970 UTC or ISO 8601 such as 2026-01-31T12:00:00Z.")
]
Behind = Annotated[Time, Meta(description="First time that is not in the range, given in the same ways.")]

_MS: Final = re.compile(r"[+-]?\d{1,17}")


def read_ms(given: int | str, name: str, zone: tzinfo) -> int:
    """The milliseconds of a query parameter. Without an offset, ISO 8601 is taken in `zone`.

    BadInput for what is neither, and for what lies further than FAR_MS from 1970.
    """
    place = f"?{name}"
    if isinstance(given, int) or _MS.fullmatch(given):
        ms = int(given)
        if not -FAR_MS <= ms <= FAR_MS:
            raise BadInput(f"query parameter {name}: must be -{FAR_MS} to {FAR_MS}", place)
        return ms
    try:
        # A plus that nobody has escaped arrives as a blank.
        when = datetime.fromisoformat(re.sub(r"(T[\d:.]+) (\d\d:?\d\d)$", r"\1+\2", given))
        when = when if when.tzinfo is not None else when.replace(tzinfo=zone)
        return round(when.timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise BadInput(
            f"query parameter {name}: {given!r} is neither milliseconds since 1970 nor ISO 8601, "
            "such as 2026-01-31T12:00:00Z",
            place,
        ) from None


def read_range(query: Any, zone: tzinfo = UTC) -> tuple[int, int]:
    """`start_ms` and `end_ms` of a query; BadInput for a range that ends before it begins."""
    start_ms, end_ms = read_ms(query.start_ms, "start_ms", zone), read_ms(query.end_ms, "end_ms", zone)
    if start_ms > end_ms:
        raise BadInput("query parameter end_ms: lies before start_ms", "?end_ms")
    return start_ms, end_ms
