"""State as a batch sees it: what Redis holds, under what the batch itself has written so far."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from engine.errors import StateUnavailable
from engine.message import now_ms
from engine.node import Product

Field = tuple[str, str, str]
"""(originator, table, field)"""

Load = Callable[[str, Sequence[Field]], Awaitable[Sequence[bytes | None]]]
"""(tenant, fields) to values, in one round trip."""


class View:
    """The Context of one run for one tenant."""

    def __init__(
        self,
        tenant: str,
        load: Load,
        *,
        product: Callable[[str], Awaitable[Product | None]] | None = None,
        secret: Callable[[str], str | None] | None = None,
        progress: Callable[[], None] | None = None,
        now: int | None = None,
    ) -> None:
        self.tenant = tenant
        self.now_ms = now_ms() if now is None else now
        self._load = load
        self._product = product
        self._secret = secret
        self._progress = progress
        self._values: dict[Field, bytes | None] = {}

    async def load(self, wanted: Iterable[Field]) -> None:
        """Read what is not known yet in one round trip."""
        missing = [field for field in dict.fromkeys(wanted) if field not in self._values]
        if not missing:
            return
        try:
            values = await self._load(self.tenant, missing)
        except (RedisConnectionError, RedisTimeoutError) as error:
            raise StateUnavailable(str(error)) from error
        self._values.update(zip(missing, values, strict=True))

    def get(self, originator: str, table: str, field: str) -> bytes | None:
        """A loaded or written field."""
        return self._values[originator, table, field]

    def put(self, originator: str, table: str, field: str, value: bytes | None) -> None:
        """Remember a write of this batch, so that later nodes and rounds see it."""
        self._values[originator, table, field] = value

    async def product(self, product_id: str) -> Product | None:
        """A product of the tenant."""
        if self._product is None:
            return None
        try:
            return await self._product(product_id)
        except (RedisConnectionError, RedisTimeoutError) as error:
            raise StateUnavailable(str(error)) from error

    def secret(self, name: str) -> str | None:
        """A secret of the tenant."""
        return None if self._secret is None else self._secret(name)

    def progress(self) -> None:
        """Feed the watchdog."""
        if self._progress is not None:
            self._progress()
