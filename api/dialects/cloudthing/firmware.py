"""Downloads of firmware images, whole or in ranges (CT-36, CT-S16)."""

from __future__ import annotations

import re
from typing import Final

from api.transports.http_exchange import Header, HttpError, Request, Response, Stream
from engine.errors import NotFound
from engine.stores.firmware import Firmware, Image

_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


async def image(firmware: Firmware, product: str, id: str, request: Request) -> Response | Stream:
    """The answer to a download by a device of `product`; 404 for what its product does not have."""
    try:
        found = await firmware.get(product, id) if product else None
    except NotFound:
        found = None
    if found is None or found.url:
        raise HttpError(404, "the device's product has no such firmware")
    tag = f'"{found.md5}"'.encode()
    headers: list[Header] = [
        (b"content-type", b"application/octet-stream"),
        (b"content-disposition", b"attachment"),
        (b"accept-ranges", b"bytes"),
        (b"etag", tag),
    ]
    if _has(request.header("if-none-match"), tag.decode()):
        return Response(304, b"", headers[-1:])
    asked = _asked(request, found, tag.decode())
    if asked is None:
        start, stop, status = 0, found.size, 200
    else:
        start, stop = asked
        status = 206
        headers.append((b"content-range", b"bytes %d-%d/%d" % (start, stop - 1, found.size)))
    headers.append((b"content-length", b"%d" % (stop - start)))
    return Stream(status, headers, firmware.read(product, found, start, stop))


def _asked(request: Request, image: Image, tag: str) -> tuple[int, int] | None:
    """First byte and the one behind the last that Range wants; None for all of it, and 416 when there are no such.

    What is no single range is not understood, and ignored (RFC 9110, 14.2); so is a range of another image (If-Range).
    """
    wanted = _RANGE.fullmatch((request.header("range") or "").strip())
    if wanted is None or wanted.group(0).endswith("=-"):
        return None
    if request.header("if-range") not in (None, tag):
        return None
    first, last = wanted.groups()
    if first and last and int(last) < int(first):
        return None
    if first:
        start, stop = int(first), min(int(last) + 1, image.size) if last else image.size
    else:
        start, stop = max(image.size - int(last), 0), image.size
    if start >= stop:
        raise HttpError(416, "there are no such bytes", ((b"content-range", b"bytes */%d" % image.size),))
    return start, stop


def _has(tags: str | None, tag: str) -> bool:
    """Whether an If-None-Match names the tag."""
    return tags is not None and any(each.strip().removeprefix("W/") in (tag, "*") for each in tags.split(","))
