"""The contract of connectors: plug-ins that bring other people's traffic in as messages (CT-63).

A package offers a subclass of Connector as an entry point of the group `rulemill.connectors`. It is loaded only when
the setting `connectors` names it. Authors import from here and from nowhere else. `docs/connectors.md` shows how.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Final

import msgspec
import redis.asyncio as redis

from api.alone import Alone
from api.auth import DeviceAuth, token_print
from api.intake import Intake
from api.transports.http import FALLBACK_ROOTS, JSON, Route
from api.transports.http_exchange import Header, HttpError, Request, Response
from engine.config import unknown
from engine.errors import BadInput, Conflict, NotFound, Refused
from engine.message import Message
from engine.stores.registry import ACCESS_TOKEN, NAME, Device
from engine.stores.registry_store import Registry

__all__ = [
    "BadInput", "Connector", "Context", "Device", "HttpError", "Message", "Refused", "Request", "Response", "Route",
]  # fmt: skip

ENTRY_POINTS: Final = "rulemill.connectors"
"""Group in which packages offer connectors: name of the connector to its class."""

TELEMETRY: Final = "POST_TELEMETRY_REQUEST"

OWNED_ROOTS: Final = FALLBACK_ROOTS | {
    "api", "authentication", "chirpstack", "device", "devices", "post_v1", "post_v2", "sgfx", "sigfox", "socket.io",
    "ttn", "v1", "v2", "wss",
}  # fmt: skip
"""First path segments that dialects and the server own (G-4)."""


class Context:
    """What a connector may do. Everything raises redis errors when Redis is away; over HTTP those become 503."""

    def __init__(self, name: str, *, registry: Registry, auth: DeviceAuth, intake: Intake, client: redis.Redis) -> None:
        self.name = name
        self._registry, self._auth, self._intake, self._client = registry, auth, intake, client
        self._works: list[Alone] = []

    async def device(self, tenant: str, name: str) -> Device | None:
        """A tenant's device by its id, name or external id; None if there is none."""
        try:
            return await self._registry.device(tenant, name)
        except NotFound:
            return None

    async def device_of_external_id(self, external_id: str) -> Device | None:
        """The device of an external id, whichever tenant's; None if there is none."""
        return await self._registry.find_external(external_id)

    async def device_of_token(self, token: str) -> Device | None:
        """The device that has this access token; None for nobody's. Answered from memory when it can be."""
        return await self._auth.find(token_print(ACCESS_TOKEN, token))

    def stamp(self, device: Device) -> int:
        """The server's time in milliseconds; never the same twice for one device."""
        return self._intake.stamp(device.id)

    def message(
        self,
        device: Device,
        data: Any,
        *,
        type: str = TELEMETRY,
        ts_ms: int | None = None,
        metadata: Mapping[str, str] | None = None,
        transport: str = "http",
    ) -> Message:
        """A message of a device: telemetry, whose `data` maps keys to values, unless `type` says otherwise.

        `ts_ms` is when it was measured, by default now. Raises BadInput for a device that is disabled.
        """
        if not device.enabled:
            raise BadInput(f"device {device.name!r} is disabled")
        self._intake.heard(device)
        ts_ms = self.stamp(device) if ts_ms is None else ts_ms
        return self._intake.message(
            device, type, data, dialect=self.name, transport=transport, ts_ms=ts_ms, metadata=metadata
        )

    async def store(self, messages: Sequence[Message]) -> None:
        """Store messages; returns when they are durable, and only then may anything be acknowledged.

        Raises Refused when the server cannot take them now: then send again (over HTTP it becomes 503).
        """
        await self._intake.store(messages)

    def alone(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` from the start of the connector to its end, in one process of all at a time.

        It is cancelled when the server stops, begun again a second after it ended or failed, and goes on in another
        process when this one dies. For what there must be only one of: a poll, a subscription. Call it in `__init__`.
        """
        self._works.append(Alone(self._client, f"connector:{self.name}:{len(self._works)}", work))

    async def start(self) -> None:
        """Begin the works; the server calls it."""
        for work in self._works:
            await work.start()

    async def stop(self) -> None:
        """End the works; the server calls it."""
        for work in self._works:
            await work.stop()


class Connector:
    """What an entry point names: a subclass. There is one object of it in every API process."""

    root: ClassVar[str] = ""
    """First segment of its paths, for nobody else; empty: the name of the entry point."""
    routes: Sequence[Route] = ()
    """What runs at its paths, without the root: `Route("POST", "/{deviceId}/reading", self.reading)`.

    Handlers may raise BadInput (400), HttpError, Refused (503); all are answered as `{"message": reason}`.
    """

    def __init__(self, context: Context) -> None:
        self.context = context

    async def start(self) -> None:
        """Called once Redis and the way in are there, before the first request. An error keeps the server from
        starting."""

    async def stop(self) -> None:
        """Called when the server stops, while messages can still be stored. May be called without `start`."""


class ConnectorPaths:
    """The HTTP surface of one connector."""

    cors = False

    def __init__(self, name: str, connector: Connector) -> None:
        self.name = name
        self.root = connector.root or name
        self.connector = connector
        self.routes: Sequence[Route] = [
            Route(route.method, f"/{self.root}/{route.pattern.strip('/')}".rstrip("/"), route.handler)
            for route in connector.routes
        ]

    def owns(self, request: Request) -> bool:
        """Whether the first segment is the connector's."""
        return request.segments[:1] == (self.root,)

    def error(self, request: Request, status: int, reason: str, headers: Sequence[Header] = ()) -> Response:
        """`{"message": reason}`."""
        return Response(status, msgspec.json.encode({"message": reason}), (JSON, *headers))

    async def start(self) -> None:
        """Start the connector, then its works."""
        await self.connector.start()
        await self.connector.context.start()

    async def stop(self) -> None:
        """Stop the works, then the connector."""
        await self.connector.context.stop()
        await self.connector.stop()


def named(names: Sequence[str], points: Iterable[EntryPoint] | None = None) -> list[EntryPoint]:
    """The entry points of these connectors; nothing is imported.

    Raises BadInput for a name that no installed package offers, Conflict for one that two offer or that is named twice.
    """
    offered: dict[str, EntryPoint] = {}
    for point in entry_points(group=ENTRY_POINTS) if points is None else points:
        other = offered.get(point.name)
        if other is not None and other.value != point.value and point.name in names:
            raise Conflict(f"two packages offer connector {point.name!r}: {other.value}, {point.value}")
        offered[point.name] = point
    found = []
    for name in names:
        if name not in offered:
            raise BadInput(f"connector {name!r}: {unknown('connector among the installed packages', name, offered)}")
        if offered[name] in found:
            raise Conflict(f"connector {name!r} is named twice")
        found.append(offered[name])
    return found


def load(points: Sequence[EntryPoint], context: Callable[[str], Context]) -> list[ConnectorPaths]:
    """Import and make connectors; `context(name)` makes what each gets.

    Raises BadInput for what is no connector or cannot be imported, Conflict for a root that somebody else owns.
    """
    made: list[ConnectorPaths] = []
    for point in points:
        paths = ConnectorPaths(point.name, _made(point, context(point.name)))
        if not NAME.fullmatch(paths.root):
            raise BadInput(
                f"connector {point.name!r}: its root {paths.root!r} is no path segment of letters and digits"
            )
        if paths.root in OWNED_ROOTS:
            raise Conflict(f"connector {point.name!r}: paths under /{paths.root} belong to the server")
        for other in made:
            if other.root == paths.root:
                raise Conflict(f"connectors {other.name!r} and {point.name!r} both want the paths under /{paths.root}")
        made.append(paths)
    return made


def _made(point: EntryPoint, context: Context) -> Connector:
    try:
        kind = point.load()
    except Exception as error:
        raise BadInput(f"connector {point.name!r} ({point.value}) cannot be imported: {error!r}") from error
    if not (isinstance(kind, type) and issubclass(kind, Connector)):
        raise BadInput(f"connector {point.name!r}: {point.value} is no subclass of Connector")
    return kind(context)
