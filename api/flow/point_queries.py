"""What calls about points have in common: which devices, which keys, which time, and how much at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from api.flow.devices import find
from api.flow.operation import Call, Parts
from api.flow.problems import NotFoundHere
from api.points.ndjson_form import json_value
from engine.errors import BadInput, Finding
from engine.message import Point
from engine.stores.registry import Device

DEVICES_MOST: Final = 100
KEYS_MOST: Final = 200
POINTS_MOST: Final = 10_000
"""Points, or series, of one answer that is no stream."""

Devices = Annotated[
    list[Annotated[str, Meta(max_length=255)]],
    Meta(min_length=1, max_length=DEVICES_MOST, description="Id, name or external id of a device. May be repeated."),
]
Keys = Annotated[
    list[Annotated[str, Meta(max_length=1000)]],
    Meta(max_length=KEYS_MOST, description="Only these keys; none: all there are. May be repeated."),
]


class Asked(msgspec.Struct, frozen=True):
    """Whose points a call is about; `keys` None: all."""

    tenant: str
    names: dict[str, str]
    """Device ids, in the order asked for, to names."""
    keys: list[str] | None

    @property
    def ids(self) -> list[str]:
        """The devices' ids."""
        return list(self.names)


async def asked(parts: Parts, call: Call) -> Asked:
    """The devices of the path or of the query, and the keys; every device that does not exist is told."""
    devices = [await find(parts, call)] if "device" in call.path else await named(parts, call.tenant, call.query.device)
    keys = list(dict.fromkeys(call.query.key)) or None
    return Asked(call.tenant, {device.id: device.name for device in devices}, keys)


async def named(parts: Parts, tenant: str, names: Sequence[str]) -> list[Device]:
    """The devices of these ids, names or external ids; every one that does not exist is told."""
    found = await parts.registry.find_devices(tenant, names)
    missing = [name for name in dict.fromkeys(names) if name not in found]
    if missing:
        raise NotFoundHere([Finding("?device", f"no device {name!r}") for name in missing])
    return [found[name] for name in names]


async def check_size(parts: Parts, of: Asked, each: int, what: str, most: int = POINTS_MOST) -> None:
    """BadInput when the series asked for give more than `most` things, `each` of them a series."""
    if of.keys is not None:
        series = len(of.names) * len(of.keys)
    elif len(of.names) == each == 1:
        return
    else:
        series = 0
        for device in of.names:
            series += len(await parts.store.keys(of.tenant, device))
    if series * each > most:
        raise BadInput(f"{series} series with {each} {what} each: one call gives {most} {what} at most, in all")


class PointShown(msgspec.Struct, frozen=True, kw_only=True):
    """A point; integers and decimals are told apart as they were sent."""

    device: Annotated[str, Meta(description="Id of the device.")]
    key: str
    ts_ms: int
    value: Any
    lat: float | None = None
    lon: float | None = None


def shown(point: Point) -> PointShown:
    """A point as the API gives it."""
    return PointShown(
        device=point.device, key=point.key, ts_ms=point.ts_ms, value=json_value(point.value),
        lat=point.lat, lon=point.lon,
    )  # fmt: skip
