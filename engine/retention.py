"""How long points are kept: a daily sweep over the devices whose product, or the setting, says for how many days.

A sweep remembers how far it has come, so that one which is interrupted goes on instead of beginning again. What counts
as old is fixed when it begins. It takes at most half of the time, so that writers get in between.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError

from engine.entries import encode
from engine.errors import Finding, StoreUnavailable, Unsupported
from engine.message import now_ms
from engine.node import Product
from engine.stores.registry import Device
from engine.stores.registry_store import Registry
from engine.stores.timeseries import Timeseries
from engine.stores.values import MAX_TS_MS
from engine.wire import Wire, failed

log = logging.getLogger("rulemill.retention")

FACET: Final = "retention_days"
MOST_DAYS: Final = 36_500
DAY_MS: Final = 86_400_000
EVERY_MS: Final = DAY_MS
"""From the beginning of one sweep to that of the next, unless what is to be kept has changed."""
AT_ONCE: Final = 20
"""Devices in one deletion."""
PAGE: Final = 1000
TELL_EVERY: Final = 1000
"""Devices between two lines of the log."""
STATE_KEY: Final = "rm:{reg}:retention"


class Sweep(msgspec.Struct):
    """How a sweep goes, or went."""

    rules: dict[str, dict[str, int]]
    """Tenant to product to days; the product "" is every other device. 0: for ever."""
    began_ms: int
    ended_ms: int = 0
    """0 while it goes on."""
    devices: int = 0
    """Devices of which something was deleted."""
    looked_at: int = 0
    tenant: str = ""
    after: str = ""
    """Tenant, and the name of its device, that were dealt with last."""
    problem: str = ""
    """Why it could not go on; empty when it could."""


_decode = msgspec.msgpack.Decoder(Sweep).decode


def check_days(facet: Any) -> list[Finding]:
    """Everything wrong with a product's `retention_days`, relative to its facets."""
    if type(facet) is int and 0 <= facet <= MOST_DAYS:
        return []
    return [Finding(f"/{FACET}", f"must be a whole number of days from 0 (for ever) to {MOST_DAYS}")]


async def last_sweep(wire: Wire) -> Sweep | None:
    """The sweep that goes on, or went last; None if there was none yet."""
    [blob] = await wire.execute([("GET", STATE_KEY)])
    if failed(blob):
        raise RedisConnectionError(str(blob))
    return None if blob is None else _decode(blob)


class Retention:
    """Deletes what is older than it shall be. `default_days` is for devices whose product says nothing; 0: for ever."""

    def __init__(self, wire: Wire, registry: Registry, store: Timeseries, default_days: int) -> None:
        self._wire, self._registry, self._store = wire, registry, store
        self._default_days = default_days

    async def sweep(self, going_on: Callable[[], Awaitable[None]]) -> Sweep | None:
        """Begin a sweep if it is time, or go on with one, and return how it ended; None if there is nothing to do.

        `going_on` is awaited between deletions. A store that is away leaves the sweep where it is, for the next call.
        """
        now = await self._due()
        if now is None:
            return None
        started, again = time.monotonic(), now.looked_at > 0
        log.info("retention: %s deleting what is older than it shall be", "going on with" if again else "begin of")
        try:
            for tenant in sorted(now.rules):
                if tenant >= now.tenant:
                    await self._tenant(now, tenant, going_on)
            now.problem = ""
        except Unsupported as error:
            log.warning("retention: points are kept longer than they shall be: %s", error.reason)
            now.problem = error.reason
        except StoreUnavailable as error:
            log.warning("retention: interrupted after %d devices: %s", now.looked_at, error.reason)
            now.problem = error.reason
            await self._save(now)
            return now
        now.ended_ms = now_ms()
        await self._save(now)
        log.info(
            "retention: done: deleted points of %d devices, looked at %d, in %.1f s",
            now.devices, now.looked_at, time.monotonic() - started,
        )  # fmt: skip
        return now

    async def _due(self) -> Sweep | None:
        """The sweep to work on: one that was interrupted, or a new one; None when it is not time for one."""
        rules = await self._rules()
        last = await last_sweep(self._wire)
        same = last is not None and last.rules == rules
        if last is not None and same and not last.ended_ms:
            return last
        if not rules:
            if last is not None:
                await self._wire.execute([("DEL", STATE_KEY)])
            return None
        if last is not None and same and now_ms() < last.began_ms + EVERY_MS:
            return None
        return Sweep(rules, began_ms=now_ms())

    async def _rules(self) -> dict[str, dict[str, int]]:
        """What is to be kept for how long, of tenants of which anything is ever to go."""
        rules = {}
        for tenant in await self._registry.tenants():
            products = await self._registry.products(tenant.name)
            days = {one.id: self._days(one) for one in products}
            days[""] = self._default_days
            if any(days.values()):
                rules[tenant.name] = days
        return rules

    def _days(self, product: Product) -> int:
        given = product.facets.get(FACET)
        if given is None:
            return self._default_days
        if check_days(given):
            log.warning(
                "retention: product %s: retention_days %r is no number of days: nothing goes", product.id, given
            )
            return 0
        return int(given)

    async def _tenant(self, now: Sweep, tenant: str, going_on: Callable[[], Awaitable[None]]) -> None:
        if tenant != now.tenant:
            now.tenant, now.after = tenant, ""
        while page := await self._registry.devices(tenant, limit=PAGE, after=now.after):
            for i in range(0, len(page), AT_ONCE):
                part = page[i : i + AT_ONCE]
                began = time.monotonic()
                now.devices += await self._delete(now, tenant, part)
                now.looked_at, before = now.looked_at + len(part), now.looked_at
                now.after = part[-1].name
                await self._save(now)
                await going_on()
                if now.looked_at // TELL_EVERY > before // TELL_EVERY:
                    log.info("retention: %d devices looked at, tenant %s", now.looked_at, tenant)
                await asyncio.sleep(min(1.0, time.monotonic() - began))

    async def _delete(self, now: Sweep, tenant: str, devices: Sequence[Device]) -> int:
        """Delete what is too old of these devices; of how many something was."""
        rules = now.rules[tenant]
        by_days: dict[int, list[str]] = defaultdict(list)
        for device in devices:
            days = rules.get(device.product, rules[""])
            if days:
                by_days[days].append(device.id)
        count = 0
        for days, ids in by_days.items():
            before_ms = now.began_ms - days * DAY_MS
            old = [id for id in ids if await self._has(tenant, id, before_ms)]
            if old:
                await self._store.delete(tenant, old, None, -MAX_TS_MS, before_ms)
                count += len(old)
        return count

    async def _has(self, tenant: str, device: str, before_ms: int) -> bool:
        """Whether a device has older points: looking costs far less than deleting nothing."""
        return bool((await self._store.range(tenant, [device], None, -MAX_TS_MS, before_ms, limit=1)).points)

    async def _save(self, now: Sweep) -> None:
        [reply] = await self._wire.execute([("SET", STATE_KEY, encode(now))])
        if failed(reply):
            raise RedisConnectionError(str(reply))
