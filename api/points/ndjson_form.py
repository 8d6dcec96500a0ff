"""Points as lines of JSON, one object each. Values are of their types: 42.0 a double, 42 a long, objects as objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from engine.message import Point
from engine.stores.values import json_text


class _Line(msgspec.Struct, omit_defaults=True, kw_only=True):
    tenant: str = ""
    device: str
    name: str = ""
    key: str
    ts_ms: int
    value: Any
    lat: float | None = None
    lon: float | None = None


_encode = msgspec.json.Encoder().encode_lines


def tenant_lines(points: Iterable[Point], names: Mapping[str, str]) -> bytes:
    """Points of one tenant, with the names of their devices by id."""
    return _encode(
        [
            _Line(
                device=point.device, name=names.get(point.device, ""), key=point.key, ts_ms=point.ts_ms,
                value=json_value(point.value), lat=point.lat, lon=point.lon,
            )
            for point in points
        ]
    )  # fmt: skip


def json_value(value: Any) -> Any:
    """A point's value for the encoder, which refuses the longest numbers inside objects and lists."""
    return msgspec.Raw(json_text(value).encode()) if type(value) in (dict, list) else value
