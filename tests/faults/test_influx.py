"""A real worker before a store that fails in every way: nothing lost, nothing overtaken, nobody held up."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from engine import breaker, feed, metrics
from engine.errors import StoreUnavailable
from engine.message import Message
from engine.outcomes import Outcomes
from engine.partitions import all_keys
from engine.stores.influx import InfluxTimeseries
from engine.worker import Worker
from tests.engine.bench import PARTITIONS, Bench
from tests.engine.toy import Do, Plans, Save, message, plan, until
from tests.faults.farm import Farm
from tests.faults.influx_server import Answer, InfluxServer, Line, away, hangs, influx_server, lost_reply, partial

pytestmark = pytest.mark.asyncio

Behave = Callable[[Sequence[Line]], Answer]
DEVICES = ("a", "b", "c", "d")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(breaker, "LONGEST_WAIT_S", 0.05)
    monkeypatch.setattr(StoreUnavailable.__init__, "__defaults__", (0.0,))


@pytest_asyncio.fixture
async def server(bench: Bench) -> AsyncIterator[InfluxServer]:
    async with influx_server() as made:
        bench.store = InfluxTimeseries(made.url)
        yield made
        for worker in bench.workers:
            await worker.stop()
        bench.workers.clear()


def save() -> Plans:
    return Plans(plan(("save", Save(), {})))


def numbered(device: str, n: int) -> Message:
    return message(device, {"n": n}, ts_ms=1_700_000_000_000 + n)


async def send(bench: Bench, numbers: range, pause_s: float = 0.0) -> None:
    for n in numbers:
        await bench.ingress.submit([numbered(device, n) for device in DEVICES])
        if pause_s:
            await asyncio.sleep(pause_s)


async def has_all(bench: Bench, server: InfluxServer, count: int) -> None:
    """Every point is in the store, each series in its order; the spool is empty, and nothing was in vain."""
    await until(lambda: all(len(server.values(device)) == count for device in DEVICES), 20)
    for device in DEVICES:
        assert server.values(device) == list(range(count))
    await until(bench.spools_empty)
    assert server.most_in_flight == 1
    assert await bench.dead.list("acme") == []


def shown(metric: str) -> float:
    return metrics.REGISTRY.get_sample_value(metric, {"store": "influxdb"}) or 0.0


def circuit(worker: Worker) -> str:
    return worker._writer.feed.breaker.state


async def test_points_arrive(bench: Bench, server: InfluxServer) -> None:
    await bench.work(save())
    await send(bench, range(50))
    await has_all(bench, server, 50)
    assert server.paths >= {"/ping", "/write"}


async def test_by_the_newer_way_too(bench: Bench) -> None:
    async with influx_server("1.8.10") as server:
        bench.store = InfluxTimeseries(server.url)
        worker = await bench.work(save())
        await send(bench, range(20))
        await has_all(bench, server, 20)
        assert "/api/v2/write" in server.paths
        server.behave = lambda lines: away()
        await send(bench, range(20, 40))
        await until(lambda: circuit(worker) == "open")
        server.behave = lambda lines: Answer()
        await has_all(bench, server, 40)
        await worker.stop()
        bench.workers.clear()


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_obeyed(bench: Bench, server: InfluxServer, status: int) -> None:
    at: list[float] = []

    def busy(lines: Sequence[Line]) -> Answer:
        at.append(time.monotonic())
        return away(status, "0.3") if len(at) <= 2 else Answer()

    server.behave = busy
    await bench.work(save())
    await send(bench, range(20))
    await has_all(bench, server, 20)
    assert all(later - earlier >= 0.3 for earlier, later in itertools.pairwise(at[:3])), "not left alone"


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(lambda lines: away(500), id="500"),
        pytest.param(lambda lines: away(404, body='{"error":"database not found: \\"rulemill\\""}'), id="no database"),
        pytest.param(lambda lines: away(400, body="<html>a proxy</html>"), id="a proxy's 400"),
        pytest.param(lambda lines: away(401, body='{"error":"authorization failed"}'), id="401"),
        pytest.param(lambda lines: away(301), id="redirected"),
        pytest.param(lambda lines: away(200, body="{}"), id="200 is no 204"),
        pytest.param(lambda lines: lost_reply(), id="lost reply"),
        pytest.param(lambda lines: Answer(raw=b"\0\xffgarbage\r\n\r\n", keeps=lambda line: False), id="garbage"),
        pytest.param(lambda lines: Answer(raw=b"HTTP/1.1 204 No", keeps=lambda line: True), id="half an answer"),
        pytest.param(lambda lines: hangs(), id="hangs"),
        pytest.param(lambda lines: hangs(keeps=True), id="hangs, and stores"),
    ],
)
async def test_whatever_it_answers_the_points_wait_and_the_chains_go_on(
    bench: Bench, server: InfluxServer, trouble: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "WRITE_WITHIN_S", 0.15)
    seen: list[int] = []

    def note(i: int, m: Message, out: Outcomes, ctx: Any) -> None:
        seen.append(m.data["n"])
        out.discard(i)

    server.behave = trouble
    failures = shown("rulemill_store_failures_total")
    worker = await bench.work(plan(("save", Save(), {"Success": ["note"]}), ("note", Do(note), {})))
    await send(bench, range(30))
    await until(bench.drained)
    assert len(seen) == 30 * len(DEVICES), "chains wait for no store"
    await until(lambda: circuit(worker) == "open" and shown("rulemill_store_circuit") == 2)
    assert shown("rulemill_store_failures_total") > failures
    assert not await bench.spools_empty()
    server.behave = lambda lines: Answer()
    await has_all(bench, server, 30)
    assert circuit(worker) == "closed"
    assert shown("rulemill_store_circuit") == 0


async def test_a_server_that_is_gone_and_back_costs_two_lines_in_the_log(
    bench: Bench, server: InfluxServer, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await bench.work(save())
    await send(bench, range(10))
    await has_all(bench, server, 10)
    with caplog.at_level(logging.INFO):
        await server.stop()
        await send(bench, range(10, 30), 0.01)
        await until(lambda: circuit(worker) == "open")
        failed = worker._writer.feed.breaker._failures
        await until(lambda: worker._writer.feed.breaker._failures > failed + 5)
        await server.start()
        await send(bench, range(30, 40))
        await has_all(bench, server, 40)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("rulemill")]
    assert len(lines) == 2, lines
    assert "points wait in the spool, tried again in" in lines[0]
    assert lines[1].startswith("store influxdb answers again after")


async def test_a_server_that_comes_after_the_worker(bench: Bench, server: InfluxServer) -> None:
    await server.stop()
    worker = await bench.work(save())
    await send(bench, range(20))
    await until(bench.drained)
    assert not await bench.spools_empty()
    await server.start()
    await has_all(bench, server, 20)
    assert circuit(worker) == "closed"


async def test_points_that_it_refuses_are_dead_letters_with_its_reason(bench: Bench, server: InfluxServer) -> None:
    def bad(line: Line) -> bool:
        return line.fields.startswith(("l=7i", "l=23i"))

    reason = "points beyond retention policy"
    server.behave = lambda lines: partial(lines, bad, reason)
    worker = await bench.work(save())
    await bench.ingress.submit([numbered(device, n) for n in range(40) for device in DEVICES])
    good = [n for n in range(40) if n not in (7, 23)]
    await until(lambda: all(server.values(device) == good for device in DEVICES))
    await until(bench.spools_empty)
    letters = await until(lambda: bench.letters(2 * len(DEVICES)))
    assert {(letter.message.originator, letter.message.data["n"]) for letter in letters} == {
        (device, n) for device in DEVICES for n in (7, 23)
    }
    assert all(reason in letter.reason for letter in letters)
    assert circuit(worker) == "closed"
    assert len(server.writes) < 150


async def test_bodies_that_are_too_large_are_halved(bench: Bench, server: InfluxServer) -> None:
    server.behave = lambda lines: away(413, body="too large") if len(lines) > 7 else Answer()
    await bench.work(save())
    await bench.ingress.submit([numbered(device, n) for n in range(50) for device in DEVICES])
    await has_all(bench, server, 50)


async def test_a_point_that_breaks_the_server_every_time_does_not_stop_the_others(
    bench: Bench, server: InfluxServer
) -> None:
    def panics(lines: Sequence[Line]) -> Answer:
        if any(line.device == "b" and line.fields.startswith("l=3i") for line in lines):
            return Answer(raw=b"", keeps=lambda line: False)
        return Answer()

    server.behave = panics
    await bench.work(save())
    await send(bench, range(10))
    [letter] = await until(lambda: bench.letters(1), 20)
    assert (letter.message.originator, letter.message.data) == ("b", {"n": 3})
    assert "the store fails on it and takes others" in letter.reason
    await until(bench.spools_empty)
    for device in DEVICES:
        assert server.values(device) == [n for n in range(10) if (device, n) != ("b", 3)]


@pytest.mark.parametrize("seed", range(3))
async def test_trouble_of_all_kinds_at_random(
    bench: Bench, server: InfluxServer, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "WRITE_WITHIN_S", 0.1)
    dice = random.Random(seed)
    kinds: list[Callable[[], Answer]] = [
        lambda: away(503), lambda: away(429), lost_reply, hangs, lambda: hangs(keeps=True),
        lambda: Answer(raw=b"nonsense"), lambda: Answer(wait_s=0.03), Answer, Answer, Answer, Answer,
    ]  # fmt: skip
    server.behave = lambda lines: dice.choice(kinds)()
    first = await bench.work(save())
    sending = asyncio.create_task(send(bench, range(150), 0.005))
    await asyncio.sleep(0.2)
    await server.stop()
    await asyncio.sleep(0.1)
    await server.start()
    await bench.crash(first)
    await bench.work(save(), name="w2")
    await sending
    await asyncio.sleep(0.2)
    server.behave = lambda lines: Answer()
    await has_all(bench, server, 150)


async def test_the_spool_keeps_count_of_its_bytes(bench: Bench, server: InfluxServer) -> None:
    """The door stands or falls with it."""
    server.behave = lambda lines: away()
    await bench.work(save())
    await send(bench, range(30))
    await until(bench.drained)
    for keys in all_keys(PARTITIONS):
        blobs = [fields[b"b"] for _, fields in await bench.client.xrange(keys.points)]
        assert int(await bench.client.get(keys.spooled) or 0) == sum(map(len, blobs))
    server.behave = lambda lines: Answer()
    await has_all(bench, server, 30)


@pytest.mark.slow
async def test_a_worker_killed_before_the_trim_writes_the_same_points_again(
    bench: Bench, server: InfluxServer, redis_url: str, tmp_path: Path
) -> None:
    farm = Farm(redis_url, tmp_path / "log", server.url)
    try:
        await farm.start(failpoints=("before-trim=kill@3", "before-trim=kill@1", "before-trim=kill@5"))
        count, deadline = 0, time.monotonic() + 30
        while len(farm.deaths) < 3:
            assert time.monotonic() < deadline
            await send(bench, range(count, count + 1))
            await asyncio.sleep(0.02)
            count += 1
        await has_all(bench, server, count)
    finally:
        await farm.stop()
    assert len(server.points) == count * len(DEVICES)
    assert len(server.log) > len(server.points), "nothing was written twice"
