"""Writing values: what a body says, and the messages that it becomes."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from api.dialects.thethingsio.dates import ms_of
from api.dialects.thethingsio.settings import DIALECT, MAX_VALUES, SYNC_TIMEOUT_S
from api.intake import Failure, Intake
from api.transports.http_exchange import HttpError
from engine.errors import BadInput
from engine.message import Message
from engine.stores.apps.apps import resource_fault
from engine.stores.registry import Device
from engine.stores.values import MAX_TS_MS, problem

log = logging.getLogger("rulemill.thethingsio")

_PLACE: Final = {"lat": 90, "lon": 180}


class Value(NamedTuple):
    """One value of a body; `ts_ms` None: now."""

    key: str
    value: Any
    ts_ms: int | None
    place: dict[str, float] | None


class How(NamedTuple):
    """What a call wants done with its values."""

    store: bool = True
    broadcast: bool = True


def values_of(body: Any, key: str = "") -> list[Value]:
    """`{"values": [{"value": …}]}` (`TTI-S13`): of the resource `key`, or each of the key it names. BadInput."""
    listed = body.get("values") if isinstance(body, dict) else None
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_VALUES:
        raise BadInput(f"values must be a list of 1 to {MAX_VALUES} objects", "/values")
    return [_value(each, i, key) for i, each in enumerate(listed)]


def _value(given: Any, i: int, key: str) -> Value:
    if not isinstance(given, dict) or given.get("value") is None:
        raise BadInput("must be an object with a value", f"/values/{i}")
    named = given.get("key", key)
    if key and named != key:
        raise BadInput(f"the key must be {key!r}, as in the path", f"/values/{i}/key")
    magic = isinstance(named, str) and named.startswith("$")
    if not key and not magic and (fault := resource_fault(named)):
        raise BadInput(fault, f"/values/{i}/key")
    if reason := problem(given["value"]):
        raise BadInput(reason, f"/values/{i}/value")
    when = given.get("datetime")
    if when is not None and not isinstance(when, str):
        raise BadInput("must be a text", f"/values/{i}/datetime")
    ts_ms = ms_of(when, f"/values/{i}/datetime") if when is not None else None
    if ts_ms is not None and abs(ts_ms) > MAX_TS_MS:
        raise BadInput(f"no value can be kept so far from 1970: {str(when)[:40]!r}", f"/values/{i}/datetime")
    return Value(named, given["value"], ts_ms, _place(given.get("geo"), i))


def _place(geo: Any, i: int) -> dict[str, float] | None:
    """`{"lat", "long"}` or `[lon, lat]`."""
    if geo is None:
        return None
    if isinstance(geo, list) and len(geo) == 2:
        lon, lat = geo
    elif isinstance(geo, dict):
        lat, lon = geo.get("lat"), geo.get("long", geo.get("lon"))
    else:
        raise BadInput("must be {lat, long} or [lon, lat]", f"/values/{i}/geo")
    for name, degrees in (("lat", lat), ("lon", lon)):
        if type(degrees) not in (int, float) or not -_PLACE[name] <= degrees <= _PLACE[name]:
            raise BadInput(f"{name} is a number from -{_PLACE[name]} to {_PLACE[name]}", f"/values/{i}/geo")
    return {"lat": float(lat), "lon": float(lon)}


def messages_of(
    intake: Intake, device: Device, values: Sequence[Value], how: How, transport: str, about: Mapping[str, str]
) -> list[Message]:
    """One message for each value (`TTI-85`); nothing when it is neither to be stored nor told."""
    if not how.store and not how.broadcast:
        return []
    made = []
    for each in values:
        stamp = intake.stamp(device.id)
        metadata = {
            **about,
            "ts": str(stamp if each.ts_ms is None else each.ts_ms),
            "store": str(how.store).lower(),
            "broadcast": str(how.broadcast).lower(),
        }
        if each.place is not None:
            metadata["geo"] = json.dumps({each.key: each.place})
        made.append(
            intake.message(
                device,
                "POST_TELEMETRY_REQUEST",
                {each.key: each.value},
                dialect=DIALECT,
                transport=transport,
                ts_ms=stamp,
                metadata=metadata,
            )
        )  # fmt: skip
    return made


async def submit(intake: Intake, messages: Sequence[Message], sync: bool) -> None:
    """Store messages; with `sync` also wait for their end in the chain and in the store, and fail with it (`G-20`).

    Raises Refused, and with `sync` HttpError: 400 for a value that the store never takes, 500 when the chain failed,
    503 when the store has not taken them in time.
    """
    if not messages:
        return
    if not sync:
        await intake.store(messages)
    elif failure := await intake.settle(messages, SYNC_TIMEOUT_S):
        # What failed where is the tenant's business; its apps and things are not told how its chains are made.
        log.warning("values of device %s are not kept: %s", messages[0].originator, failure.reason)
        raise error_of(failure)


def error_of(failure: Failure) -> HttpError:
    """A failure as apps and things are told of it."""
    match failure.cause:
        case "store":
            return HttpError(400, failure.reason)
        case "time":
            return HttpError(503, "accepted, but not in the store yet")
        case _:
            return HttpError(500, "the values could not be processed")
