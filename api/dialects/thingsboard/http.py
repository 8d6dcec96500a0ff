"""ThingsBoard's HTTP API: whose routes it has, and how it tells errors."""

from __future__ import annotations

from collections.abc import Sequence

from api.dialects.thingsboard.errors import error_response
from api.dialects.thingsboard.http_calls import CallRoutes
from api.dialects.thingsboard.http_claims import ClaimRoute
from api.dialects.thingsboard.http_data import DataRoutes
from api.dialects.thingsboard.http_ota import OtaRoutes
from api.dialects.thingsboard.http_provision import ProvisionRoute
from api.dialects.thingsboard.longpoll import Polls
from api.dialects.thingsboard.parts import Parts
from api.transports.http import Header, Request, Response, Route


class ThingsBoardHttp:
    """The surface; `more` are routes of others below /api. `stop` ends what it has under way."""

    name = "thingsboard"
    cors = True

    def __init__(self, parts: Parts, more: Sequence[Route] = ()) -> None:
        self._polls = Polls(parts.live, parts.auth, parts.commands, parts.attributes)
        groups = (
            DataRoutes(parts, self._polls), CallRoutes(parts, self._polls), ClaimRoute(parts), ProvisionRoute(parts),
            OtaRoutes(parts),
        )  # fmt: skip
        self.routes: Sequence[Route] = (*(route for group in groups for route in group.routes), *more)

    async def stop(self) -> None:
        """Give out nothing more."""
        await self._polls.stop()

    def owns(self, request: Request) -> bool:
        """Everything under /api/v1 (`G-4`)."""
        return request.segments[:2] == ("api", "v1")

    def error(self, request: Request, status: int, reason: str, headers: Sequence[Header] = ()) -> Response:
        """An error as the vendor tells it: `TB-S2`, `TB-S3`, `TB-S9`, `TB-S40`."""
        if status == 401:
            return Response(401, b"", headers)
        return error_response(status, reason, headers)
