"""The HTTP surface of the dialect: whose a path is, and what errors look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from api.dialects.thethingsio.accounts import AccountRoutes
from api.dialects.thethingsio.alerts import AlertRoutes
from api.dialects.thethingsio.bodies import answer, error_body
from api.dialects.thethingsio.callers import Callers
from api.dialects.thethingsio.linking import LinkRoutes
from api.dialects.thethingsio.magic import Magic
from api.dialects.thethingsio.objects import ObjectRoutes
from api.dialects.thethingsio.parts import Parts
from api.dialects.thethingsio.sigfox import SigfoxRoutes
from api.dialects.thethingsio.streams import Streams
from api.dialects.thethingsio.subscriptions import Subscriptions
from api.dialects.thethingsio.thing_api import ThingApi
from api.dialects.thethingsio.thing_calls import ThingCalls
from api.dialects.thethingsio.things import ThingRoutes
from api.dialects.thethingsio.users import UserRoutes
from api.dialects.thethingsio.values import ValueRoutes
from api.transports.http import Header, HttpError, Request, Response, Route

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class ThethingsIoHttp:
    """The surface (`G-4`): `/v2` and `/sgfx`. `stop` ends what it has under way."""

    name = "thethingsio"
    cors = True

    def __init__(self, parts: Parts, subscriptions: Subscriptions) -> None:
        self._callers = callers = Callers(parts)
        self._streams = Streams(parts, callers, subscriptions)
        users = UserRoutes(parts, callers)
        self.routes: Sequence[Route] = (
            *users.routes,
            *AccountRoutes(parts, callers, users).routes,
            *LinkRoutes(parts, callers).routes,
            *ThingRoutes(parts, callers).routes,
            *ValueRoutes(parts, callers, Magic(parts, callers), self._streams).routes,
            *AlertRoutes(parts, callers).routes,
            *ObjectRoutes(parts, callers, self._streams).routes,
            *ThingApi(parts, ThingCalls(parts), self._streams).routes,
            *SigfoxRoutes(parts).routes,
            *(Route(method, pattern, self._nowhere) for method in METHODS for pattern in ("/v2", "/v2/{path*}")),
        )

    async def stop(self) -> None:
        """Say nothing more on open streams; the front ends them."""
        await self._streams.stop()

    def owns(self, request: Request) -> bool:
        """Everything under /v2 and /sgfx."""
        return request.segments[:1] in (("v2",), ("sgfx",))

    def error(self, request: Request, status: int, reason: str, headers: Sequence[Header] = ()) -> Response:
        """`{"status": "error", "code": …, "message": …}` (`TTI-S2`)."""
        told = answer(error_body(status, reason), status)
        told.headers = (*told.headers, *headers)
        return told

    async def _nowhere(self, request: Request, names: dict[str, str]) -> Response:
        """What nobody knows: 404 for those with a session, 401 for all others (`TTI-3`, `G-5`)."""
        await self._callers.of(request)
        raise HttpError(404, "Not Found")
