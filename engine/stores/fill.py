"""Windows in which a series has no point, filled in: after the store, so that every store fills alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from math import isfinite
from typing import Any, Final, Literal

from engine.errors import BadInput
from engine.stores.aggregates import too_many_buckets
from engine.stores.timeseries import MOST_BUCKETS, Bucket

FILLS: Final = ("none", "null", "previous", "linear")
"""How windows can be filled, besides with a number."""

Fill = Literal["none", "null", "previous", "linear"] | int | float


def fill_of(text: str) -> Fill:
    """A fill from its text: one of `FILLS` or a number; BadInput for anything else."""
    match text:
        case "none" | "null" | "previous" | "linear":
            return text
    for kind in (int, float):
        try:
            number = kind(text) if text.isascii() and "_" not in text and len(text) <= 40 else float("nan")
        except ValueError:
            continue
        if isfinite(number):
            return number
    raise BadInput(f"not a fill: {text[:40]!r}; there are {', '.join(FILLS)} and numbers")


def fill(buckets: Sequence[Bucket], edges: Sequence[int], how: Fill) -> list[Bucket]:
    """The buckets of an aggregate with those between that it has not, for each series that has one.

    `edges` are `windows.edges` of the same window and range. A window without a point has a count of 0, whatever it is
    filled with. The others are None (`null`, and wherever there is nothing to go by), what the window before had
    (`previous`), a double on the straight line between the windows on both sides (`linear`), or the number. Windows
    that have points stay as they are. BadInput if more than `MOST_BUCKETS` come of it.
    """
    if how == "none":
        return list(buckets)
    filled: list[Bucket] = []
    for (device, key), found in groupby(buckets, lambda bucket: (bucket.device, bucket.key)):
        if len(filled) + len(edges) - 1 > MOST_BUCKETS:
            raise too_many_buckets()
        filled += _filled(device, key, {bucket.start_ms: bucket for bucket in found}, edges, how)
    return filled


def _filled(device: str, key: str, found: dict[int, Bucket], edges: Sequence[int], how: Fill) -> Iterator[Bucket]:
    functions = list(next(iter(found.values())).values)
    behind = iter([*found.values(), None])
    before, after = None, next(behind)
    for start_ms, end_ms in pairwise(edges):
        if start_ms in found:
            before, after = found[start_ms], next(behind)
            yield before
            continue
        values = {function: _value(function, start_ms, before, after, how) for function in functions}
        yield Bucket(device, key, start_ms, end_ms, values)


def _value(function: str, at_ms: int, before: Bucket | None, after: Bucket | None, how: Fill) -> Any:
    if function == "count":
        return 0
    if isinstance(how, int | float):
        return how
    if how == "null" or before is None:
        return None
    one = before.values[function]
    if how == "previous":
        return one
    if after is None:
        return None
    other = after.values[function]
    if type(one) not in (int, float) or type(other) not in (int, float):
        return None
    part = (at_ms - before.start_ms) / (after.start_ms - before.start_ms)
    # Both ends weighed: their difference may be more than a double can hold.
    return one * (1 - part) + other * part
