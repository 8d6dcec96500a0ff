"""Requests for chunks of firmware and software over MQTT (`TB-X1`)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from api.dialects.thingsboard.topics import Down, Handler, Verdict
from api.transports.mqtt.dialect import Accepted
from engine.stores.firmware import KINDS, PREFIXES, Kind

if TYPE_CHECKING:
    from api.dialects.thingsboard.session import DeviceLogin

MAX_DIGITS: Final = 9

_BAD_REQUEST: Final = b"BAD_REQUEST: the payload is the size of a chunk in bytes, or empty"


def chunk(session: DeviceLogin, body: bytes, numbers: tuple[int, ...], *, kind: Kind) -> Verdict:
    """`v2/fw/request/{request}/chunk/{chunk}` with the chunk's size as text; without one, the whole package.

    What is wrong is told on `v2/fw/error`.
    """
    request, number = numbers
    text = body.strip()
    if text and not (text.isdigit() and len(text) <= MAX_DIGITS):
        session.answer(f"v2/{PREFIXES[kind]}/error", _BAD_REQUEST)
        return Accepted()
    size = int(text or b"0")
    return session.work(partial(session.shared.downloads.answer, session, kind, request, number, size))


PUBLISH: Final[dict[str, Handler]] = {
    f"v2/{PREFIXES[kind]}/request/+/chunk/+": partial(chunk, kind=kind) for kind in KINDS
}

SUBSCRIBE: Final = {
    topic: Down.ANSWERS
    for prefix in PREFIXES.values()
    for topic in (f"v2/{prefix}/response/+/chunk/+", f"v2/{prefix}/response/+", f"v2/{prefix}/error")
}
