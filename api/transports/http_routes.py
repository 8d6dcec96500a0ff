"""Which handler runs at a path: routes, and the tree they are found in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from api.transports.http_exchange import Request, Response, Stream
from api.transports.http_feed import Feed

Handler = Callable[[Request, dict[str, str]], Awaitable[Response | Stream | Feed]]


@dataclass(frozen=True, slots=True)
class Route:
    """What runs at a path. `pattern` is like `/api/v1/{token}/telemetry`: a part in braces takes any one segment.

    A last part `{name*}` takes one segment or more; the handler looks at them in `request.segments`.
    """

    method: str
    pattern: str
    handler: Handler


class Place:
    """A node of a tree of paths."""

    __slots__ = ("any", "literal", "rest", "routes")

    def __init__(self) -> None:
        self.literal: dict[str, Place] = {}
        self.any: Place | None = None
        self.rest: Place | None = None
        self.routes: dict[str, tuple[Route, tuple[tuple[int, str], ...]]] = {}
        """By method: the route, and which segment each of its names stands for."""

    def add(self, route: Route) -> None:
        """Put a route into the tree below; ValueError where another takes the same requests."""
        place = self
        names = []
        for i, part in enumerate(route.pattern.strip("/").split("/")):
            if part.endswith("*}"):
                place.rest = place.rest or Place()
                place = place.rest
            elif part.startswith("{"):
                names.append((i, part[1:-1]))
                place.any = place.any or Place()
                place = place.any
            else:
                place = place.literal.setdefault(part, Place())
        if route.method in place.routes:
            raise ValueError(f"two routes for {route.method} {route.pattern}")
        place.routes[route.method] = (route, tuple(names))

    def find(self, segments: Sequence[str], at: int = 0) -> Place | None:
        """The place of a path; a spelled-out part wins over one in braces."""
        if at == len(segments):
            return self if self.routes else None
        if not segments[at]:
            return None
        literal = self.literal.get(segments[at])
        found = literal.find(segments, at + 1) if literal is not None else None
        if found is None and self.any is not None:
            found = self.any.find(segments, at + 1)
        if found is None and all(segments[at:]):
            found = self.rest
        return found


def tree_of(routes: Iterable[Route]) -> Place:
    """The routes as a tree, see `Place.add`."""
    root = Place()
    for route in routes:
        root.add(route)
    return root
