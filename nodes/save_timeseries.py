"""Kind `save_timeseries`: the values of a message become points."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite
from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta

from engine.stores.values import INT64_MAX, INT64_MIN, problem
from nodes import FAILURE, SUCCESS, BadInput, Context, Example, Message, Node, NodeSpec, Outcomes, Point, Relation
from nodes.event_time import event_time_ms

TYPE: Final = "POST_TELEMETRY_REQUEST"
MAX_KEY: Final = 255

Place = tuple[float | None, float | None]
_NOWHERE: Final[Place] = (None, None)


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """How points are made of a message."""

    use_server_ts: Annotated[
        bool, Meta(description="Take the time the message was received, whatever its metadata `ts` says.")
    ] = False


class SaveTimeseries(Node):
    """Saves each key of the data as one point of the originator."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="save_timeseries",
        category="action",
        summary="Stores every key of the message's data as a time-series point of its originator.",
        description=(
            "Takes messages of type POST_TELEMETRY_REQUEST whose data is an object. Values may be booleans, integers "
            "of 64 bits, finite numbers, texts, objects and arrays; null is skipped. The time is the metadata `ts` "
            "(milliseconds), else the message's own. Metadata `geo`, a JSON object, gives a key its position: "
            '`{"temp": {"lat": 52.2, "lon": 26.3}}`. With metadata `store` = `false` nothing is stored. `Success` '
            "means that the points are durable; they reach the telemetry store at once, or when it is back. A message "
            "with one value that cannot be stored fails as a whole."
        ),
        config=Config,
        relations=(
            Relation(SUCCESS, "All points of the message are stored, or it asked for none to be."),
            Relation(FAILURE, "The message is no telemetry, or a key, a value or the time cannot be stored."),
        ),
        examples=(
            Example("Store what the device sent", {}),
            Example("Do not trust the clocks of the devices", {"use_server_ts": True}),
        ),
    )
    config: Config

    async def process(self, batch: Sequence[Message], out: Outcomes, ctx: Context) -> None:
        """Make the points of each message."""
        own_time = self.config.use_server_ts
        points = out.points
        passed: list[tuple[int, Message]] = []
        for i, message in enumerate(batch):
            metadata = message.metadata
            if message.type != TYPE:
                out.fail(i, f"only {TYPE} can be stored, this is {message.type}")
                continue
            if metadata.get("store") != "false":
                try:
                    ts_ms = message.ts_ms if own_time or "ts" not in metadata else event_time_ms(message)
                    points += [(i, point) for point in _points(message, ts_ms)]
                except BadInput as error:
                    out.fail(i, error.reason)
                    continue
            passed.append((i, message))
        if passed:
            out.emit_all(SUCCESS, passed)


def _points(message: Message, ts_ms: int) -> list[Point]:
    data = message.data
    if type(data) is not dict:
        raise BadInput(f"telemetry is an object of keys and values, this is {_shown(data)}")
    tenant, device = message.tenant, message.originator
    places = _places(message.metadata["geo"]) if "geo" in message.metadata else None
    made = []
    for key, value in data.items():
        if value is None:
            continue
        kind = type(value)
        # The common types first: this runs for every value of every device.
        if kind is float:
            if not isfinite(value):
                raise BadInput(f"key {key!r}: {value} is not a finite number")
        elif kind is int:
            if not INT64_MIN <= value <= INT64_MAX:
                raise BadInput(f"key {key!r}: integer does not fit into 64 bits")
        elif kind is not bool:
            reason = problem(value)
            if reason is not None:
                raise BadInput(f"key {key!r}: {reason}")
        if type(key) is not str or not 0 < len(key) <= MAX_KEY:
            raise BadInput(f"a key has 1 to {MAX_KEY} characters: {str(key)[:40]!r}")
        if places is None:
            made.append(Point(tenant, device, key, ts_ms, value))
        else:
            made.append(Point(tenant, device, key, ts_ms, value, *places.get(key, _NOWHERE)))
    return made


def _places(text: str) -> dict[str, Place]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"metadata geo is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadInput("metadata geo is not an object of keys")
    return {key: _place(key, place) for key, place in found.items()}


def _place(key: str, place: Any) -> Place:
    if not isinstance(place, dict):
        raise BadInput(f"metadata geo: the position of {key!r} is not an object with lat and lon")
    return _degrees(key, place, "lat", 90), _degrees(key, place, "lon", 180)


def _degrees(key: str, place: dict[str, Any], name: str, limit: int) -> float:
    value: Any = place.get(name)
    if type(value) not in (int, float) or not -limit <= value <= limit:
        raise BadInput(f"metadata geo: {name} of {key!r} is not a number from -{limit} to {limit}")
    return float(value)


def _shown(data: Any) -> str:
    return "null" if data is None else type(data).__name__
