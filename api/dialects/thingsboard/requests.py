"""What requests of the HTTP device API have in common: whose they are, their numbers, and answers in JSON."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from api.auth import Unknown, token_print
from api.dialects.thingsboard.parts import Parts
from api.dialects.thingsboard.settings import MAX_BODY_BYTES
from api.transports.http import JSON, HttpError, Request, Response
from engine.errors import BadInput
from engine.stores.registry import ACCESS_TOKEN, Device

T = TypeVar("T")

TRANSPORT: Final = "http"
LARGE_BYTES: Final = 262_144
"""Longer bodies are read in a thread: they take milliseconds."""

OK: Final = Response(200)
TIMED_OUT: Final = Response(408)

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_INT32: Final = 2**31


async def device_of(parts: Parts, params: dict[str, str]) -> Device:
    """The device of the token in the path, which is thereby active.

    401 for nobody's token and a disabled device's, 429 for one that asks too often (`TB-S40`).
    """
    print_ = token_print(ACCESS_TOKEN, params["token"])
    device = parts.auth.known(print_)
    if isinstance(device, Unknown):
        device = await parts.auth.find(print_)
    if device is None or not device.enabled:
        raise HttpError(401, "")
    parts.intake.heard(device)
    if wait_s := parts.limits.take(device.id):
        raise HttpError(429, "Too many requests", ((b"retry-after", b"%d" % math.ceil(wait_s)),))
    return device


async def decoded(request: Request, decode: Callable[[bytes], T]) -> T:
    """What the body holds."""
    body = await request.body(MAX_BODY_BYTES)
    return decode(body) if len(body) <= LARGE_BYTES else await asyncio.to_thread(decode, body)


def integer(text: str, what: str) -> int:
    """The number that a text is; BadInput for any other text."""
    if not _INTEGER.fullmatch(text):
        raise BadInput(f"{what} is not an integer: {text[:40]!r}")
    return int(text)


def int32(text: str, what: str) -> int:
    """The same for numbers of 32 bits."""
    number = integer(text, what)
    if not -_INT32 <= number < _INT32:
        raise BadInput(f"{what} is out of range: {number}")
    return number


def timeout_s(request: Request, default_s: float, most_s: float) -> float:
    """How long to wait (`TB-S16`); 0 or less: not at all."""
    text = request.query.get("timeout")
    milliseconds = integer(text, "timeout") if text else 0
    if milliseconds == 0:
        return default_s
    return min(milliseconds / 1000, most_s)


def as_json(value: Any, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(status, msgspec.json.encode(value), (JSON,))
