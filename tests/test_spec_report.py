from __future__ import annotations

import pytest

from tests.spec_report import defined, report, short


@pytest.mark.parametrize(
    ("line", "ids"),
    [
        ("- **TB-12** The curl of the seed.", ["TB-12"]),
        ("- **CT-S1 Nested values.** See CT-9.", ["CT-S1"]),
        ("**TB-X1 MQTT device API** (`path`)", ["TB-X1"]),
        ("G-2 Start-up fails when two keys are given one address.", ["G-2"]),
        ("### 1.1 Listeners (G-1)", ["G-1"]),
        ("### 1.4 MQTT (G-9): decided at CONNECT", ["G-9"]),
        ("**The MQTT endpoint (G-9b).** No broker.", ["G-9b"]),
        ("`/device` (IT only). G-5: an unknown segment answers 404", ["G-5"]),
        ("- **IT-70..72** Events", ["IT-70", "IT-71", "IT-72"]),
        ("- **TB-S1..S3** Statuses", ["TB-S1", "TB-S2", "TB-S3"]),
        ("as TB-12 says, and G-9", []),
        ("| `ct_http` | 81 | chunk extensions (CT-41) |", []),
    ],
)
def test_definitions_are_told_from_mentions(line: str, ids: list[str]) -> None:
    assert list(defined([line])) == ids


def test_neighbours_become_ranges() -> None:
    ids = ["TB-10", "TB-4", "TB-5", "TB-6", "TB-S1", "TB-S2", "TB-11", "TB-S3", "G-9", "G-9b", "G-10"]
    assert short(ids) == "G-9, G-9b, G-10, TB-4..6, TB-10, TB-11, TB-S1..S3"


def test_the_report_tells_covered_missing_and_unknown() -> None:
    lines = list(report({"TB-1", "TB-99"}, {"TB-1", "TB-2", "CT-1"}))
    assert lines == [
        "CT: 0 of 1 covered",
        "  missing  CT-1",
        "TB: 1 of 2 covered",
        "  missing  TB-2",
        "  unknown  TB-99",
        "  covered  TB-1",
    ]


def test_without_a_specification_the_covered_ones_are_listed() -> None:
    assert list(report({"TB-1", "CT-2"}, None)) == [
        "CT: 1 covered",
        "  covered  CT-2",
        "TB: 1 covered",
        "  covered  TB-1",
    ]
