"""Lines for InfluxDB: their text, that names and values survive it, and what no line can hold."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from influxdb_client import Point as TheirPoint
from influxdb_client import WritePrecision

from engine.message import Point
from engine.stores.line_protocol import Encoder, shown_name, stored_name
from engine.stores.values import INT64_MAX, INT64_MIN, MAX_NAME_BYTES, MAX_TS_MS

names = st.text(min_size=1, max_size=30) | st.text(alphabet="%0AZaf\\\n ,='\"é\x85", min_size=1, max_size=12)


def line(value: Any, ts_ms: int = 5, **more: Any) -> str:
    encoded = Encoder().encode([Point("t", "d", "k", ts_ms, value, **more)])
    assert not encoded.refused
    return encoded.lines[0].removeprefix("ts_kv,device=d,key=k,tenant=t ")


@pytest.mark.spec("G-16")
@pytest.mark.parametrize(
    ("value", "fields"),
    [
        (73, 'l=73i,t="l"'),
        (INT64_MIN, f'l={INT64_MIN}i,t="l"'),
        (INT64_MAX, f'l={INT64_MAX}i,t="l"'),
        (42.0, 'd=42.0,t="d"'),
        (-0.0, 'd=-0.0,t="d"'),
        (5e-324, 'd=5e-324,t="d"'),
        (1.7976931348623157e308, 'd=1.7976931348623157e+308,t="d"'),
        (True, 'b=true,t="b"'),
        (False, 'b=false,t="b"'),
        ("", 's="",t="s"'),
        ('a "b" \\ c\nd, e=f', 's="a \\"b\\" \\\\ c\nd, e=f",t="s"'),
        ({"a": [1.0, 'x"y\\']}, 'j="{\\"a\\":[1.0,\\"x\\\\\\"y\\\\\\\\\\"]}",t="j"'),
        ([], 'j="[]",t="j"'),
    ],
)
def test_every_type_has_its_field(value: Any, fields: str) -> None:
    assert line(value) == f"{fields} 5"


@pytest.mark.spec("G-16", "CT-11")
def test_the_place_is_named_beside_the_type() -> None:
    assert line(1, lat=52.5, lon=-1) == 'l=1i,t="lg",lat=52.5,lon=-1.0 5'
    assert line(1, lat=0.0) == 'l=1i,t="la",lat=0.0 5'
    assert line(1, lon=2e-7) == 'l=1i,t="lo",lon=2e-07 5'
    for ts_ms in (-MAX_TS_MS, -1, 0, MAX_TS_MS):
        assert line(True, ts_ms).endswith(f'"b" {ts_ms}')


def test_names_are_escaped_in_the_head() -> None:
    points = [Point("a b", "läng, =x", 'k"\\', 1, 1), Point("a\nb\r\0", "50%", "50%20%zz\x85", 1, 1)]
    assert [each.rpartition(" l=")[0] for each in Encoder().encode(points).lines] == [
        'ts_kv,device=läng\\,\\ \\=x,key=k"%5C,tenant=a\\ b',
        "ts_kv,device=50%,key=50%2520%zz%C2%85,tenant=a%0Ab%0D%00",
    ]


@given(names)
def test_names_survive(name: str) -> None:
    stored = stored_name(name)
    assert shown_name(stored) == name
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\\]", stored)


@given(names, names)
def test_different_names_are_stored_differently(one: str, other: str) -> None:
    assert (stored_name(one) == stored_name(other)) == (one == other)


@pytest.mark.parametrize("stored", ["50%FF", "%80", "a%C3", "%ED%A0%80"])
def test_what_others_have_stored_is_shown_as_it_is(stored: str) -> None:
    assert shown_name(stored) == stored


@given(
    st.text(alphabet="abz,= \"'#%é温🌡", min_size=1, max_size=8),
    st.integers(INT64_MIN, INT64_MAX)
    | st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
    | st.booleans()
    | st.text(alphabet='ab\\",= é', max_size=8),
    st.integers(-MAX_TS_MS, MAX_TS_MS),
)
def test_the_text_is_that_of_influxdb_client(name: str, value: Any, ts_ms: int) -> None:
    field = {int: "l", float: "d", bool: "b", str: "s"}[type(value)]
    theirs = TheirPoint("ts_kv").tag("device", name).tag("key", "k").tag("tenant", name)
    theirs = theirs.field(field, value).field("t", field).time(ts_ms, WritePrecision.MS)
    [ours] = Encoder().encode([Point(name, name, "k", ts_ms, value)]).lines
    # Whole numbers as doubles are 42.0 here and 42 there, which is the same double.
    assert re.sub(r"(d=-?[0-9]+)\.0,t=", r"\1,t=", ours) == theirs.to_line_protocol()


def test_what_no_line_can_hold_is_refused_with_the_reason_and_the_rest_encoded() -> None:
    long = "x" * (MAX_NAME_BYTES + 1)
    points = [
        Point("t", "d", "k", 1, 1),
        Point("t", "d", "k", 1, float("nan")),
        Point("t", "d", "k", 1, 2**63),
        Point("t", "d", "k", 1, None),
        Point("t", "d", "k", 1, {"a": float("inf")}),
        Point("t", "d", "k", 1, "\ud800"),
        Point("t", "d", "", 1, 1),
        Point("t", long, "k", 1, 1),
        Point("t", ["d"], "k", 1, 1),  # type: ignore[arg-type]
        Point("t", "d", "k", MAX_TS_MS + 1, 1),
        Point("t", "d", "k", 10**5000, 1),
        Point("t", "d", "k", True, 1),
        Point("t", "d", "k", 1, 1, float("inf"), 1.0),
        Point("t", "d", "k", 1, 1, 1.0, 10**400),
        Point("t", "d", "k", 1, 1, "1.0"),  # type: ignore[arg-type]
        Point("t", "d", "k", 2, 2.5),
    ]
    encoded = Encoder().encode(points)
    assert encoded.of == [0, len(points) - 1]
    assert [index for index, _ in encoded.refused] == list(range(1, len(points) - 1))
    reasons = [reason for _, reason in encoded.refused]
    assert all(reasons)
    assert "nan is not a finite number" in reasons[0]
    assert "64 bits" in reasons[1]
    assert "timestamp" in reasons[8]


def test_the_longest_names_fit_into_what_influxdb_has_for_them() -> None:
    worst = "\x85" * (MAX_NAME_BYTES // 2)
    [made] = Encoder().encode([Point(worst, worst, worst, 1, 1)]).lines
    head = made.rpartition(" l=")[0]
    # 1.x: 65,535 bytes with the longest field; 2.x puts some 40 bytes of its own before and behind.
    assert len(head.encode()) + len("#!~#lat") + 64 < 65_535


def test_heads_are_kept_and_do_not_mix_series() -> None:
    encoder = Encoder()
    points = [Point(t, d, k, 1, 1) for t in ("a", "b") for d in ("a", "b") for k in ("a", "b")]
    assert encoder.encode(points).lines == encoder.encode(points).lines == Encoder().encode(points).lines
    assert len(set(encoder.encode(points).lines)) == 8
