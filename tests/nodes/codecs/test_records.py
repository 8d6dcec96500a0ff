import calendar
import math
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BadInput
from engine.stores.values import MAX_TS_MS
from nodes.codecs.records import (
    Instant,
    Record,
    by_timestamp,
    records,
    resolve_time,
    transform_result,
    unwrapped,
)

NOW = 1_700_000_000_123
T0 = 1_462_281_856_000  # 2016-05-03T13:24:16Z


def document(*entries: Any, **more: Any) -> dict[str, Any]:
    return {"records": list(entries), **more}


def times(*given_times: Any) -> list[int]:
    """The resolved times of records with those times; `...` is a record without one."""
    entries = [{"key": "k", "value": 1} | ({} if time is ... else {"time": time}) for time in given_times]
    return [record.ts_ms for record in records(document(*entries), NOW)]


@pytest.mark.spec("CT-8")
def test_records_without_time_are_of_the_receive_time():
    found = records(document({"key": "temp", "value": 36.6}, {"key": "bat", "value": 3.5}), NOW)
    assert found == [Record("temp", 36.6, NOW), Record("bat", 3.5, NOW)]
    assert by_timestamp(found) == [Instant(NOW, {"temp": 36.6, "bat": 3.5}, {})]


@pytest.mark.spec("CT-9", "CT-S1")
@pytest.mark.parametrize(
    "value", [36.6, 3.0, 3, -(2**63), 2**63 - 1, "x", "", True, False, [], {}, [1, [2.0, None]], {"a": {"b": None}}]
)
def test_the_type_of_a_value_is_kept(value):
    (found,) = records(document({"key": "k", "value": value}), NOW)
    assert repr(found.value) == repr(value)


@pytest.mark.spec("CT-10", "CT-S2")
def test_a_difference_counts_from_the_record_before():
    assert times("2016-05-03T13:24:16Z", 6) == [T0, T0 + 6000]
    assert times(6, 6, -20) == [NOW + 6000, NOW + 12_000, NOW - 8000]
    assert times(0.25, -0.5, 0) == [NOW + 250, NOW - 250, NOW - 250]


@pytest.mark.spec("CT-S2")
def test_a_record_without_time_becomes_the_previous_one():
    assert times("2016-05-03T13:24:16Z", ..., 1) == [T0, NOW, NOW + 1000]
    assert times(None, 1) == [NOW, NOW + 1000]


@pytest.mark.spec("CT-S2")
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, NOW),
        (99_999_999, NOW + 99_999_999_000),
        (99_999_999.999, NOW + 99_999_999_999),
        (-99_999_999, NOW - 99_999_999_000),
        (100_000_000, 100_000_000_000),
        (1_462_281_856, T0),
        (1_462_281_856.5, T0 + 500),
        (9_223_372_036, 9_223_372_036_000),
        (100_000_000_000, 100_000_000_000),
        (100_000_000_000.0, 100_000_000_000),
        (T0, T0),
        (T0 + 0.4, T0),
        (MAX_TS_MS, MAX_TS_MS),
    ],
)
def test_time_numbers_are_told_apart_by_their_size(number, expected):
    assert resolve_time(number, NOW) == expected


@pytest.mark.spec("CT-S2")
@pytest.mark.parametrize(
    "time",
    [
        -100_000_000,
        -1_462_281_856,
        99_999_999_999,
        MAX_TS_MS + 1,
        2**63 - 1,
        10**400,
        1e300,
        math.nan,
        math.inf,
        -math.inf,
        True,
        [],
        {},
        "",
        "1462281856",
        "now",
        "2016-05-03",
        "2016-05-03T13:24:16",
        "2016-05-03T13:24Z",
        "20160503T132416Z",
        "2016-5-3T13:24:16Z",
        "2016-05-03T13:24:16z ",
        "2016-05-03T13:24:16Z\n",
        "2016-05-03T13:24:16.Z",
        "2016-05-03T13:24:16,5Z",
        "2016-05-03T13:24:16+0200",
        "2016-05-03T13:24:16+02",
        "2016-05-03T13:24:16+24:00",
        "2016-05-03T13:24:16+02:60",
        "2016-13-03T13:24:16Z",
        "2016-02-30T13:24:16Z",
        "2015-02-29T13:24:16Z",
        "2016-05-03T24:00:00Z",
        "2016-05-03T13:60:16Z",
        "2016-05-03T13:24:61Z",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "٢٠١٦-05-03T13:24:16Z",
    ],
)
def test_other_times_make_the_record_invalid(time):
    with pytest.raises(BadInput) as caught:
        times(..., time)
    assert caught.value.pointer == "/records/1/time"


