from __future__ import annotations

import pytest

from nodes import Finding
from nodes.filter import Config, Filter
from tests.nodes.context import DictBuild, build, emitted, message, run


@pytest.mark.asyncio
@pytest.mark.spec("G-23")
@pytest.mark.parametrize(
    ("lang", "source"), [("lua", "return msg.temperature > 40"), ("js", "return msg.temperature > 40;")]
)
async def test_a_condition_parts_the_batch(lang: str, source: str) -> None:
    batch = [message({"temperature": t}) for t in (41, 40, 39.5, 40.5)]
    out = await run(build(Filter, lang=lang, source=source), *batch)
    assert emitted(out) == {"True": [batch[0], batch[3]], "False": [batch[1], batch[2]]}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("source", "what"),
    [("return 1", "a number"), ("", "nothing"), ("return 'true'", "a text"), ("return {}", "an object")],
)
async def test_anything_but_a_boolean_fails(source: str, what: str) -> None:
    out = await run(build(Filter, source=f"if msg then return true end {source}"), message(True), message(False))
    assert out.failed == {1: f"the script returned {what}: a filter returns true or false"}
    assert len(emitted(out)["True"]) == 1


@pytest.mark.asyncio
async def test_the_examples_run() -> None:
    for example in Filter.spec.examples:
        out = await run(build(Filter, **example.config), message({"temperature": 50}))
        assert not out.failed


def test_a_syntax_error_is_found() -> None:
    (found,) = Filter.check(Config(source="return >"), DictBuild())
    assert found == Finding("/source", "line 1: unexpected symbol near '>'")
