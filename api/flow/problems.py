"""Errors as `application/problem+json` (RFC 9457): what went wrong, and where in what was sent."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from redis.exceptions import RedisError
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from engine.errors import (
    BadInput,
    Conflict,
    Finding,
    InvalidDocument,
    NotFound,
    Refused,
    StoreUnavailable,
    Unsupported,
)

log = logging.getLogger("rulemill.flow")

MEDIA: Final = "application/problem+json"


class Fault(msgspec.Struct, frozen=True):
    """One thing wrong with what was sent."""

    pointer: Annotated[
        str, Meta(description="JSON pointer into the body; `?name` for a query parameter; empty: the whole.")
    ]
    message: Annotated[str, Meta(description="What is wrong, in plain words.")]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What every answer that is no success says."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[Fault] = []


class Timeout(Exception):
    """Nobody answered in time: 504."""


class Unauthorized(Exception):
    """The token is missing or wrong: 401."""


class NotFoundHere(Exception):
    """Some of the things that a call names do not exist: 404, with the place of each."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("; ".join(finding.message for finding in findings))
        self.findings = list(findings)


def faults(findings: Sequence[Finding]) -> list[Fault]:
    """Findings as the API shows them."""
    return [Fault(finding.pointer, finding.message) for finding in findings]


def problem_of(error: Exception) -> tuple[Problem, Mapping[str, str]]:
    """The problem that an exception is for the caller, and headers that go with it."""
    if isinstance(error, BadInput):
        return _problem(400, error.reason, [Fault(error.pointer, error.reason)]), {}
    if isinstance(error, InvalidDocument):
        count = len(error.findings)
        detail = error.findings[0].message if count == 1 else f"{count} things do not hold"
        return _problem(400, detail, faults(error.findings)), {}
    if isinstance(error, Unauthorized):
        return _problem(401, str(error)), {"WWW-Authenticate": 'Bearer realm="rulemill"'}
    if isinstance(error, NotFound):
        return _problem(404, str(error)), {}
    if isinstance(error, NotFoundHere):
        return _problem(404, str(error), faults(error.findings)), {}
    if isinstance(error, Conflict):
        return _problem(409, error.reason), {}
    if isinstance(error, Unsupported):
        return _problem(501, error.reason), {}
    if isinstance(error, Timeout):
        return _problem(504, str(error)), {}
    if isinstance(error, Refused):
        return _problem(503, error.reason), {"Retry-After": str(error.retry_after_s)}
    if isinstance(error, StoreUnavailable):
        return _problem(503, error.reason), {"Retry-After": str(max(1, round(error.retry_after_s)))}
    if isinstance(error, RedisError | OSError):
        log.warning("answered 503: %s: %s", type(error).__name__, error)
        return _problem(503, "storage does not answer"), {"Retry-After": "1"}
    if isinstance(error, HTTPException):
        return _http(error)
    log.error("unexpected error", exc_info=error)
    return _problem(500, "an unexpected error; the server's log says more"), {}


def _http(error: HTTPException) -> tuple[Problem, Mapping[str, str]]:
    status = error.code or 500
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        return _problem(status, f"this path takes {allowed}"), {"Allow": allowed}
    details = {404: "there is no such path", 413: "the body is too large"}
    return _problem(status, details.get(status, error.description or "")), {}


def _problem(status: int, detail: str, errors: list[Fault] | None = None) -> Problem:
    return Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=errors or [])
