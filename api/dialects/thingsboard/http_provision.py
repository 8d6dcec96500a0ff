"""Provisioning over HTTP: the one path of the device API without a token."""

from __future__ import annotations

from collections.abc import Sequence

from api.dialects.thingsboard.parts import Parts
from api.dialects.thingsboard.provision_request import read_request
from api.dialects.thingsboard.provisioning import provision
from api.dialects.thingsboard.requests import TRANSPORT, as_json, decoded
from api.transports.http import Request, Response, Route


class ProvisionRoute:
    """Always 200 with a status member for a request that can be read (`TB-S30`)."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.routes: Sequence[Route] = (Route("POST", "/api/v1/provision", self._post),)

    async def _post(self, request: Request, params: dict[str, str]) -> Response:
        return as_json(await provision(self._parts, await decoded(request, read_request), TRANSPORT))
