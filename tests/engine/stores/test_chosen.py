"""Which store the settings choose, and a store that is away when a process starts."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config import Settings
from engine.errors import StoreUnavailable, Unfit
from engine.stores.chosen import Opening, chosen_store, where_of
from engine.stores.influx import InfluxTimeseries
from engine.stores.memory import MemoryTimeseries
from engine.stores.sqlite import SqliteTimeseries


def test_sqlite_unless_influxdb_is_set(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path))
    assert isinstance(chosen_store(settings), SqliteTimeseries)
    assert where_of(settings) == f"sqlite {tmp_path / 'telemetry.db'}"
    settings = Settings(
        data=str(tmp_path), influx_url="http://u:secret@influx:8086/", influx_bucket="b", influx_token="T"
    )
    assert isinstance(chosen_store(settings), InfluxTimeseries)
    assert where_of(settings) == "influxdb http://influx:8086 b"


def test_a_process_with_sqlite_loads_nothing_of_influxdb() -> None:
    code = (
        "import sys; from engine.config import Settings; from engine.stores.chosen import chosen_store; "
        "chosen_store(Settings()); print([name for name in sys.modules if 'influx' in name or 'aiohttp' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['engine.stores.influx_access']"


class Late(MemoryTimeseries):
    """Away until the n-th attempt."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self._errors = list(errors)

    async def open(self) -> None:
        if self._errors:
            raise self._errors.pop(0)
        await super().open()


@pytest.mark.asyncio
async def test_a_store_that_is_away_is_opened_when_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.stores.chosen.TRY_AGAIN_S", 0.001)
    store = Late(StoreUnavailable("gone"), StoreUnavailable("gone"), Unfit("no rights"), Unfit("no rights"))
    opening = Opening(store)
    await opening.start()
    with pytest.raises(StoreUnavailable):
        await store.latest("t", ["d"])
    async with asyncio.timeout(5):
        while True:
            try:
                assert await store.latest("t", ["d"]) == []
                break
            except StoreUnavailable:
                await asyncio.sleep(0.001)
    await opening.stop()
    with pytest.raises(StoreUnavailable):
        await store.latest("t", ["d"])


@pytest.mark.asyncio
async def test_a_store_that_never_can_serve_stops_the_start() -> None:
    opening = Opening(Late(Unfit("no rights")))
    with pytest.raises(Unfit, match="no rights"):
        await opening.start()
    await opening.stop()


@pytest.mark.asyncio
async def test_stopping_while_the_store_is_away() -> None:
    opening = Opening(Late(*[StoreUnavailable("gone")] * 3))
    await opening.start()
    await opening.stop()
