"""SQLite gives the answers of the store in memory, whatever is written, deleted and read in whatever pages."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import PointsRefused
from engine.message import Point
from engine.stores.memory import MemoryTimeseries
from engine.stores.sqlite import SqliteTimeseries
from engine.stores.timeseries import Timeseries

devices = st.sampled_from(["d", "e"])
keys = st.sampled_from(["a", "b", "ä", "c"])
times = st.integers(-3, 6)
values = st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.floats(), max_size=2)
points = st.builds(Point, st.sampled_from(["t", "u"]), devices, keys, times, values)
writes = st.tuples(st.just("write"), st.lists(points, max_size=12))
deletes = st.tuples(st.just("delete"), devices)
ranges = st.tuples(
    st.just("range"), devices, st.none() | st.lists(keys), times, times, st.integers(1, 4), st.booleans()
)
latests = st.tuples(st.just("latest"), devices, st.none() | st.lists(keys))
steps = st.lists(writes | deletes | ranges | latests, max_size=15)


async def answer(store: Timeseries, step: tuple[Any, ...]) -> Any:
    match step:
        case ("write", batch):
            try:
                return await store.write(batch)
            except PointsRefused as error:
                return error.refused
        case ("delete", device):
            return await store.delete_device("t", device)
        case ("latest", device, wanted):
            return await store.latest("t", [device], wanted)
        case ("range", device, wanted, start, end, limit, newest_first):
            pages, cursor = [], ""
            while True:
                page = await store.range(
                    "t", [device], wanted, start, end, limit=limit, newest_first=newest_first, cursor=cursor
                )
                pages.append(page)
                cursor = page.cursor
                if not cursor:
                    return pages
    raise AssertionError(step)


async def compare(todo: list[tuple[Any, ...]], path: Path) -> None:
    real, model = SqliteTimeseries(path, synchronous="NORMAL"), MemoryTimeseries()
    await real.open()
    await model.open()
    try:
        for step in todo:
            # By repr: it tells 1 from 1.0 and from True.
            assert repr(await answer(real, step)) == repr(await answer(model, step))
    finally:
        await real.close()


@settings(max_examples=60, deadline=None)
@given(steps)
def test_the_stores_agree(todo: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(compare(todo, Path(directory) / "points.db"))
