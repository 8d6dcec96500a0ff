"""What may be set of the thethings.iO dialect, and its limits."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

DIALECT: Final = "tti"
"""Metadata `dialect` of its messages (`G-18`)."""

MAX_BODY_BYTES: Final = 1024 * 1024
"""Of any body (`G-12`)."""
MAX_VALUES: Final = 1000
"""Values of one call, in either direction (`TTI-33`, `TTI-S13`)."""
SYNC_TIMEOUT_S: Final = 30.0
"""How long a call with `?sync=true` waits for its chain (`G-20`)."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the dialect behaves where it can be chosen."""

    require_tls: Annotated[
        bool,
        Meta(description="Apps are refused without TLS (`TTI-2`, `TTI-S1`); things never are."),
    ] = True
    iso_datetime_everywhere: Annotated[
        bool,
        Meta(description="The compact form of dates in the list of all things is given up (`TTI-S12`)."),
    ] = False
