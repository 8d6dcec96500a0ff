"""Windows of time for aggregates: so many seconds, minutes, hours, days, weeks or months, in a time zone.

Windows of less than a day follow each other without a gap through every change of the clock; days, weeks (from Monday)
and months begin at midnight of the zone, so that a day may have 23 or 25 hours.
"""

from __future__ import annotations

from typing import Final

import msgspec

MOST: Final = 20_000
"""Windows of one aggregate, for each series."""


class Window(msgspec.Struct, frozen=True):
    """A length such as `30s`, `5m`, `1h`, `1d`, `1w`, `1mo`, and an IANA time zone. `window` makes and checks it."""

    every: str
    zone: str = "UTC"
