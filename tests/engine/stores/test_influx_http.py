"""What answers of InfluxDB mean, and what stands in their rows."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from typing import Any

import pytest

from engine.errors import RulemillError, StoreUnavailable
from engine.message import Point
from engine.stores.influx_access import access
from engine.stores.influx_http import Denied, Infinite, Missing, NotTaken, TooLarge, failure, short, write_failure
from engine.stores.influx_rows import FieldRow, Rows, Series, answer, point_of


def said(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "reason"),
    [
        (400, {"error": "partial write: field type conflict dropped=2"}, NotTaken, "field type conflict"),
        (400, {"error": "unable to parse 'x': missing fields"}, NotTaken, "missing fields"),
        (422, {"code": "unprocessable entity", "message": "failure: partial write: x dropped=1"}, NotTaken, "x"),
        (
            400,
            {"error": "partial write of line protocol occurred", "data": [{"line_number": 1, "error_message": "bad"}]},
            NotTaken,
            "partial write of line protocol occurred: bad",
        ),
        (400, b'{"error":"\xff"}', StoreUnavailable, "answered 400: "),
        (400, b"<html>400 Bad Request</html>", StoreUnavailable, "answered 400: <html>400 Bad Request</html>"),
        (400, {"ok": 1}, StoreUnavailable, "answered 400"),
        (413, b"", TooLarge, "413"),
        (401, {"error": "authorization failed"}, Denied, "authorization failed"),
        (403, {"error": '"ro" user is not authorized'}, Denied, "not authorized"),
        (404, {"error": 'database not found: "x"'}, Missing, "database not found"),
        (404, {"code": "not found", "message": 'bucket "x" not found'}, Missing, "bucket"),
        (500, {"error": "timeout"}, StoreUnavailable, "answered 500: timeout"),
        (503, b"", StoreUnavailable, "answered 503: no reason given"),
        (204, b"", StoreUnavailable, "answered 204"),
        (200, b"welcome", StoreUnavailable, "answered 200: welcome"),
    ],
)
def test_what_a_refused_write_means(status: int, body: Any, kind: type[RulemillError], reason: str) -> None:
    error = write_failure(status, {}, said(body))
    assert type(error) is kind
    assert reason in str(error)


@pytest.mark.parametrize(
    ("body", "dropped"),
    [
        ({"error": "partial write: x dropped=17"}, 17),
        ({"message": "partial write: x dropped=0"}, 0),
        ({"error": "unable to parse"}, None),
        ({"error": "x dropped=many"}, None),
        ({"error": "partial write of line protocol occurred", "data": [{}, {}]}, 2),
    ],
)
def test_how_many_lines_it_dropped(body: Any, dropped: int | None) -> None:
    error = write_failure(400, {}, said(body))
    assert isinstance(error, NotTaken)
    assert error.dropped == dropped


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("", 1, 1), ("7", 7, 7), ("0.5", 0.5, 0.5), ("-3", 0, 0), ("soon", 1, 1), ("99999999999999999999", 1e19, 1e21)],
)
def test_when_to_come_again(text: str, least: float, most: float) -> None:
    assert least <= failure(503, {"Retry-After": text} if text else {}, b"").retry_after_s <= most


def test_when_to_come_again_as_a_date() -> None:
    assert 50 <= failure(429, {"Retry-After": formatdate(time.time() + 60, usegmt=True)}, b"").retry_after_s <= 60
    assert failure(429, {"Retry-After": formatdate(0, usegmt=True)}, b"").retry_after_s == 0


def test_infinity_in_an_answer_is_told_apart() -> None:
    assert type(failure(500, {}, b'{"error":"json: unsupported value: +Inf"}')) is Infinite


def test_long_reasons_keep_both_ends_on_one_line() -> None:
    reason = short("unable to parse 'ts_kv," + "x" * 70_000 + "\n': time outside range")
    assert len(reason) < 600
    assert reason.startswith("unable to parse 'ts_kv,")
    assert reason.endswith("time outside range")
    assert "\n" not in reason


@pytest.mark.parametrize(
    "line", [b"<html>", b'{"results":1}', b'{"results":[{"series":[{"values":[[', b"\xff", b'{"error":"\xff"}']
)
def test_what_is_no_answer_is_no_answer(line: bytes) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        answer(line)


def test_rows_have_their_types() -> None:
    rows = Rows(FieldRow)
    text = b'[[-5,9223372036854775807,-0,true,"-0,","","d",1,-0],[6,null,42,null,null,"[-0]","j",null,null]]'
    found = rows(Series(values=text))  # type: ignore[arg-type]
    assert repr(found) == repr([
        (-5, 2**63 - 1, -0.0, True, "-0,", "", "d", 1.0, -0.0), (6, None, 42.0, None, None, "[-0]", "j", None, None)
    ])  # fmt: skip
    with pytest.raises(StoreUnavailable, match="rows cannot be read"):
        rows(Series(values=b'[["2026-01-01T00:00:00Z"]]'))  # type: ignore[arg-type]


def test_t_names_the_value_and_the_place() -> None:
    def point(t: str | None, lat: float | None = 1.0, lon: float | None = 2.0) -> Point | None:
        return point_of("t", "d", "k", 5, (1, 2.5, True, "s", "[3]", t, lat, lon))

    assert point("l") == Point("t", "d", "k", 5, 1)
    assert point("dg") == Point("t", "d", "k", 5, 2.5, 1.0, 2.0)
    assert point("ba") == Point("t", "d", "k", 5, True, 1.0, None)
    assert point("so") == Point("t", "d", "k", 5, "s", None, 2.0)
    assert point("j?") == Point("t", "d", "k", 5, [3])
    assert point(None) == Point("t", "d", "k", 5, 1)
    assert point_of("t", "d", "k", 5, (None, None, None, None, "{", "j", None, None)) is None


def test_access() -> None:
    found = access("https://u%40x:p%3Aw@[::1]:8086/proxied/", bucket="db/rp", token="T")
    assert found.base == "https://[::1]:8086/proxied"
    assert (found.username, found.password, found.database, found.policy) == ("u@x", "p:w", "db", "rp")
    assert found.is_local
    assert found.bucket == "db/rp"
    assert access("http://localhost").is_local
    assert not access("http://influx.example:8086").is_local
    assert not access("http://10.0.0.1").is_local
