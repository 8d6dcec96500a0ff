"""Points as SQLite rows and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite
from typing import Any

from engine.errors import BadInput
from engine.message import Point
from engine.stores.values import INT64_MAX, INT64_MIN, LETTERS, MAX_TS_MS, encodes, is_degrees, is_name, json_text

Row = tuple[str, Any, float | None, float | None]
"""Type letter, value, latitude, longitude."""


def row_of(point: Point) -> Row | None:
    """The row of a point, None if the store cannot hold it; `values.point_problem` then says why."""
    key, device, tenant, value = point.key, point.device, point.tenant, point.value
    kind = LETTERS.get(type(value))
    if kind == "d":
        if not isfinite(value):
            return None
    elif kind == "l":
        if not INT64_MIN <= value <= INT64_MAX:
            return None
    elif kind == "j":
        try:
            value = json_text(value)
        except BadInput:
            return None
    elif kind is None or (kind == "s" and not encodes(value)):
        return None
    if not (is_name(key) and is_name(device) and is_name(tenant)):
        return None
    if type(point.ts_ms) is not int or not -MAX_TS_MS <= point.ts_ms <= MAX_TS_MS:
        return None
    lat, lon = point.lat, point.lon
    if lat is None and lon is None:
        return kind, value, None, None
    if any(value is not None and not is_degrees(value) for value in (lat, lon)):
        return None
    return kind, value, _degrees(lat), _degrees(lon)


def point_of(tenant: str, device: str, key: str, row: Sequence[Any]) -> Point:
    """The point of a row (timestamp, type letter, value, latitude, longitude)."""
    ts_ms, kind, value, lat, lon = row
    return Point(tenant, device, key, ts_ms, value_of(kind, value), lat, lon)


def value_of(kind: str, value: Any) -> Any:
    """A value from its type letter and its column."""
    if kind == "b":
        return bool(value)
    return json.loads(value) if kind == "j" else value


def _degrees(value: float | None) -> float | None:
    """A latitude or longitude for a column; an integer may be more than SQLite has bits for."""
    return None if value is None else float(value)
