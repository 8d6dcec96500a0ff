"""How the server is: an overview for operators, health for whoever starts it, metrics for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from api.flow.operation import BASE, Answer, Call, Operation, Parts
from engine import metrics
from engine.leases import BEAT_LIFE_S, WORKERS_KEY
from engine.message import now_ms
from engine.metric_board import merge, read_board
from engine.partitions import all_keys
from engine.redis_scripts import OLDEST
from engine.retention import Sweep, last_sweep
from engine.store_state import StoreState, read_states
from engine.wire import call as call_script
from engine.wire import failed


class PartitionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One partition."""

    number: int
    owner: Annotated[str, Meta(description="The worker that owns it; empty: none does.")]
    entries: Annotated[int, Meta(description="Stream entries that are not done yet.")]
    oldest_ms: Annotated[int, Meta(description="Age of the oldest of them in milliseconds; 0: there is none.")]
    spool_bytes: Annotated[int, Meta(description="Points on their way to the store.")]
    spool_oldest_ms: Annotated[int, Meta(description="Age of the oldest of them in milliseconds; 0: there is none.")]
    parked: Annotated[int, Meta(description="Messages that wait for a time, a call or an answer.")]
    lanes: Annotated[int, Meta(description="Devices that wait for a retry.")]
    dead_letters: int
    dead_letter_bytes: int


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How one worker gets on with the telemetry store."""

    worker: str
    store: str
    circuit: Annotated[
        str,
        Meta(
            description="`closed`: it takes points. `open`: it failed, and is left alone for a while. "
            "`half-open`: it is tried with a few points."
        ),
    ]
    for_ms: Annotated[int, Meta(description="How long it is closed, or is not, in milliseconds.")]
    reason: Annotated[str, Meta(description="Why the last write failed; empty after one that did not.")]
    told: Annotated[list[str], Meta(description="What somebody who runs the store should know.")]


class RetentionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The last sweep over points that are older than they shall be, or the one that goes on."""

    began_ms: int
    ended_ms: Annotated[int, Meta(description="0 while it goes on, or waits for the store.")]
    looked_at: Annotated[int, Meta(description="Devices so far.")]
    devices: Annotated[int, Meta(description="Those of which points were deleted.")]
    problem: Annotated[str, Meta(description="Why points are kept longer than they shall be; empty: they are not.")]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The whole server."""

    workers: list[str]
    entries: int
    spool_bytes: int
    spool_limit_bytes: Annotated[int, Meta(description="Bytes in the spool at which messages are refused.")]
    stores: list[StoreStatus]
    retention: Annotated[RetentionStatus | None, Meta(description="null: there was no sweep yet, or nothing is to go.")]
    parked: int
    dead_letters: int
    partitions: list[PartitionStatus]


class Health(msgspec.Struct, frozen=True):
    """Whether all is well, and if not, what is not."""

    status: str
    failing: Annotated[dict[str, str], Meta(description="Check to reason.")] = {}


async def status(parts: Parts, call: Call) -> Answer:
    """Read it from Redis."""
    return Answer(200, await read_status(parts))


async def read_status(parts: Parts) -> Status:
    """Partitions as they are now."""
    keys = all_keys(parts.partitions)
    per = 7
    commands: list[tuple[Any, ...]] = []
    for k in keys:
        commands += [
            ("GET", k.lease), ("XLEN", k.inbox), call_script(OLDEST, (k.inbox, k.points)), ("GET", k.spooled),
            ("HLEN", k.parked), ("HLEN", k.lanes), ("HLEN", k.dead),
        ]  # fmt: skip
    commands += [("GET", k.dead_bytes) for k in keys]
    commands.append(("ZRANGEBYSCORE", WORKERS_KEY, time.time() - BEAT_LIFE_S, "+inf"))
    replies = await parts.wire.execute(commands)
    for reply in replies:
        if failed(reply):
            raise RedisConnectionError(str(reply))
    found = []
    for i in range(len(keys)):
        owner, entries, (first, first_spooled), spooled, parked, lanes, dead = replies[i * per : (i + 1) * per]
        found.append(
            PartitionStatus(
                number=i, owner=(owner or b"").decode().rpartition(":")[0], entries=entries,
                oldest_ms=_age_ms(first), spool_bytes=int(spooled or 0), spool_oldest_ms=_age_ms(first_spooled),
                parked=parked, lanes=lanes, dead_letters=dead,
                dead_letter_bytes=int(replies[len(keys) * per + i] or 0),
            )
        )  # fmt: skip
    workers = sorted(name.decode() for name in replies[-1])
    return Status(
        workers=workers, partitions=found, stores=[_store(state) for state in await read_states(parts.wire, workers)],
        entries=sum(one.entries for one in found), spool_bytes=sum(one.spool_bytes for one in found),
        spool_limit_bytes=parts.spool_limit_bytes, retention=_retention(await last_sweep(parts.wire)),
        parked=sum(one.parked for one in found), dead_letters=sum(one.dead_letters for one in found),
    )  # fmt: skip


def _age_ms(id: bytes) -> int:
    """Age of a stream's entry; 0 for none."""
    return max(0, now_ms() - int(id.split(b"-")[0])) if id else 0


