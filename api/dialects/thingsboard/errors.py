"""Errors as the vendor's server tells them (`TB-S3`)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from api.transports.http import JSON, Header, Response

CODES: Final = {400: 31, 401: 10, 403: 20, 404: 32, 429: 33}
"""The vendor's own code for each status."""
GENERAL: Final = 2
EXPIRED: Final = 11
"""Of a 401 for a token whose time is over: clients fetch a new one when they see it."""


def error_response(status: int, message: str, headers: Sequence[Header] = (), *, code: int | None = None) -> Response:
    """`{"status", "message", "errorCode", "timestamp"}`; of 413 the message alone, as a JSON text (`TB-S9`)."""
    body: Any = message
    if status != 413:
        body = {
            "status": status,
            "message": message,
            "errorCode": CODES.get(status, GENERAL) if code is None else code,
            "timestamp": time.time_ns() // 1_000_000,
        }
    return Response(status, msgspec.json.encode(body), (JSON, *headers))
