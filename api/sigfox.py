"""What callbacks of the Sigfox backend say and are answered, in whatever dialect."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from api.transports.http import JSON, Response
from engine.errors import BadInput
from nodes.codecs.downlink import payload_bytes
from nodes.codecs.records import DIFFERENCE_BELOW, resolve_time

MAX_BODY_BYTES: Final = 1024 * 1024
MAX_DIGITS: Final = 24
DOWNLINK_BYTES: Final = 8
ANSWER_WITHIN_S: Final = 5.0
"""How long a callback that may be answered waits for the chain."""

_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2})*")
_NUMBER: Final = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?")


def payload_of(data: str) -> bytes:
    """The bytes of an uplink; BadInput."""
    if not _HEX.fullmatch(data):
        raise BadInput("data must be an even number of hexadecimal digits", "/data")
    if len(data) > MAX_DIGITS:
        raise BadInput(f"data has more than {MAX_DIGITS} digits", "/data")
    return bytes.fromhex(data)


def time_ms(given: Mapping[str, str]) -> int | None:
    """When an uplink was received, of epoch seconds or milliseconds; None when it is not told. BadInput."""
    text = given.get("time")
    if not text:
        return None
    if not _NUMBER.fullmatch(text) or float(text) < DIFFERENCE_BELOW:
        raise BadInput("time is not in seconds since 1970", "/time")
    return resolve_time(float(text), 0, "/time")


def wants_answer(given: Mapping[str, str]) -> bool:
    """Whether the device listens for a downlink."""
    return given.get("ack", "").lower() == "true"


def downlink(payload: Any) -> bytes:
    """The bytes of a downlink; BadInput."""
    found = payload_bytes(payload)
    if len(found) != DOWNLINK_BYTES:
        raise BadInput(f"a Sigfox downlink has {DOWNLINK_BYTES} bytes, this has {len(found)}")
    return found


def answered(id: str, data: bytes | None) -> Response:
    """The answer to a callback of the device `id`, with a downlink or (None) without."""
    if data is None:
        return Response(204)
    return Response(200, msgspec.json.encode({id.upper(): {"downlinkData": data.hex()}}), (JSON,))
