"""Points as lines of JSON, one object each. Values are of their types: 42.0 a double, 42 a long, objects as objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import msgspec

from api.points.reading import NO_TENANT, Read, bad, checked, json_of, physical_line, time_of
from engine.errors import BadInput
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


class Writer:
    """Writes points as lines."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, points: Sequence[Point]) -> list[tuple[int, str]]:
        """Write the points; every one can be written."""
        self._file.write(
            _encode(
                [
                    _Line(
                        tenant=point.tenant, device=point.device, key=point.key, ts_ms=point.ts_ms,
                        value=json_value(point.value), lat=point.lat, lon=point.lon,
                    )
                    for point in points
                ]
            )
        )  # fmt: skip
        return []

    def close(self) -> None:
        """Nothing is held back."""


def read(file: BinaryIO, tenant: str) -> Iterator[Read]:
    """Points of lines; `tenant` is for those that name none. `time` (ISO 8601 with an offset) may stand for `ts_ms`."""
    number = 0
    while True:
        number += 1
        try:
            line = physical_line(file)
            if not line:
                return
            if line.strip():
                yield checked(number, _point(json_of(line.decode(errors="surrogateescape")), tenant))
        except BadInput as error:
            yield bad(number, error.reason)


def _point(found: Any, tenant: str) -> Point:
    if not isinstance(found, dict):
        raise BadInput("is no object")
    missing = [name for name in ("device", "key", "value") if name not in found]
    missing += [] if "ts_ms" in found or "time" in found else ["ts_ms"]
    if missing:
        raise BadInput(f"has no {' and no '.join(missing)}")
    tenant = found.get("tenant") or tenant
    if not tenant:
        raise BadInput(NO_TENANT)
    ts_ms = found["ts_ms"] if "ts_ms" in found else time_of(str(found["time"]))
    return Point(tenant, found["device"], found["key"], ts_ms, found["value"], found.get("lat"), found.get("lon"))