@pytest.mark.spec("CT-10", "CT-S2")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2016-05-03T13:24:16Z", T0),
        ("2016-05-03t13:24:16z", T0),
        ("2016-05-03 13:24:16Z", T0),
        ("2016-05-03T15:24:16+02:00", T0),
        ("2016-05-03T08:54:16-04:30", T0),
        ("2016-05-04T13:23:16+23:59", T0),
        ("2016-05-03T13:24:16-00:00", T0),
        ("2016-05-03T13:24:16.5Z", T0 + 500),
        ("2016-05-03T13:24:16.05Z", T0 + 50),
        ("2016-05-03T13:24:16.123456789Z", T0 + 123),
        ("2016-05-03T13:24:16.9999999999999999Z", T0 + 999),
        ("1969-12-31T23:59:59.250Z", -750),
        ("1970-01-01T00:00:00Z", 0),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        ("2016-02-29T00:00:00Z", calendar.timegm((2016, 2, 29, 0, 0, 0)) * 1000),
    ],
)
def test_rfc_3339(text, expected):
    assert resolve_time(text, NOW) == expected


@settings(deadline=None)
@given(
    st.datetimes(datetime(1700, 1, 1), datetime(2260, 1, 1)),
    st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_what_python_writes_in_any_zone_is_the_same_instant(moment, zone):
    moment = moment.replace(tzinfo=UTC)
    expected = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert resolve_time(moment.astimezone(zone).isoformat(), NOW) == expected


@pytest.mark.spec("CT-11")
def test_geo_belongs_to_its_record_only():
    found = records(
        document({"key": "temp", "value": 36.6, "geo": {"lat": 52.24325, "lon": 26}}, {"key": "bat", "value": 3.5}), NOW
    )
    assert found == [Record("temp", 36.6, NOW, {"lat": 52.24325, "lon": 26.0}), Record("bat", 3.5, NOW)]
    assert by_timestamp(found) == [Instant(NOW, {"temp": 36.6, "bat": 3.5}, {"temp": {"lat": 52.24325, "lon": 26.0}})]


@pytest.mark.spec("CT-12")
def test_a_key_may_be_a_position_in_the_index():
    found = records(document({"key": 0, "value": 1}, {"key": 1.0, "value": 2}, index=["temp", "bat"]), NOW)
    assert [record.key for record in found] == ["temp", "bat"]


@pytest.mark.spec("CT-12")
def test_with_an_index_a_key_may_still_be_a_name():
    (found,) = records(document({"key": "0", "value": 1}, index=["temp"]), NOW)
    assert found.key == "0"


@pytest.mark.spec("CT-13", "CT-S3")
def test_names_may_be_mixed_and_the_long_one_counts():
    mixed = {
        "i": ["x"],
        "index": ["temp"],
        "r": [],
        "records": [
            {"k": "no", "key": 0, "v": 1, "value": 2, "t": 1, "time": T0, "g": 0, "geo": {"lt": 9, "lat": 1, "ln": 2}}
        ],
    }
    assert records(mixed, NOW) == [Record("temp", 2, T0, {"lat": 1.0, "lon": 2.0})]


@pytest.mark.spec("CT-S10")
def test_unknown_members_are_ignored():
    assert records(document({"key": "k", "value": 1, "unit": [None]}, version=2), NOW) == [Record("k", 1, NOW)]


@pytest.mark.spec("CT-S1", "CT-S10")
@pytest.mark.parametrize(
    ("bad", "pointer"),
    [
        (None, "/records"),
        ([], "/records"),
        ("k", "/records"),
        ({"value": 1}, "/records/key"),
        ({"key": None, "value": 1}, "/records/key"),
        ({"k": None, "v": 1}, "/records/k"),
        ({"key": "", "value": 1}, "/records/key"),
        ({"key": "x" * 256, "value": 1}, "/records/key"),
        ({"key": "a\nb", "value": 1}, "/records/key"),
        ({"key": "\ud800", "value": 1}, "/records/key"),
        ({"key": True, "value": 1}, "/records/key"),
        ({"key": 2, "value": 1}, "/records/key"),
        ({"key": -1, "value": 1}, "/records/key"),
        ({"key": 0.5, "value": 1}, "/records/key"),
        ({"key": math.nan, "value": 1}, "/records/key"),
        ({"key": ["a"], "value": 1}, "/records/key"),
        ({"key": "k"}, "/records/value"),
        ({"key": "k", "value": None}, "/records/value"),
        ({"key": "k", "v": None}, "/records/v"),
        ({"key": "k", "value": math.nan}, "/records/value"),
        ({"key": "k", "value": 2**63}, "/records/value"),
        ({"key": "k", "value": b"x"}, "/records/value"),
        ({"key": "k", "value": {"a": [math.inf]}}, "/records/value/a/0"),
        ({"key": "k", "value": 1, "t": "x"}, "/records/t"),
        ({"key": "k", "value": 1, "geo": 1}, "/records/geo"),
        ({"key": "k", "value": 1, "g": []}, "/records/g"),
        ({"key": "k", "value": 1, "geo": {}}, "/records/geo/lat"),
        ({"key": "k", "value": 1, "geo": {"lat": 1}}, "/records/geo/lon"),
        ({"key": "k", "value": 1, "geo": {"lt": "1", "ln": 1}}, "/records/geo/lt"),
        ({"key": "k", "value": 1, "geo": {"lat": 1, "lon": True}}, "/records/geo/lon"),
        ({"key": "k", "value": 1, "geo": {"lat": 90.1, "lon": 1}}, "/records/geo/lat"),
        ({"key": "k", "value": 1, "geo": {"lat": -90, "lon": -180.1}}, "/records/geo/lon"),
        ({"key": "k", "value": 1, "geo": {"lat": math.nan, "lon": 1}}, "/records/geo/lat"),
        ({"key": "k", "value": 1, "geo": {"lat": 1, "lon": None}}, "/records/geo/lon"),
    ],
)
@pytest.mark.parametrize("position", [0, 1])
def test_one_invalid_record_makes_all_invalid(bad, pointer, position):
    entries = [{"key": "fine", "value": 1}]
    entries.insert(position, bad)
    with pytest.raises(BadInput) as caught:
        records(document(*entries, index=["a", "b"]), NOW)
    assert caught.value.pointer == pointer.replace("/records", f"/records/{position}", 1)


@pytest.mark.spec("CT-12", "CT-S10")
@pytest.mark.parametrize(
    ("whole", "pointer"),
    [
        (None, ""),
        ([], ""),
        ("x", ""),
        ({}, ""),
        ({"index": ["a"]}, ""),
        ({"records": []}, "/records"),
        ({"r": []}, "/r"),
        ({"records": None}, "/records"),
        ({"r": {"k": "a", "v": 1}}, "/r"),
        ({"r": [{"k": 0, "v": 1}]}, "/r/0/k"),
        ({"r": [{"k": 0, "v": 1}], "i": []}, "/r/0/k"),
        ({"r": [{"k": 0, "v": 1}], "i": "temp"}, "/i"),
        ({"r": [{"k": 0, "v": 1}], "i": {"0": "temp"}}, "/i"),
        ({"r": [{"k": 0, "v": 1}], "index": ["temp", 1]}, "/index/1"),
        ({"r": [{"k": 0, "v": 1}], "i": ["temp", ""]}, "/i/1"),
    ],
)
def test_documents_that_are_no_records(whole, pointer):
    with pytest.raises(BadInput) as caught:
        records(whole, NOW)
    assert caught.value.pointer == pointer


@pytest.mark.spec("CT-70")
def test_one_instant_per_time_in_the_order_in_which_the_times_come():
    found = by_timestamp(
        [Record("a", 1, 300), Record("b", 2, 100), Record("c", 3, 300), Record("d", 4, 200), Record("e", 5, 100)]
    )
    assert found == [
        Instant(300, {"a": 1, "c": 3}, {}),
        Instant(100, {"b": 2, "e": 5}, {}),
        Instant(200, {"d": 4}, {}),
    ]


@pytest.mark.spec("CT-S10")
def test_of_two_records_of_one_key_and_time_the_last_stands_with_its_place():
    here, there = {"lat": 1.0, "lon": 2.0}, {"lat": 3.0, "lon": 4.0}
    assert by_timestamp([Record("a", 1, 5, here), Record("a", 2, 5, there)]) == [Instant(5, {"a": 2}, {"a": there})]
    assert by_timestamp([Record("a", 1, 5, here), Record("a", 2, 5)]) == [Instant(5, {"a": 2}, {})]
    assert len(by_timestamp([Record("a", 1, 5), Record("a", 2, 6)])) == 2


TEMP = [Record("temp", 37, NOW)]


@pytest.mark.spec("CT-S19")
@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ([{"key": "temp", "value": 37}], TEMP),
        ([{"k": "temp", "v": 37}], TEMP),
        ({"records": [{"key": "temp", "value": 37}]}, TEMP),
        ({"r": [{"k": 0, "v": 37}], "i": ["temp"]}, TEMP),
        ({"temp": 37}, TEMP),
        ({"temp": 37, "state": {"on": True}}, [*TEMP, Record("state", {"on": True}, NOW)]),
        ([{"key": "temp", "value": 37, "time": T0}], [Record("temp", 37, T0)]),
        ({"r": 255, "g": 0, "b": 1}, [Record("r", 255, NOW), Record("g", 0, NOW), Record("b", 1, NOW)]),
        (None, []),
        ([], []),
        ({}, []),
        ({"records": []}, []),
        ({"records": {}}, []),
    ],
)
@pytest.mark.parametrize("form", ["bare", "msg", "all three", "list of forms"])
def test_what_a_transform_function_may_return(result, expected, form):
    wrapped = {"msg": result, "metadata": {"a": "b"}, "msgType": "X"}
    given_result = {"bare": result, "msg": {"msg": result}, "all three": wrapped, "list of forms": [wrapped]}[form]
    assert transform_result(given_result, NOW) == expected


