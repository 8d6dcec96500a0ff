"""CloudThing's records: documents of any format, and what transform functions return, to typed points in time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final, NamedTuple

import msgspec

from engine.errors import BadInput
from engine.stores.values import MAX_TS_MS
from nodes.codecs.values import INT64_MAX, INT64_MIN, MAX_KEY_CHARS, check_key, check_value, pointer_step

DIFFERENCE_BELOW: Final = 10**8
"""A time number nearer to zero is a difference in seconds to the previous record (CT-S2)."""

MILLISECONDS_FROM: Final = 10**11
"""A time number from here on is Unix milliseconds, below it Unix seconds (CT-S2)."""

_FLOAT_MAX: Final = 1.7976931348623157e308
_ABSENT: Final[Any] = object()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_RFC_3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_ENVELOPE: Final = frozenset({"msg", "metadata", "msgType"})


class Record(msgspec.Struct, frozen=True, gc=False):
    """One point: `value` is a bool, int64, finite float, text, or an array or object kept as JSON."""

    key: str
    value: Any
    ts_ms: int
    geo: dict[str, float] | None = None
    """`{"lat": …, "lon": …}` in decimal degrees."""


class Instant(NamedTuple):
    """All points of one time: values by key, and `{"lat": …, "lon": …}` by key where a record told its place."""

    ts_ms: int
    values: dict[str, Any]
    geo: dict[str, dict[str, float]]


def records(document: Any, received_ms: int) -> list[Record]:
    """The records of a decoded document in their order (CT-8 to CT-13, CT-S1 to CT-S3); at least one.

    The document is an object with `records` (`r`) and maybe `index` (`i`); a record has `key` (`k`: text, or a position
    in the index), `value` (`v`), maybe `time` (`t`) and `geo` (`g`) with `lat` (`lt`) and `lon` (`ln`). Long and short
    names may be mixed; of two the long one counts. A null time or geo is none. Unknown members are ignored.

    Raises BadInput if any record is invalid, or if there is none: nothing of such a document may be stored (CT-S10).
    """
    if type(document) is not dict:
        raise BadInput("expected an object with records")
    name, entries = _member(document, "records", "r")
    if entries is _ABSENT:
        raise BadInput("no records")
    if type(entries) is not list:
        raise BadInput("records must be an array", f"/{name}")
    if not entries:
        raise BadInput("records are empty", f"/{name}")
    index_name, index = _member(document, "index", "i")
    return _entries(entries, f"/{name}", _index(index, f"/{index_name}"), received_ms)


def by_timestamp(entries: list[Record]) -> list[Instant]:
    """The records grouped by their time, in the order in which the times first come (CT-70).

    Of two records of one key and time the last stands, with its place or without one (CT-S10).
    """
    found: dict[int, Instant] = {}
    for record in entries:
        instant = found.get(record.ts_ms)
        if instant is None:
            instant = found[record.ts_ms] = Instant(record.ts_ms, {}, {})
        instant.values[record.key] = record.value
        if record.geo is not None:
            instant.geo[record.key] = record.geo
        elif instant.geo:
            instant.geo.pop(record.key, None)
    return list(found.values())


def transform_result(result: Any, received_ms: int) -> list[Record]:
    """The records that a transform function returned (CT-S19); empty if it returned nothing, null or an empty list.

    `result` is, bare or as `msg` of `{"msg": …, "metadata": …, "msgType": …}` (or of each of a list of such): a list of
    records, an object with `records` (`r`) as an array, or a plain object with one value per key at the receive time.
    Raises BadInput for anything else; `pointer` goes into the result.
    """
    if type(result) is list and result and all(_is_envelope(entry) for entry in result):
        return [
            record
            for number, entry in enumerate(result)
            for record in _transformed(entry["msg"], f"/{number}/msg", received_ms)
        ]
    if _is_envelope(result):
        return _transformed(result["msg"], "/msg", received_ms)
    return _transformed(result, "", received_ms)


def unwrapped(result: Any) -> Any:
    """What a script returned as its message: `msg` of the form with metadata and type, else the result itself."""
    return result["msg"] if _is_envelope(result) else result


def resolve_time(time: Any, previous_ms: int, pointer: str = "") -> int:
    """The instant in Unix milliseconds that a record's `time` names (CT-10, CT-S2); raises BadInput.

    Text is RFC 3339 with any offset (digits below the millisecond are dropped). A number n with |n| < 10^8 is a
    difference in seconds to `previous_ms`; below 10^11 it is Unix seconds, from there on Unix milliseconds. Fractions
    are rounded to the millisecond.
    """
    if type(time) is str:
        ts_ms = _rfc_3339(time, pointer)
    elif type(time) in (int, float) and -_FLOAT_MAX <= time <= _FLOAT_MAX:
        if -DIFFERENCE_BELOW < time < DIFFERENCE_BELOW:
            ts_ms = previous_ms + round(time * 1000)
        elif time < 0:
            raise BadInput("time is neither a difference nor a Unix time", pointer)
        else:
            ts_ms = round(time if time >= MILLISECONDS_FROM else time * 1000)
    else:
        raise BadInput("time must be an RFC 3339 text or a number", pointer)
    if not -MAX_TS_MS <= ts_ms <= MAX_TS_MS:
        raise BadInput("time is out of range", pointer)
    return ts_ms


def _entries(entries: list[Any], pointer: str, index: list[str] | None, received_ms: int) -> list[Record]:
    found = []
    previous_ms = received_ms
    for number, entry in enumerate(entries):
        if type(entry) is not dict:
            raise BadInput("a record must be an object", f"{pointer}/{number}")
        name, key = _member(entry, "key", "k")
        if type(key) is not str or not 0 < len(key) <= MAX_KEY_CHARS or not key.isprintable():
            key = _key(key, index, f"{pointer}/{number}/{name}")
        name, value = _member(entry, "value", "v")
        kind = type(value)
        if not (
            (kind is float and -_FLOAT_MAX <= value <= _FLOAT_MAX)
            or (kind is int and INT64_MIN <= value <= INT64_MAX)
            or kind is bool
        ):
            _check_record_value(value, f"{pointer}/{number}/{name}")
        name, time = _member(entry, "time", "t")
        if time is _ABSENT or time is None:
            previous_ms = received_ms
        else:
            previous_ms = resolve_time(time, previous_ms, f"{pointer}/{number}/{name}")
        name, geo = _member(entry, "geo", "g")
        place = None if geo is _ABSENT or geo is None else _geo(geo, f"{pointer}/{number}/{name}")
        found.append(Record(key, value, previous_ms, place))
    return found


def _transformed(result: Any, pointer: str, received_ms: int) -> list[Record]:
    if result is None:
        return []
    if type(result) is list:
        return _entries(result, pointer, None, received_ms)
    if type(result) is not dict:
        raise BadInput("a transform function returns records, an object, or nothing", pointer)
    name, entries = _member(result, "records", "r")
    # A scripting language may not tell an empty list from an empty object.
    if type(entries) is list or entries == {}:
        index_name, index = _member(result, "index", "i")
        return _entries(entries or [], f"{pointer}/{name}", _index(index, f"{pointer}/{index_name}"), received_ms)
    for key, value in result.items():
        place = pointer + pointer_step(key)
        check_key(key, place)
        _check_record_value(value, place)
    return [Record(key, value, received_ms) for key, value in result.items()]


def _is_envelope(result: Any) -> bool:
    return type(result) is dict and "msg" in result and _ENVELOPE.issuperset(result)


def _member(owner: dict[str, Any], long: str, short: str) -> tuple[str, Any]:
    """The member by its long name, else by its short one; the name tells which, for the pointer of an error."""
    value = owner.get(long, _ABSENT)
    if value is not _ABSENT:
        return long, value
    value = owner.get(short, _ABSENT)
    return (long if value is _ABSENT else short), value


def _key(key: Any, index: list[str] | None, pointer: str) -> str:
    if key is _ABSENT:
        raise BadInput("record without a key", pointer)
    if type(key) is float and key.is_integer():  # some languages have no other numbers
        key = int(key)
    if type(key) is int:
        if index is None:
            raise BadInput("key is a number, and there is no index", pointer)
        if not 0 <= key < len(index):
            raise BadInput(f"the index has no position {key}", pointer)
        return index[key]
    check_key(key, pointer)
    return str(key)


def _index(index: Any, pointer: str) -> list[str] | None:
    if index is _ABSENT or index is None:
        return None
    if type(index) is not list:
        raise BadInput("index must be an array of keys", pointer)
    for position, key in enumerate(index):
        check_key(key, f"{pointer}/{position}")
    return index


def _check_record_value(value: Any, pointer: str) -> None:
    if value is _ABSENT:
        raise BadInput("record without a value", pointer)
    if value is None:
        raise BadInput("value is null", pointer)
    check_value(value, pointer)


def _geo(geo: Any, pointer: str) -> dict[str, float]:
    if type(geo) is not dict:
        raise BadInput("geo must be an object", pointer)
    return {"lat": _degrees(geo, "lat", "lt", 90, pointer), "lon": _degrees(geo, "lon", "ln", 180, pointer)}


def _degrees(geo: dict[str, Any], long: str, short: str, limit: int, pointer: str) -> float:
    name, value = _member(geo, long, short)
    if type(value) not in (int, float):
        raise BadInput("geo needs lat and lon as numbers", f"{pointer}/{name}")
    if not -limit <= value <= limit:
        raise BadInput(f"{long} is not between -{limit} and {limit} degrees", f"{pointer}/{name}")
    return float(value)


def _rfc_3339(text: str, pointer: str) -> int:
    found = _RFC_3339.fullmatch(text)
    if not found:
        raise BadInput("time is not RFC 3339", pointer)
    year, month, day, hour, minute, second, fraction, sign, offset_hours, offset_minutes = found.groups()
    # RFC 3339 allows the leap second, which has no Unix time of its own: it is the second after.
    leap = second == "60"
    try:
        zone = UTC
        if sign:
            if offset_minutes > "59":
                raise ValueError
            offset = timedelta(hours=int(offset_hours), minutes=int(offset_minutes))
            zone = timezone(-offset if sign == "-" else offset)
        whole = 59 if leap else int(second)
        moment = datetime(int(year), int(month), int(day), int(hour), int(minute), whole, tzinfo=zone)
    except ValueError:
        raise BadInput("time is no date and time of day", pointer) from None
    elapsed = moment - _EPOCH
    return (elapsed.days * 86_400 + elapsed.seconds + leap) * 1000 + int(((fraction or "") + "000")[:3])
