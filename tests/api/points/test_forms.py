"""Points go into files and come back as they were, and every line that is none is told with its number."""

from __future__ import annotations

import gzip
import io
import json
import math
import sys
from typing import BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.points import parquet_form
from api.points.csv_form import guarded, unguarded
from api.points.files import CSV, FORMS, LINES, NDJSON, PARQUET, WRITERS, form_of_name, reader
from api.points.reading import MOST_BYTES, NO_TENANT, Read
from engine.errors import BadInput, RulemillError
from engine.message import Point
from engine.stores.values import INT64_MAX, INT64_MIN, MAX_TS_MS

pytest.importorskip("pyarrow")

texts = st.text(st.characters(exclude_categories=["Cs"]))
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
).filter(lambda value: isinstance(value, dict | list))
values = (
    st.booleans() | st.integers(INT64_MIN, INT64_MAX) | st.floats(allow_nan=False, allow_infinity=False)
    | texts | json_values
)  # fmt: skip
degrees = st.none() | st.floats(-180, 180)
points = st.builds(
    Point, names, names, names, st.integers(-MAX_TS_MS, MAX_TS_MS), values, lat=degrees, lon=degrees
)  # fmt: skip


def written(form: str, of: list[Point]) -> bytes:
    file = io.BytesIO()
    writer = WRITERS[form](file)
    assert writer.write(of) == []
    writer.close()
    return file.getvalue()


def read(text: bytes | BinaryIO, tenant: str = "", **options: str) -> list[Read]:
    return list(reader(io.BytesIO(text) if isinstance(text, bytes) else text, tenant, **options))


def told(found: list[Read]) -> list[tuple[int, str]]:
    return [(one.line, one.problem) for one in found if one.point is None]


