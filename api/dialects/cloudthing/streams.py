"""Commands as an answer that never ends (CT-40 to CT-44): each one a chunk, blank ones to keep the connection alive."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from api.dialects.cloudthing.payloads import as_listed
from api.dialects.cloudthing.service import DIALECT, CloudThing
from api.transports.http_chunks import Chunk, sayable
from api.transports.http_exchange import Header
from api.transports.http_feed import Feed
from engine.errors import BadInput
from engine.stores.registry import Device

EXTENDED: Final = frozenset({"ct_http", "ct_https"})
"""Listeners whose chunks carry the id of their command."""
LEAST_MS, MOST_MS = 1000, 300_000
BLANK: Final = b"\n"
"""The blank message; also what stands for an empty payload, since an empty chunk would end the body."""

_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,20}")
_NO_CACHE: Final[Header] = (b"cache-control", b"no-cache")


class Form(Protocol):
    """How a command is written; None when it cannot be."""

    def __call__(self, command_id: str, payload: bytes) -> bytes | None:
        """The chunk of a command."""


def keep_alive_ms(text: str) -> int:
    """The milliseconds of parameter `stream`, within their bounds (CT-S8); raises BadInput for what is no integer."""
    if not _WHOLE.fullmatch(text):
        raise BadInput(f"stream is a number of milliseconds, not {text[:40]!r}")
    return min(max(int(text), LEAST_MS), MOST_MS)


def extended(command_id: str, payload: bytes) -> bytes | None:
    """The payload, with the id as an extension of the chunk (CT-44)."""
    return Chunk(payload or BLANK, "id", command_id) if sayable(command_id) else None


def bare(command_id: str, payload: bytes) -> bytes | None:
    """The payload without its id."""
    return payload or BLANK


def line(command_id: str, payload: bytes) -> bytes | None:
    """A line of JSON with id and payload."""
    return msgspec.json.encode({"id": command_id, "payload": as_listed(payload)}) + b"\n"


def form_of(listener: str, format: str | None) -> tuple[Form, Header]:
    """How commands are written for a listener and parameter `format`, with the Content-Type; raises BadInput."""
    if format == "json":
        return line, (b"content-type", b"application/x-ndjson")
    if format is not None:
        raise BadInput(f"there is no format {format[:40]!r}; leave it out, or ask for json")
    return extended if listener in EXTENDED else bare, (b"content-type", b"application/octet-stream")


class CommandStream:
    """One open stream of a device: a receiver of its commands, and a login that ends when it holds no longer."""

    __slots__ = ("_device", "_ends", "_feed", "_form", "_print", "_service", "every_s", "scope", "spoke_s")

    def __init__(self, service: CloudThing, device: Device, print_: str, every_ms: int, form: Form) -> None:
        self.scope = device.id
        self.every_s = every_ms / 1000
        self.spoke_s = 0.0
        self._service, self._device, self._print, self._form = service, device, print_, form
        self._feed: Feed | None = None
        self._ends: tuple[Callable[[], None], ...] = ()

    def answer_with(self, content_type: Header) -> Feed:
        """The answer that this stream is."""
        return Feed(200, (content_type, _NO_CACHE), self._opened)

    def _opened(self, feed: Feed) -> Callable[[], None]:
        service = self._service
        self._feed = feed
        self.spoke_s = asyncio.get_running_loop().time()
        service.logins.add(self)
        service.intake.came(self._device, DIALECT, "http")
        self._ends = (service.deliveries.attach(self._device, self), service.keepalives.add(self))
        # The device may have been changed since it was looked up: nobody would have told this stream.
        service.logins.changed(self.scope)
        service.deliveries.wake(self.scope)
        return self._closed

    def _closed(self) -> None:
        self._feed = None
        self._service.logins.remove(self)
        self._service.intake.went(self._device, DIALECT, "http", "the stream ended")
        for end in self._ends:
            end()
        self._ends = ()

    async def verify(self) -> None:
        """End the stream unless the credentials still hold (CT-S8)."""
        device = await self._service.auth.find(self._print)
        if self._feed is not None and (device is None or device.id != self.scope or not device.enabled):
            self._feed.end()

    def command(self, command_id: str, payload: bytes) -> bool:
        """Send a command, unless its id cannot be written."""
        chunk = self._form(command_id, payload)
        if chunk is None or self._feed is None or not self._feed.push(chunk):
            return False
        self.spoke_s = asyncio.get_running_loop().time()
        return True

    def answer(self, event_id: str, payload: bytes) -> bool:
        """Answers to events come elsewhere."""
        return False

    def blank(self) -> None:
        """Send a blank message, unless more than that waits to be sent."""
        self.spoke_s = asyncio.get_running_loop().time()
        if self._feed is not None and not self._feed.busy:
            self._feed.push(BLANK)
