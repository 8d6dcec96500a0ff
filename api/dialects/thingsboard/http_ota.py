"""Downloads of firmware and software over HTTP (`TB-61`, `TB-S35`, `TB-S36`, `TB-S38`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from api.dialects.thingsboard.ota import NotAssigned, OtherPackage, read, read_query, wanted
from api.dialects.thingsboard.parts import Parts
from api.dialects.thingsboard.requests import device_of
from api.transports.http import Header, Request, Response, Route, Stream
from engine.stores.firmware import PIECE_BYTES, Image, Kind

_NOT_ASSIGNED: Final = Response(404)
_OTHER: Final = Response(400)


class OtaRoutes:
    """The routes of `…/firmware` and `…/software`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.routes: Sequence[Route] = (
            Route("GET", "/api/v1/{token}/firmware", partial(self._get, "FIRMWARE")),
            Route("GET", "/api/v1/{token}/software", partial(self._get, "SOFTWARE")),
        )

    async def _get(self, kind: Kind, request: Request, params: dict[str, str]) -> Response | Stream:
        device = await device_of(self._parts, params)
        try:
            part = await wanted(self._parts, device, kind, read_query(request.query))
        except NotAssigned:
            return _NOT_ASSIGNED
        except OtherPackage:
            return _OTHER
        headers = _headers(part.image)
        length = part.stop - part.start
        if length <= PIECE_BYTES:
            return Response(200, await read(self._parts, device, part), headers)
        headers.append((b"content-length", b"%d" % length))
        return Stream(200, headers, self._parts.firmware.read(device.product, *part))


def _headers(image: Image) -> list[Header]:
    name = image.file_name.encode()
    return [
        (b"content-type", image.content_type.encode()),
        (b"content-disposition", b"attachment;filename=" + name),
        (b"x-filename", name),
    ]
