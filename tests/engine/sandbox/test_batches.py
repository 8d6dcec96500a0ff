"""A batch gives each message what it would get alone: its values, its limits, its failure, and no other's globals."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ScriptError
from engine.outcomes import Retry
from engine.sandbox.script import Call, compile_script
from tests.engine.sandbox.calling import NOW_MS, run_all

MIXED = {
    "lua": """
    if msg % 7 == 3 then error('no ' .. msg) end
    if msg % 11 == 5 then retry(msg, 'later') end
    if msg % 13 == 6 then return {msg, 0 / 0} end
    if msg % 5 == 0 then return nil end
    return {msg, 'x', null}
    """,
    "js": """
    if (msg % 7 === 3) throw new Error('no ' + msg);
    if (msg % 11 === 5) retry(msg, 'later');
    if (msg % 13 === 6) return [msg, 0 / 0];
    if (msg % 5 === 0) return null;
    return [msg, 'x', null];
    """,
}


def expected(n: int) -> object:
    if n % 7 == 3:
        return "failed", f"no {n}"
    if n % 11 == 5:
        return "retry", n
    if n % 13 == 6:
        return "failed", "nan"
    return None if n % 5 == 0 else [n, "x", None]


def told(result: object) -> object:
    if isinstance(result, ScriptError):
        return "failed", "nan" if "nan" in str(result).lower() else result.reason
    return ("retry", result.after_s) if isinstance(result, Retry) else result


@pytest.mark.parametrize("lang", ["lua", "js"])
@pytest.mark.parametrize("size", [1, 99, 100, 101, 350])
def test_each_message_gets_its_own_outcome(lang: str, size: int) -> None:
    results = run_all(lang, MIXED[lang], list(range(size)))
    assert [told(result) for result in results] == [expected(n) for n in range(size)]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 20), max_size=12))
def test_messages_alone_give_what_they_give_together(numbers: list[int]) -> None:
    script = compile_script("lua", MIXED["lua"], name="mixed")
    calls = [Call(n, {}, "T", NOW_MS) for n in numbers]
    alone = [told(script.run([call], lambda: None)[0]) for call in calls]
    assert [told(result) for result in script.run(calls, lambda: None)] == alone


@pytest.mark.parametrize(
    ("lang", "source"),
    [
        ("lua", "return {metadata.k, msgType}"),
        ("lua", "return {_ENV['meta' .. 'data'].k, _ENV['msg' .. 'Type']}"),
        ("lua", "return {(...)['meta' .. 'data'].k, (...)['msg' .. 'Type']}"),
        ("lua", "local f = function(k) return _ENV[k] end return {f('meta' .. 'data').k, f('msg' .. 'Type')}"),
        ("js", "return [metadata.k, msgType]"),
        ("js", "return [arguments[1].k, arguments[2]]"),
        ("js", "return [met\\u0061data.k, msg\\u0054ype]"),
        ("js", "return [met\\u{61}data.k, msg\\u{54}ype]"),
    ],
)
def test_every_way_to_metadata_and_type_leads_there(lang: str, source: str) -> None:
    script = compile_script(lang, source, name="all")
    calls = [Call(n, {"k": f"v{n}"}, f"T{n}", NOW_MS) for n in range(3)]
    assert script.run(calls, lambda: None) == [["v0", "T0"], ["v1", "T1"], ["v2", "T2"]]


def test_calls_of_different_times_see_their_own() -> None:
    for lang in ("lua", "js"):
        script = compile_script(lang, "return now()", name="clock")
        times = [5, 5, 6, 5]
        assert script.run([Call(None, {}, "T", at) for at in times], lambda: None) == times


@pytest.mark.spec("G-23")
@pytest.mark.parametrize(
    "leave",
    [
        "seen = 1",
        "_ENV.seen = 1",
        "(...).seen = 1",
        "msg = nil; msg = 1; seen = 1",
        "local function set(t) t.seen = 1 end set(_ENV)",
        "table.insert(_ENV, 1)",
        "table.move({1, 2}, 1, 2, 1, _ENV)",
        "function seen() end",
        "string = nil; math = 5",
        "pcall(function() seen = 1 error('x') end)",
        "seen = 1 error('x')",
        "seen = 1 retry(1, 'x')",
        "msg, metadata, msgType = nil",
        "for k in pairs(_ENV) do _ENV[k] = nil end",
        "if not msg then local t = {} while true do t[#t + 1] = {} end end seen = 1",
    ],
)
def test_no_global_outlives_its_message(leave: str) -> None:
    source = f"""
    if seen ~= nil or _ENV[1] ~= nil or string.rep == nil or math == 5 then return 'left behind' end
    local names = 0
    for _ in pairs(_ENV) do names = names + 1 end
    if names ~= 3 or metadata.k ~= 'v' or msgType ~= 'T' then return 'changed' end
    if msg == 0 then {leave}; return 0 end
    return msg
    """
    results = run_all("lua", source, [1, 0, 2, 0, 0, 3])
    assert [results[0], results[2], results[5]] == [1, 2, 3]
    assert not {"left behind", "changed"} & {result for result in results if isinstance(result, str)}


@pytest.mark.spec("G-23")
def test_each_message_of_a_batch_has_the_whole_budget() -> None:
    source = "local stop = os.clock() + 0.06 repeat until os.clock() > stop return msg"
    signs: list[int] = []
    script = compile_script("lua", source, name="slow", budget_s=0.3)
    results = script.run([Call(n, {}, "T", NOW_MS) for n in range(10)], lambda: signs.append(1))
    assert results == list(range(10))
    assert len(signs) > 2  # a chunk is left once it took long, so that a watchdog hears of the work


@pytest.mark.spec("G-23")
def test_each_message_of_a_batch_has_the_memory() -> None:
    source = "local a, b = ('x'):rep(4e6), ('y'):rep(4e6) return #a + #b + msg"
    assert run_all("lua", source, list(range(25)), budget_s=5) == [8_000_000 + n for n in range(25)]


def test_large_results_of_a_batch_have_their_limit_each() -> None:
    source = "return ('x'):rep(msg)"
    sizes = [900_000, 1_200_000, 900_000, 5, 2_000_000] * 5
    results = run_all("lua", source, sizes, budget_s=5)
    for size, result in zip(sizes, results, strict=True):
        if size > 1 << 20:
            assert isinstance(result, ScriptError)
            assert "larger than 1048576" in result.reason
        else:
            assert result == "x" * size


@pytest.mark.parametrize("lang", ["lua", "js"])
def test_large_messages_keep_their_order(lang: str) -> None:
    msgs = [{"n": n, "s": "x" * (50_000 if n % 3 else 5)} for n in range(60)]
    assert run_all(lang, "return msg", msgs, budget_s=5) == msgs


def test_every_integer_that_is_too_wide_is_named_in_its_own_message() -> None:
    msgs = [{"n": 1 << (60 + n % 6)} for n in range(130)]
    for msg, result in zip(msgs, run_all("lua", "return msg.n", msgs), strict=True):
        if msg["n"] < 1 << 63:
            assert result == msg["n"]
        else:
            assert isinstance(result, ScriptError)
            assert "msg.n is an integer beyond 64 bits" in result.reason


def test_text_that_is_no_unicode_fails_its_message() -> None:
    for lang in ("lua", "js"):
        first, wrong, last = run_all(lang, "return 1", ["a", "\ud800", "b"])
        assert (first, last) == (1, 1)
        assert isinstance(wrong, ScriptError)


def test_results_that_grow_without_end_fail_alone() -> None:
    source = "if msg > 0 then return msg end local t = {1} for _ = 1, 40 do t = {t, t} end return t"
    results = run_all("lua", source, [1, 0, 2, 0, 3])
    assert results[::2] == [1, 2, 3]
    assert all(isinstance(result, ScriptError) for result in results[1::2])


@pytest.mark.parametrize(
    "thrown", ["{refused = {}}", "{refused = error}", "{problem = {}, line = {}}", "{message = {}}"]
)
def test_an_error_object_gives_the_host_nothing_but_text(thrown: str) -> None:
    first, result, last = run_all("lua", f"if msg > 0 then return msg end error({thrown})", [1, 0, 2])
    assert (first, last) == (1, 2)
    assert isinstance(result, ScriptError)
    assert "without a message" in result.reason
