from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from engine.errors import BadInput
from engine.stores import fill as module
from engine.stores.fill import fill, fill_of
from engine.stores.timeseries import Bucket

EDGES = [0, 10, 20, 30, 40, 60]


def bucket(start_ms: int, mean: Any, key: str = "k", end_ms: int = 0) -> Bucket:
    return Bucket("d", key, start_ms, end_ms or start_ms + 10, {"mean": mean, "count": 2})


def filled(how: Any, *buckets: Bucket) -> list[Any]:
    return [each.values["mean"] for each in fill(buckets, EDGES, how)]


def test_nothing_is_filled() -> None:
    some = [bucket(10, 1.0), bucket(40, 4.0, end_ms=60)]
    assert fill(some, EDGES, "none") == some


def test_each_window_once_and_what_was_there_as_it_was() -> None:
    some = [bucket(10, 1.0), bucket(40, 4.0, end_ms=60)]
    for how in ("null", "previous", "linear", 7):
        found = fill(some, EDGES, how)  # type: ignore[arg-type]
        assert [(each.start_ms, each.end_ms) for each in found] == list(pairwise(EDGES))
        assert [each for each in found if each.values["count"]] == some
        assert all(list(each.values) == ["mean", "count"] for each in found)


def test_what_gaps_are_filled_with() -> None:
    some = bucket(10, 1), bucket(40, 4, end_ms=60)
    assert filled("null", *some) == [None, 1, None, None, 4]
    assert filled("previous", *some) == [None, 1, 1, 1, 4]
    assert filled("linear", *some) == [None, 1, 2.0, 3.0, 4]
    assert filled(0.5, *some) == [0.5, 1, 0.5, 0.5, 4]


def test_a_line_needs_two_numbers() -> None:
    assert filled("linear", bucket(0, 1.0)) == [1.0, None, None, None, None]
    assert filled("linear", bucket(0, "on"), bucket(20, "off")) == ["on", None, "off", None, None]
    assert filled("linear", bucket(0, True), bucket(20, 3)) == [True, None, 3, None, None]
    assert filled("linear", bucket(0, None), bucket(20, 3.0)) == [None, None, 3.0, None, None]
    assert filled("linear", bucket(0, -1.7e308), bucket(20, 1.7e308)) == [-1.7e308, 0.0, 1.7e308, None, None]
    assert filled("previous", bucket(0, "on"), bucket(20, None)) == ["on", "on", None, None, None]


def test_series_do_not_fill_each_other() -> None:
    found = fill([bucket(0, 1.0, "a"), bucket(20, 2.0, "b")], EDGES, "previous")
    assert [(each.key, each.values["mean"]) for each in found] == [
        *(("a", 1.0) for _ in range(5)), ("b", None), ("b", None), ("b", 2.0), ("b", 2.0), ("b", 2.0)
    ]  # fmt: skip
    assert fill([], EDGES, "null") == []


def test_filling_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BUCKETS", 12)
    assert len(fill([bucket(0, 1, key) for key in "ab"], EDGES, "null")) == 10
    with pytest.raises(BadInput, match="windows in all"):
        fill([bucket(0, 1, key) for key in "abc"], EDGES, "null")


def test_a_fill_from_text() -> None:
    given = ["none", "null", "previous", "linear", "0", "-1", "1.5", "1e3"]
    assert repr([fill_of(text) for text in given]) == "['none', 'null', 'previous', 'linear', 0, -1, 1.5, 1000.0]"


@pytest.mark.parametrize("text", ["", "zero", "nan", "inf", "1_0", "0x1", "٣", "1" * 50, "None", "1e999"])
def test_no_fill(text: str) -> None:
    with pytest.raises(BadInput, match="not a fill"):
        fill_of(text)