@pytest.mark.spec("CT-S19")
def test_a_list_of_forms_gives_the_records_of_all():
    both = [{"msg": {"temp": 37}}, {"msg": None}, {"msg": [{"key": "bat", "value": 1}]}]
    assert transform_result(both, NOW) == [*TEMP, Record("bat", 1, NOW)]


@pytest.mark.spec("CT-S19")
@pytest.mark.parametrize(
    ("result", "pointer"),
    [
        (37, ""),
        ("temp", ""),
        (True, ""),
        ([37], "/0"),
        ([{"temp": 37}], "/0/key"),
        ([{"msg": {"temp": 37}}, {"key": "bat", "value": 1}], "/0/key"),
        ({"msg": 37}, "/msg"),
        ({"msg": [{"k": "a"}]}, "/msg/0/value"),
        ([{"msg": None}, {"msg": [{"k": "a", "v": None}]}], "/1/msg/0/v"),
        ({"temp": None}, "/temp"),
        ({"te/mp": math.nan}, "/te~1mp"),
        ({"": 1}, "/"),
        ({"temp": {"x": 2**63}}, "/temp/x"),
        ({"records": [{"key": "a", "value": 1}, {}]}, "/records/1/key"),
        ({"r": [{"k": 1, "v": 1}], "i": ["a"]}, "/r/0/k"),
    ],
)
def test_anything_else_a_transform_function_returns_is_refused(result, pointer):
    with pytest.raises(BadInput) as caught:
        transform_result(result, NOW)
    assert caught.value.pointer == pointer


def test_unwrapped_is_the_message_of_a_form():
    assert unwrapped({"msg": 1, "metadata": {}}) == 1
    assert unwrapped({"msg": 1, "other": 2}) == {"msg": 1, "other": 2}
    assert unwrapped([1]) == [1]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "records",
                    "r",
                    "index",
                    "i",
                    "key",
                    "k",
                    "value",
                    "v",
                    "time",
                    "t",
                    "geo",
                    "g",
                    "lat",
                    "lt",
                    "lon",
                    "ln",
                    "msg",
                    "metadata",
                    "x",
                ]
            ),
            inner,
        )
    ),
    max_leaves=25,
)


@settings(deadline=None, max_examples=500)
@given(anything | st.fixed_dictionaries({"r": st.lists(anything, max_size=3)}))
def test_any_document_is_records_or_bad_input_with_a_pointer(value):
    for read in (records, transform_result):
        try:
            found = read(value, NOW)
        except BadInput as error:
            pointer = error.pointer
        else:
            pointer = ""
            assert all(type(record.ts_ms) is int and abs(record.ts_ms) <= MAX_TS_MS for record in found)
        assert re.fullmatch(r"(/[^/]*)*", pointer)
