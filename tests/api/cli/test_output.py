from __future__ import annotations

import json
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cli import output


@given(st.text(max_size=40))
def test_nothing_that_is_shown_steers_the_terminal(text: str) -> None:
    assert output.plain(text).isprintable()
    assert not any(0x7F <= ord(char) < 0xA0 or ord(char) < 0x20 for char in output.as_json(text))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_json_is_still_json(value: object) -> None:
    assert json.loads(output.as_json(value)) == value


@given(st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), min_size=1, max_size=5))
def test_a_table_has_one_line_for_each_row(rows: list[tuple[str, str]]) -> None:
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output.click, "echo", lines.append)
        output.print_table(("LEFT", "RIGHT"), rows, right=("RIGHT",))
    assert len(lines) == len(rows) + 1
    assert not any(line != line.rstrip() for line in lines)


def test_columns_are_aligned_whatever_the_width_of_characters(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("A", "B"), [("温度", "x"), ("temp", "y"), ("e\u0301", "z")])
    assert capsys.readouterr().out.splitlines() == ["A     B", "温度  x", "temp  y", "e\u0301     z"]


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")])
def test_size(count: int, text: str) -> None:
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("duration_ms", "text"), [(0, "0.0 s"), (59_999, "60.0 s"), (61_000, "1 min 1 s"), (7_260_000, "2 h 1 min")]
)
def test_seconds(duration_ms: int, text: str) -> None:
    assert output.seconds(duration_ms) == text


def test_times() -> None:
    assert output.local_time(0) == ""
    assert output.local_time(9_007_199_254_740_991) == "9007199254740991 ms"
    shown = [output.local_time(1_700_000_000_123, spec) for spec in ("seconds", "milliseconds")]
    assert [datetime.fromisoformat(each).timestamp() for each in shown] == [1_700_000_000, 1_700_000_000.123]
    assert all(datetime.fromisoformat(each).tzinfo is not None for each in shown)
