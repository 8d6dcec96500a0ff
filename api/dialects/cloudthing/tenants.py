"""Which tenants there are, kept in memory: host labels and MQTT usernames may name one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from engine.errors import NotFound
from engine.stores.registry import NAME, Tenant

MAX_NAMES: Final = 10_000
"""How many names are kept, those of nobody among them; the one unused for longest goes first."""


class Tenants:
    """Answers whether a tenant of a name exists; `read(name)` gives it or raises NotFound.

    Whoever hears of changes calls `forget`, and `clear` when changes may have been missed.
    """

    def __init__(self, read: Callable[[str], Awaitable[Tenant]]) -> None:
        self._read = read
        self._kept: dict[str, bool] = {}
        self._changes = 0

    async def exists(self, name: str) -> bool:
        """Whether it names a tenant."""
        if not NAME.fullmatch(name):
            return False
        found = self._kept.pop(name, None)
        if found is None:
            changes = self._changes
            try:
                await self._read(name)
                found = True
            except NotFound:
                found = False
            if changes != self._changes:
                return found
        self._kept[name] = found
        if len(self._kept) > MAX_NAMES:
            del self._kept[next(iter(self._kept))]
        return found

    async def named_by_host(self, host: str | None, *, besides: str) -> bool:
        """Whether the first label of a host names a tenant other than `besides` (`G-8`)."""
        if not host:
            return False
        name = host.partition(":")[0]
        label = name.partition(".")[0]
        if label.lower() == besides.lower() or name.replace(".", "").isdigit():
            return False  # the tenant's own, or an address
        return await self.exists(label)

    def forget(self, name: str) -> None:
        """The tenant was made or changed."""
        self._changes += 1
        self._kept.pop(name, None)

    def clear(self) -> None:
        """Anything may have changed."""
        self._changes += 1
        self._kept.clear()
