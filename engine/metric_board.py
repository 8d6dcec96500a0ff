"""All processes' metrics on one page: each pins its own to Redis every few seconds, /metrics reads the board."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from engine import metrics
from engine.service import Loop
from engine.wire import Wire, failed

EVERY_S: Final = 5.0
KEEP_S: Final = 20
BOARD: Final = "rm:{reg}:metrics:"
PROCESSES: Final = "rm:{reg}:metrics"


class MetricPin:
    """Pins one process's metrics to the board."""

    def __init__(self, wire: Wire, process: str) -> None:
        self._wire, self._process = wire, process
        self._loop = Loop("metrics", EVERY_S, self.pin)

    async def start(self) -> None:
        """Begin."""
        await self._loop.start()

    async def stop(self) -> None:
        """End; what is pinned fades."""
        await self._loop.stop()

    async def pin(self) -> None:
        """Write what this process measures now."""
        text = generate_latest(metrics.REGISTRY)
        await self._wire.execute(
            [("SET", BOARD + self._process, text, "EX", KEEP_S), ("SADD", PROCESSES, self._process)]
        )


async def read_board(wire: Wire) -> dict[str, str]:
    """What every live process has pinned, by process name."""
    names = sorted(name.decode() for name in (await wire.execute([("SMEMBERS", PROCESSES)]))[0])
    if not names:
        return {}
    texts = (await wire.execute([("MGET", *[BOARD + name for name in names])]))[0]
    gone = [name for name, text in zip(names, texts, strict=True) if text is None]
    if gone:
        await wire.execute([("SREM", PROCESSES, *gone)])
    return {n: t.decode() for n, t in zip(names, texts, strict=True) if t is not None and not failed(t)}


def merge(pages: Mapping[str, str]) -> bytes:
    """One Prometheus page of many: every sample with the label `process`."""
    families: dict[str, Metric] = {}
    for process, page in pages.items():
        for family in text_string_to_metric_families(page):
            whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                labels = {**sample.labels, "process": process}
                whole.add_sample(sample.name, labels, sample.value)
    return generate_latest(_Given(list(families.values())))


class _Given:
    """A registry of samples that are there already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families
