from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes import BadInput
from nodes.log import MAX_CHARACTERS, Log, escaped
from tests.nodes.context import build, emitted, message, run


@pytest.mark.asyncio
async def test_one_line_per_message(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rulemill.log")
    node = build(Log, text="$[t] at ${name}")
    out = await run(node, message({"t": 1}, metadata={"name": "a\nINFO forged"}), message({"t": 2}))
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        ("rulemill.log", "acme main/this one: 1 at a\\nINFO forged")
    ]
    assert "name" in out.failed[1]
    assert len(emitted(out)["Success"]) == 1


@pytest.mark.asyncio
async def test_the_whole_message(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rulemill.log")
    await run(build(Log), message({"t": "ü"}, metadata={"k": "v"}), message(b"\x00"))
    first, second = (record.getMessage() for record in caplog.records)
    assert first.endswith('{"type":"POST_TELEMETRY_REQUEST","originator":"dev1","data":{"t":"ü"},"metadata":{"k":"v"}}')
    assert '"data":"AA=="' in second


@pytest.mark.asyncio
async def test_a_message_fails_the_same_when_nobody_reads_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "rulemill.log")
    out = await run(build(Log, text="${gone}"), message({}))
    assert list(out.failed) == [0]
    assert caplog.records == []


@given(st.text())
def test_a_line_is_one_line_of_bounded_length(text: str) -> None:
    shown = escaped(text)
    assert len(shown.splitlines()) <= 1
    assert shown.isprintable() or not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown)
    shown.encode()


def test_long_text_is_cut_and_says_so() -> None:
    assert escaped("x" * (MAX_CHARACTERS + 5)) == "x" * MAX_CHARACTERS + "… (5 characters more)"
    assert len(escaped("\u202e" * MAX_CHARACTERS)) == 6 * MAX_CHARACTERS


def test_secrets_cannot_be_logged() -> None:
    with pytest.raises(BadInput, match="secret"):
        build(Log, secrets={"X": "x"}, text="${secret:X}")
