from __future__ import annotations

import pytest

from nodes import BadInput, Finding
from nodes.script import Config, ScriptNode
from tests.nodes.context import DictBuild, build, emitted, message, run


@pytest.mark.asyncio
@pytest.mark.spec("G-23")
@pytest.mark.parametrize("config", [example.config for example in ScriptNode.spec.examples])
async def test_the_examples_run(config: dict) -> None:
    out = await run(build(ScriptNode, **config), message({"temperature": 20.0}))
    assert not out.failed
    assert emitted(out)["Success"]


@pytest.mark.asyncio
@pytest.mark.spec("TB-46")
async def test_the_printed_script_gives_one_text_member() -> None:
    source = "return {msg: {time:String(new Date())}, metadata: metadata, msgType: msgType};"
    out = await run(build(ScriptNode, lang="js", source=source), message({}, metadata={"a": "b"}))
    (sent,) = emitted(out)["Success"]
    assert list(sent.data) == ["time"]
    assert isinstance(sent.data["time"], str)
    assert (sent.metadata, sent.type) == ({"a": "b"}, "POST_TELEMETRY_REQUEST")


@pytest.mark.asyncio
async def test_what_is_left_out_stays() -> None:
    given = message(b"\x01", metadata={"a": "b"})
    out = await run(build(ScriptNode, source="return {msgType = 'OTHER'}"), given)
    (sent,) = emitted(out)["Success"]
    assert (sent.data, sent.metadata, sent.type) == (b"\x01", {"a": "b"}, "OTHER")


@pytest.mark.asyncio
async def test_metadata_becomes_text() -> None:
    source = "return {metadata = {s = 'x', i = 7, f = 1.5, w = 42.0, b = true}}"
    out = await run(build(ScriptNode, source=source), message({}))
    (sent,) = emitted(out)["Success"]
    assert sent.metadata == {"s": "x", "i": "7", "f": "1.5", "w": "42.0", "b": "true"}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("return nil", "returned nothing"),
        ("return 5", "returned a number"),
        ("return {{msg = 1}, 'x'}", "returned a text"),
        ("return {temp = 1}", "'temp'"),
        ("return {msgType = ''}", "msgType"),
        ("return {msgType = 5}", "a number as msgType"),
        ("return {metadata = 'x'}", "a text as metadata"),
        ("return {metadata = {a = {}}}", "an object as metadata.a"),
        ("return {metadata = {a = null}}", "nothing as metadata.a"),
        ("\nerror('told')", "line 2: told"),
    ],
)
async def test_what_is_no_message_fails_alone(source: str, reason: str) -> None:
    node = build(ScriptNode, source=f"if msg == 1 then return {{msg = 2}} end {source}")
    out = await run(node, message(1), message(0), message(1))
    assert list(out.failed) == [1]
    assert reason in out.failed[1]
    assert [sent.data for sent in emitted(out)["Success"]] == [2, 2]


@pytest.mark.asyncio
async def test_a_list_makes_several_messages_or_none() -> None:
    node = build(ScriptNode, source="local l = list() for i = 1, msg do l[i] = {msg = i} end return l")
    out = await run(node, message(2), message(0), message(1))
    assert [(i, sent.data) for i, sent in out.emitted["Success"]] == [(0, 1), (0, 2), (2, 1)]
    assert list(out.discarded) == [1]


@pytest.mark.asyncio
async def test_retry_becomes_the_outcome() -> None:
    out = await run(build(ScriptNode, source="retry(3, 'later')"), message({}))
    assert (out.retried[0].reason, out.retried[0].after_s) == ("later", 3)


@pytest.mark.parametrize(
    ("config", "finding"),
    [
        (Config(), Finding("/source", "a script is needed: give source or file")),
        (Config(source="x", file="a.lua"), Finding("/file", "give either source or file, not both")),
        (Config(file="none.lua"), Finding("/file", "no file 'none.lua'")),
    ],
)
def test_a_missing_script_is_found(config: Config, finding: Finding) -> None:
    assert ScriptNode.check(config, DictBuild()) == [finding]


@pytest.mark.parametrize("lang", ["lua", "js"])
def test_a_syntax_error_is_found_with_its_line(lang: str) -> None:
    (inline,) = ScriptNode.check(Config(lang=lang, source=["if (1)", "", "] ["]), DictBuild())
    assert inline.pointer == "/source"
    assert inline.message.startswith("line 3: ")
    (beside,) = ScriptNode.check(Config(lang=lang, file="a"), DictBuild(files={"a": "\n]"}))
    assert beside.pointer == "/file"
    assert beside.message.startswith("line 2: ")


def test_an_unknown_language_is_refused_by_the_schema() -> None:
    with pytest.raises(Exception, match="lang"):
        build(ScriptNode, lang="basic", source="x")
    with pytest.raises(BadInput):
        build(ScriptNode, source="   ")
