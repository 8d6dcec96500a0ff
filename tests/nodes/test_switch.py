from __future__ import annotations

import pytest

from nodes.switch import Config, Switch
from tests.nodes.context import DictBuild, build, emitted, message, run


@pytest.mark.asyncio
@pytest.mark.spec("G-23")
@pytest.mark.parametrize(("lang", "source"), [("lua", "return msg"), ("js", "return msg;")])
async def test_names_lead_on(lang: str, source: str) -> None:
    batch = [message("hot"), message(["hot", "cold", "hot"]), message([])]
    out = await run(build(Switch, lang=lang, source=source), *batch)
    assert emitted(out) == {"hot": batch[:2], "cold": [batch[1]]}
    assert out.discarded == {2: "the script named no relation"}


@pytest.mark.asyncio
async def test_an_empty_table_of_lua_is_an_empty_list() -> None:
    out = await run(build(Switch, source="return {}"), message(1))
    assert list(out.discarded) == [0]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("return nil", "nothing"),
        ("return true", "a boolean"),
        ("return {a = 1}", "an object"),
        ("return {'a', 1}", "a number among"),
        ("return ''", "an empty text among"),
    ],
)
async def test_anything_but_names_fails(source: str, what: str) -> None:
    out = await run(build(Switch, source=f"if msg then return 'ok' end {source}"), message(False), message(True))
    assert list(out.failed) == [0]
    assert what in out.failed[0]
    assert len(emitted(out)["ok"]) == 1


@pytest.mark.asyncio
async def test_the_examples_run() -> None:
    for example in Switch.spec.examples:
        out = await run(build(Switch, **example.config), message({"temperature": 50}, metadata={"model": "x"}))
        assert not out.failed


def test_any_label_may_come() -> None:
    assert build(Switch, source="return msg").relations() is None
    assert Switch.check(Config(source="return ("), DictBuild())[0].pointer == "/source"