@pytest.mark.parametrize("form", FORMS)
@given(of=st.lists(points, min_size=1, max_size=5))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_points_come_back_as_they_were(form: str, of: list[Point]) -> None:
    found = read(written(form, of), form=form)
    assert told(found) == []
    back = [one.point for one in found]
    assert back == of
    for one, before in zip(back, of, strict=True):
        assert one is not None
        assert type(one.value) is type(before.value)
        if isinstance(before.value, float):
            assert math.copysign(1, one.value) == math.copysign(1, before.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_is_known_by_how_it_begins(form: str, zipped: bool) -> None:
    of = [Point("t", "d", "k", 1, 42.0), Point("t", "d", "k", 2, 42)]
    text = written(form, of)
    found = read(gzip.compress(text) if zipped else text)
    assert [one.point for one in found] == of
    assert [type(one.point.value) for one in found if one.point] == [float, int]


def test_forms_of_names() -> None:
    for name, form in (
        ("a.lp", LINES), ("a.csv.gz", CSV), ("A.CSV", CSV), ("x/y.jsonl", NDJSON), ("b.parquet", PARQUET), ("-", ""),
        ("a", ""),
    ):  # fmt: skip
        assert form_of_name(name) == form


@given(texts)
def test_no_cell_is_a_formula(text: str) -> None:
    cell = guarded(text)
    assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n")
    assert unguarded(cell) == text


class TestLines:
    def test_lines_that_are_none(self) -> None:
        text = (
            b"# a comment\n"
            b'ts_kv,device=d,key=k,tenant=t d=1,t="d" 5\n'
            b"\n"
            b"cpu,host=a usage=1 5\n"
            b'ts_kv,device=d,tenant=t d=1,t="d" 5\n'
            b'ts_kv,device=d,key=k,tenant=t d=nan,t="d" 5\n'
            b'ts_kv,device=d,key=k,tenant=t l=9223372036854775808i,t="l" 5\n'
            b'ts_kv,device=d,key=k,tenant=t d=1,t="d"\n'
            b'ts_kv,device=d,key=k,tenant=t d=1,t="l" 5\n'
            b'ts_kv,device=d,key=k,tenant=t s="never ends,t="s" 5\n'
            b'ts_kv,device=d,key=k d=1,t="d" 5\n'
            b"garbage\n"
            b'ts_kv,device=d,key=k,tenant=t d=1,t="d" 1769860800000000000\n'
            b'ts_kv,device=\xff,key=k,tenant=t d=1,t="d" 6\n'
            b'ts_kv,device=d,key=k,tenant=t d=2,t="d" 6'
        )
        found = read(text)
        assert [one.point for one in found if one.point] == [Point("t", "d", "k", 5, 1.0), Point("t", "d", "k", 6, 2.0)]
        assert [(line, problem[:32]) for line, problem in told(found)] == [
            (4, "is of the measurement 'cpu'; poi"),
            (5, "has no tag key"),
            (6, "'nan' is no number"),
            (7, "key 'k': integer does not fit in"),
            (8, "has no time"),
            (9, "has no value: one of the fields "),
            (10, "is no line protocol at column 31"),
            (11, NO_TENANT[:32]),
            (12, "is no line protocol: no fields"),
            (13, "timestamp is not a whole number "),
            (14, "device is not a name of 1 to 409"),
        ]

    def test_a_text_of_many_lines_is_one_point(self) -> None:
        of = [
            Point("t", "d", 'k"q', 1, 'a\nb"c"\\\n\nd\r\n'),
            Point("t", "d", "k", 2, 1),
            Point("t", "d", "k", 3, "\\"),
        ]
        found = read(written(LINES, of) + b"garbage\n")
        assert [one.point for one in found] == [*of, None]
        assert [one.line for one in found] == [1, 6, 7, 8]

    def test_a_broken_line_takes_no_other_with_it(self) -> None:
        good = b'ts_kv,device=d,key=k,tenant=t s="x",t="s" 5\n'
        broken = b'ts_kv,device=d,key=k,tenant=t s="x,t="s 5\n'
        found = read(broken + good + broken + good + good)
        assert [one.line for one in found if one.point is None] == [1, 3]
        assert len(found) == 5

    @pytest.mark.parametrize(
        ("precision", "text"), [("s", "-2"), ("ms", "-2000"), ("us", "-2000000"), ("ns", "-2000000000")]
    )
    def test_precisions(self, precision: str, text: str) -> None:
        found = read(f'ts_kv,device=d,key=k,tenant=t d=1,t="d" {text}'.encode(), precision=precision)
        assert [one.point.ts_ms for one in found if one.point] == [-2000]

    def test_what_influxdb_itself_exports_without_a_letter(self) -> None:
        found = read(b"ts_kv,device=d,key=k l=5i 1\nts_kv,device=d,key=k b=t 2\n", "t")
        assert [one.point for one in found] == [Point("t", "d", "k", 1, 5), Point("t", "d", "k", 2, True)]


class TestCsv:
    def test_what_others_write(self) -> None:
        text = (
            "\ufeffdevice;time;key;value;unit\r\n"
            "d;2026-01-31T13:00:00+01:00;t;21;C\r\nd;2026-01-31T12:00:01Z;t;21.5;C\r\n"
            "d;2026-01-31T12:00:02.5Z;t;TRUE;\r\nd;2026-01-31T12:00:03Z;t;open;\r\nd;2026-01-31T12:00:04Z;t;{x;\r\n"
        ).encode()
        found = read(text, "acme")
        assert told(found) == []
        assert [(one.point.ts_ms - 1769860800000, one.point.value) for one in found if one.point] == [
            (0, 21), (1000, 21.5), (2500, True), (3000, "open"), (4000, "{x"),
        ]  # fmt: skip
        assert {one.point.tenant for one in found if one.point} == {"acme"}

    def test_lines_that_are_none(self) -> None:
        text = (
            b"device,key,ts_ms,time,type,value,lat\n"
            b"d,k,1,,double,1.5,\n"
            b"d,k,1,,double,1.5\n"
            b"d,k,x,,double,1.5,\n"
            b"d,k,,2026-01-31T12:00:00,double,1.5,\n"
            b"d,k,,,double,1.5,\n"
            b"d,k,1,,float,1.5,\n"
            b"d,k,1,,long,1.5,\n"
            b"d,k,1,,boolean,yes,\n"
            b"d,k,1,,,,\n"
            b'd,k,1,,string,"two\nlines",\n'
            b"d,,1,,double,1.5,\n"
            b"d,k,1,,json,{,\n"
            b"d,k,1,,json,7,\n"
            b"d,k,1,,double,1e999,\n"
            b"d,k,1,,double,1,north\n"
        )
        found = read(text, "t")
        assert [one.point.value for one in found if one.point] == [1.5, "two\nlines", 7]
        assert [(line, problem[:22]) for line, problem in told(found)] == [
            (3, "has 6 cells, and the f"), (4, "'x' is no whole number"), (5, "the time '2026-01-31T1"),
            (6, "'' is no time such as "), (7, "'float' is no type; th"), (8, "'1.5' is no whole numb"),
            (9, "'yes' is neither true "), (10, "has no value"), (13, "key is not a name of 1"),
            (14, "is no JSON: Expecting "),
            (16, "key 'k': inf is not a "), (17, "'north' is no number"),
        ]  # fmt: skip
        assert told(read(b"device,key,ts_ms,value\nd,k,1,1\n")) == [(2, NO_TENANT)]

    def test_titles_must_tell_enough(self) -> None:
        with pytest.raises(BadInput, match="no title value and no title ts_ms; it has device, key"):
            read(b"device,key\n")

    def test_a_cell_of_megabytes(self) -> None:
        of = [Point("t", "d", "k", 1, "x" * 10_000_000)]
        assert [one.point for one in read(written(CSV, of))] == of


class TestNdjson:
    def test_lines_that_are_none(self) -> None:
        text = (
            b'{"device":"d","key":"k","ts_ms":1,"value":1.0,"tenant":"own"}\n'
            b"\n[1]\nnonsense\n"
            b'{"device":"d","key":"k","value":1}\n'
            b'{"device":"d","key":"k","ts_ms":1,"value":null}\n'
            b'{"device":"d","key":"k","ts_ms":1.5,"value":1}\n'
            b'{"device":"d","key":"k","ts_ms":1,"value":NaN}\n'
            b'{"device":7,"key":"k","ts_ms":1,"value":1}\n'
            b'{"device":"d","key":"k","ts_ms":1,"value":1,"lat":"north","lon":1}\n'
            b'{"device":"d","key":"k","time":"1970-01-01T00:00:02Z","value":18446744073709551616}\n'
            b'{"device":"d","key":"k","time":"1970-01-01T00:00:02Z","value":2}'
        )
        found = read(text, "t", form=NDJSON)
        assert [one.point for one in found if one.point] == [
            Point("own", "d", "k", 1, 1.0),
            Point("t", "d", "k", 2000, 2),
        ]
        assert [line for line, _ in told(found)] == list(range(3, 12))

    def test_a_line_without_an_end(self) -> None:
        text = b"x" * (MOST_BYTES + 5) + b'\n{"device":"d","key":"k","ts_ms":1,"value":1}\n'
        found = read(text, "t", form=NDJSON)
        assert told(found) == [(1, "is longer than 64 MiB")]
        assert len(found) == 2


class TestParquet:
    def test_what_others_write(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = io.BytesIO()
        pq.write_table(
            pa.table({"device": ["d", None], "key": ["k", "k"], "ts_ms": [1, 2], "value": [1.5, 2.5], "more": [1, 2]}),
            file,
        )
        found = read(file.getvalue(), "t")
        assert found[0].point == Point("t", "d", "k", 1, 1.5)
        assert [(line, problem[:20]) for line, problem in told(found)] == [(2, "device is not a name")]

    def test_files_that_are_none(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pytest.raises(BadInput, match="is no Parquet"):
            read(b"PAR1 and then nothing")
        file = io.BytesIO()
        pq.write_table(pa.table({"a": [1]}), file)
        with pytest.raises(
            BadInput, match="no column device and no column key and no column ts and no column value; it has a"
        ):
            read(file.getvalue())

    def test_several_row_groups(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parquet_form, "ROWS", 10)
        of = [Point("t", "d", "k", ts, json.dumps(ts)) for ts in range(25)]
        file = io.BytesIO()
        writer = parquet_form.Writer(file)
        for i in range(0, 25, 5):
            writer.write(of[i : i + 5])
        writer.close()
        found = read(file.getvalue())
        assert [one.point for one in found] == of
        assert [one.line for one in found] == list(range(1, 26))

    def test_without_pyarrow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(RulemillError, match=r"pip install 'rulemill\[parquet\]'"):
            parquet_form.Writer(io.BytesIO())
