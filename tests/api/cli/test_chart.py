"""Charts hold whatever is measured, within the width they are given."""

from __future__ import annotations

from datetime import UTC

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.cli.chart import Frame, Line, chart

NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1)


@given(
    st.lists(st.lists(NUMBERS, min_size=1, max_size=20), min_size=1, max_size=3),
    st.integers(20, 120), st.integers(3, 30), st.integers(-(10**14), 10**14), st.integers(1, 10**13),
)  # fmt: skip
@settings(deadline=None, max_examples=200)
def test_any_numbers_fit(lines: list[list[float]], width: int, height: int, start_ms: int, span_ms: int) -> None:
    step = max(1, span_ms // 20)
    given_lines = [
        Line(f"line {i}", [(start_ms + n * step, value) for n, value in enumerate(values)])
        for i, values in enumerate(lines)
    ]
    frame = Frame(start_ms, start_ms + span_ms, step, width, height, UTC)
    rows = chart(given_lines, frame, coloured=False)
    assert len(rows) == len(lines) * (height + 3)
    drawn = [row for i, row in enumerate(rows) if i % (height + 3) < height + 2]
    side = max(row.find(mark) for row in drawn for mark in "│┤")
    assert all(len(row) <= max(width, side + 14) for row in drawn)
    assert any("\u2800" < char <= "\u28ff" for row in drawn for char in row)
    assert [row for row in chart(given_lines, frame, coloured=True) if "━━" in row]


@pytest.mark.parametrize(
    ("values", "rows_of_values"),
    [
        ([1.634266486238469e308], [2]),
        ([-1.7976931348623157e308, 1.7976931348623157e308], [4, 0]),
        ([0.0, 5e-324], [4, 0]),
        ([2**63 - 2, 2**63 - 1], [2, 2]),
        ([2**63 - 1, float(2**63)], [2, 2]),
    ],
)
def test_numbers_at_the_ends_of_what_there_is(values: list[float], rows_of_values: list[int]) -> None:
    rows = drawn([(n * 90, value) for n, value in enumerate(values)], 10)
    found = sorted((x, y) for y, row in enumerate(rows) for x, char in enumerate(row) if "\u2800" < char <= "\u28ff")
    assert [y for _, y in found] == rows_of_values


def drawn(points: list[tuple[int, float]], join_ms: int) -> list[str]:
    return chart([Line("x", points)], Frame(0, 100, join_ms, 30, 5, UTC), coloured=False)[:5]


def test_the_highest_is_at_the_top_and_the_lowest_at_the_bottom() -> None:
    rows = drawn([(0, 0.0), (99, 10.0)], 1000)
    assert "10" in rows[0]
    assert "0" in rows[4]
    columns = [[x for x, char in enumerate(row) if char > "\u2800"] for row in rows]
    assert max(columns[4]) < min(columns[0])


def test_what_lies_too_far_apart_is_not_joined() -> None:
    def dots(rows: list[str]) -> int:
        return sum((ord(char) - 0x2800).bit_count() for row in rows for char in row if "\u2800" < char <= "\u28ff")

    points = [(0, 0.0), (50, 5.0), (99, 10.0)]
    assert dots(drawn(points, 10)) == 3
    assert dots(drawn(points, 50)) > 20
