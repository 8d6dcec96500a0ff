from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

import click
import pytest

from api.cli.arguments import loose_json, moment, pairs, read_json, read_text
from api.cli.output import Failed


@pytest.mark.parametrize(
    ("text", "ago_ms"),
    [("now", 0), ("-30s", 30_000), ("90m", 5_400_000), ("-1.5h", 5_400_000), ("-7d", 604_800_000), ("1w", 604_800_000)],
)
def test_times_that_count_from_now(text: str, ago_ms: int) -> None:
    before = time.time_ns() // 1_000_000 - ago_ms
    found = moment(text)
    assert before <= found <= time.time_ns() // 1_000_000 - ago_ms


@pytest.mark.parametrize(
    ("text", "ts_ms"),
    [
        ("2026-01-31T12:00:00+01:00", 1_769_857_200_000),
        ("2026-01-31T12:00:00.5Z", 1_769_860_800_500),
        ("1769857200123", 1_769_857_200_123),
        ("-999999999", -999_999_999),
    ],
)
def test_times_that_stand_by_themselves(text: str, ts_ms: int) -> None:
    assert moment(text) == ts_ms


def test_a_time_without_an_offset_is_local() -> None:
    assert moment("2026-01-31") == datetime(2026, 1, 31).astimezone().timestamp() * 1000


@pytest.mark.parametrize("text", ["", "yesterday", "-1y", "1h2m", "2026-13-01", "--1h"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no time"):
        moment(text)


@pytest.mark.parametrize(
    ("text", "reason"), [("{", "line 1"), ("NaN", "NaN is not a JSON number"), ("[" * 100_000, "nested too deep")]
)
def test_what_is_no_json(text: str, reason: str) -> None:
    with pytest.raises(Failed, match=f"--message is no JSON: .*{reason}"):
        read_json(text, "--message")


def test_texts_and_files(tmp_path: Path) -> None:
    (tmp_path / "good").write_text("grün")
    (tmp_path / "bad").write_bytes(b"\xff")
    assert read_text("plain", "it") == "plain"
    assert read_text(f"@{tmp_path / 'good'}", "it") == "grün"
    for name, reason in (("bad", "is not UTF-8 text"), ("missing", "cannot be read: No such file")):
        with pytest.raises(Failed, match=f"it: .*{name} {reason}"):
            read_text(f"@{tmp_path / name}", "it")


def test_pairs() -> None:
    assert pairs(("a=1", "b=x=y", "c="), "--set") == {"a": "1", "b": "x=y", "c": ""}
    for bad in ("a", "=1"):
        with pytest.raises(Failed, match="--set takes key=value"):
            pairs((bad,), "--set")


@pytest.mark.parametrize(("text", "value"), [("21.5", 21.5), ("true", True), ("eco", "eco"), ("NaN", "NaN"), ("", "")])
def test_loose_json(text: str, value: object) -> None:
    assert loose_json(text) == value
    assert type(loose_json(text)) is type(value)