def _store(state: StoreState) -> StoreStatus:
    return StoreStatus(
        worker=state.worker, store=state.store, circuit=state.circuit, for_ms=max(0, now_ms() - state.since_ms),
        reason=state.reason, told=state.told,
    )  # fmt: skip


def _retention(sweep: Sweep | None) -> RetentionStatus | None:
    return None if sweep is None else RetentionStatus(
        began_ms=sweep.began_ms, ended_ms=sweep.ended_ms, looked_at=sweep.looked_at, devices=sweep.devices,
        problem=sweep.problem,
    )  # fmt: skip


async def livez(parts: Parts, call: Call) -> Answer:
    """The event loop answers."""
    return Answer(200, Health("ok"))


async def readyz(parts: Parts, call: Call) -> Answer:
    """Redis answers, a worker lives, and whatever else the server was told to check."""
    failing: dict[str, str] = {}
    try:
        await parts.redis.ping()
        if not await parts.redis.zcount(WORKERS_KEY, time.time() - BEAT_LIFE_S, "+inf"):
            failing["workers"] = f"no worker has given a sign of life for {BEAT_LIFE_S:g} s"
    except (RedisError, OSError) as error:
        failing["redis"] = f"{type(error).__name__}: {error}"
    for name, check in parts.checks.items():
        reason = check()
        if reason:
            failing[name] = reason
    return Answer(503 if failing else 200, Health("failing" if failing else "ok", failing))


async def scrape(parts: Parts, call: Call) -> Answer:
    """What every process has last measured, and what waits in each partition as it is now."""
    pages = await read_board(parts.wire)
    # Without a board, as in a process that runs alone: its own page.
    page = merge(pages) if pages else generate_latest(metrics.REGISTRY)
    return Answer(200, page + _waiting(await read_status(parts)), {"Content-Type": CONTENT_TYPE_LATEST})


_GAUGES: Final[tuple[tuple[str, str, Callable[[PartitionStatus], float]], ...]] = (
    ("rulemill_partition_entries", "Stream entries that are not done yet", lambda one: one.entries),
    ("rulemill_partition_oldest_seconds", "Age of the oldest of them", lambda one: one.oldest_ms / 1000),
    ("rulemill_partition_spool_bytes", "Points on their way to the store", lambda one: one.spool_bytes),
    (
        "rulemill_partition_spool_oldest_seconds",
        "Age of the oldest point on its way to the store",
        lambda one: one.spool_oldest_ms / 1000,
    ),
    ("rulemill_partition_parked", "Messages that wait for a time, a call or an answer", lambda one: one.parked),
    ("rulemill_partition_dead_letters", "Messages that ended in failure", lambda one: one.dead_letters),
)


def _waiting(now: Status) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    for name, help, value in _GAUGES:
        gauge = Gauge(name, help, ["partition"], registry=registry)
        for one in now.partitions:
            gauge.labels(str(one.number)).set(value(one))
    return generate_latest(registry)


OPERATIONS: Final = (
    Operation(
        method="GET", path=BASE + "/status", id="status", summary="Show partitions, workers and what waits",
        handler=status, answers={200: Status},
    ),
    Operation(
        method="GET", path="/livez", id="livez", summary="Whether the process answers", handler=livez,
        answers={200: Health}, public=True,
    ),
    Operation(
        method="GET", path="/readyz", id="readyz", summary="Whether the server can do its work", handler=readyz,
        answers={200: Health, 503: Health}, public=True,
    ),
    Operation(
        method="GET", path="/healthz", id="healthz", summary="The same as /readyz", handler=readyz,
        answers={200: Health, 503: Health}, public=True,
    ),
    Operation(
        method="GET", path="/metrics", id="metrics", summary="Metrics for Prometheus", handler=scrape,
        answers={200: str}, media="text/plain",
    ),
)  # fmt: skip
