"""Prometheus metrics of the kernel. Added to per batch, never per message."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY: Final = CollectorRegistry(auto_describe=False)

_FAST: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

MESSAGES: Final = Counter("rulemill_messages", "Messages accepted", ["dialect", "transport"], registry=REGISTRY)
REFUSED: Final = Counter("rulemill_refused", "Messages refused", ["reason"], registry=REGISTRY)
SUBMIT_S: Final = Histogram("rulemill_submit_seconds", "Time of a flush", registry=REGISTRY, buckets=_FAST)
FLUSHED: Final = Histogram(
    "rulemill_flush_messages", "Messages in a flush", registry=REGISTRY, buckets=(1, 3, 10, 30, 100, 300, 1000, 3000)
)
BATCH: Final = Histogram(
    "rulemill_batch_messages", "Messages in a batch", registry=REGISTRY, buckets=(1, 3, 10, 30, 100, 300, 1000, 5000)
)
RUN_S: Final = Counter("rulemill_run_seconds", "Time spent in nodes", ["kind"], registry=REGISTRY)
RUN_MESSAGES: Final = Counter("rulemill_run_messages", "Messages given to nodes", ["kind"], registry=REGISTRY)
COMMIT_S: Final = Histogram("rulemill_commit_seconds", "Time of a commit", registry=REGISTRY, buckets=_FAST)
FENCED: Final = Counter("rulemill_fenced", "Commits refused because the partition has another owner", registry=REGISTRY)
DEAD: Final = Counter("rulemill_dead_letters", "Messages that ended in failure", ["kind"], registry=REGISTRY)
RETRIES: Final = Counter("rulemill_retries", "Messages that went into a lane", ["kind"], registry=REGISTRY)
RECOVERED: Final = Counter("rulemill_recoveries", "Partitions taken over from an owner that died", registry=REGISTRY)
LANES: Final = Gauge("rulemill_lanes_open", "Devices that wait for a retry", registry=REGISTRY)
PARKED: Final = Gauge("rulemill_parked", "Parked messages that this worker watches", ["kind"], registry=REGISTRY)
OWNED: Final = Gauge("rulemill_partitions_owned", "Partitions of this worker", registry=REGISTRY)
POINTS: Final = Counter("rulemill_points", "Points written to the store", ["store"], registry=REGISTRY)
STORE_S: Final = Histogram("rulemill_store_write_seconds", "Time of a store write", registry=REGISTRY, buckets=_FAST)
STORE_FAILED: Final = Counter("rulemill_store_failures", "Store writes that failed", ["store"], registry=REGISTRY)
STORE_CIRCUIT: Final = Gauge(
    "rulemill_store_circuit", "0 while the store takes points, 1 while it is probed, 2 while it is left alone",
    ["store"], registry=REGISTRY,
)  # fmt: skip
POINTS_REFUSED: Final = Counter(
    "rulemill_points_refused", "Points that the store will never take", ["store"], registry=REGISTRY
)
POINTS_BEHIND: Final = Gauge(
    "rulemill_partitions_behind", "Partitions whose points are read back from the spool", registry=REGISTRY
)
BACKLOG: Final = Gauge("rulemill_stream_entries", "Entries not done yet", ["partition"], registry=REGISTRY)
SPOOLED: Final = Gauge("rulemill_spool_bytes", "Bytes of points on their way to the store", registry=REGISTRY)
SPOOL_LIMIT: Final = Gauge(
    "rulemill_spool_limit_bytes", "Bytes in the spool at which messages are refused", registry=REGISTRY
)
DOOR: Final = Gauge("rulemill_door_open", "1 while messages are accepted", ["door"], registry=REGISTRY)
"""Labelled so that only processes that have a door show one."""
LOOP_LAG_S: Final = Gauge(
    "rulemill_loop_lag_seconds", "How late the event loop was at the last look", registry=REGISTRY
)
