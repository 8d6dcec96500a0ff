"""Values keep their type through a script; both languages give the same results and tell the user's own lines."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ScriptError
from engine.outcomes import Retry
from engine.sandbox.script import Call, check_script, compile_script
from tests.engine.sandbox.calling import IDENTITY, NOW_MS, run, run_all

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
EXACT = st.integers(-(1 << 53) + 1, (1 << 53) - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=("Cs",)))


def values(numbers: st.SearchStrategy) -> st.SearchStrategy:
    scalars = st.none() | st.booleans() | numbers | TEXT
    return st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=20)


LUA = compile_script("lua", IDENTITY, name="identity")
JS = compile_script("js", "return {msg: msg, metadata: metadata, msgType: msgType};", name="identity")


def typed(value: object) -> object:
    """A form in which 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return {key: typed(member) for key, member in value.items()}
    if isinstance(value, list):
        return [typed(member) for member in value]
    return type(value), value


@pytest.mark.spec("G-23")
@settings(deadline=None)
@given(values(INT64 | FLOATS), st.dictionaries(TEXT, TEXT), TEXT)
def test_lua_gives_back_what_came_in(msg: object, metadata: dict[str, str], kind: str) -> None:
    (found,) = LUA.run([Call(msg, metadata, kind, NOW_MS)], lambda: None)
    assert typed(found) == typed({"msg": msg, "metadata": metadata, "msgType": kind})


@pytest.mark.spec("G-23")
@settings(deadline=None)
@given(values(EXACT | FLOATS.filter(lambda x: not x.is_integer())), st.dictionaries(TEXT, TEXT), TEXT)
def test_js_gives_back_what_came_in(msg: object, metadata: dict[str, str], kind: str) -> None:
    (found,) = JS.run([Call(msg, metadata, kind, NOW_MS)], lambda: None)
    assert typed(found) == typed({"msg": msg, "metadata": metadata, "msgType": kind})


def test_numbers_of_lua_keep_their_kind() -> None:
    found = run("lua", "return {msg.i, msg.f, msg.i * 2, msg.i / 1, 42.0, 7 // 2}", {"i": 73, "f": 42.0})
    assert typed(found) == typed([73, 42.0, 146, 73.0, 42.0, 3])


def test_integral_numbers_of_js_are_integers_as_long_as_they_are_exact() -> None:
    found = run("js", "return [42.0, msg, 1.5, 2 ** 53 - 1, 2 ** 53, 1e20]", 42.0)
    assert typed(found) == typed([42, 42, 1.5, 2**53 - 1, float(2**53), 1e20])


@pytest.mark.parametrize(
    ("lang", "number", "limit"), [("lua", 2**63, "64 bits"), ("lua", 2**70, "64 bits"), ("js", 2**53, "2^53")]
)
def test_an_integer_that_does_not_fit_is_named(lang: str, number: int, limit: str) -> None:
    results = run_all(lang, "return 1", [{"n": 1}, {"a": [{"b": number}]}, {"n": 2}])
    assert results[::2] == [1, 1]
    assert isinstance(results[1], ScriptError)
    assert "msg.a[0].b" in results[1].reason
    assert limit in results[1].reason


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("return {}", {}),
        ("return list()", []),
        ("return msg.empty", []),
        ("table.remove(msg.one) return msg.one", []),
        ("return list({1, 2})", [1, 2]),
        ("return {msg.none, null}", [None, None]),
        ("return msg.none == null", True),
        ("return tostring(null)", "null"),
        ("return #msg.one", 1),
        ("return nil", None),
        ("", None),
    ],
)
def test_lists_and_nulls_of_lua(source: str, value: object) -> None:
    assert typed(run("lua", source, {"empty": [], "one": [1], "none": None})) == typed(value)


@pytest.mark.spec("CT-S19")
@pytest.mark.parametrize(
    ("lang", "source"),
    [
        ("lua", "return {{key = 'temp', value = msg.bytes[2]}, msg.hex, msg.raw_b64}"),
        ("js", "return [{key: 'temp', value: msg.bytes[1]}, msg.hex, msg.raw_b64];"),
    ],
)
def test_bytes_are_shown_in_three_forms(lang: str, source: str) -> None:
    assert run(lang, source, b"\x01\x25") == [{"key": "temp", "value": 37}, "0125", "ASU="]


@pytest.mark.parametrize(
    ("lang", "source", "line"),
    [
        ("lua", "local a = 1\n\nreturn msg.x.y", 3),
        ("lua", "\nlocal function f()\n  error('no')\nend\nf()", 3),
        ("lua", "\r\n\r\nassert(false, 'no')", 3),
        ("lua", "\nlocal x = ('a'):rep(1e9)", 2),
        ("lua", "\nlocal x = ('a'):rep({})", 2),
        ("js", "let a = 1;\n\nreturn msg.x.y;", 3),
        ("js", "\nconst f = () => {\n  throw new Error('no');\n};\nf();", 3),
        ("js", "\n\nreturn new Array(4e9).reverse();", 3),
    ],
)
def test_a_failure_names_the_line_of_the_users_source(lang: str, source: str, line: int) -> None:
    result = run(lang, source, {})
    assert isinstance(result, ScriptError)
    assert result.line == line


@pytest.mark.parametrize(
    ("lang", "source", "line"),
    [
        ("lua", "if x then\n  y =\nend", 3),
        ("lua", "x = 'open", 1),
        ("lua", "\nreturn }", 2),
        ("lua", "\x1bLua", 1),
        ("js", "if (x) {\n  y = ;\n}", 2),
        ("js", "\n\nconst = 1", 3),
        ("js", "with (msg) { }", 1),
    ],
)
def test_a_syntax_error_names_the_line(lang: str, source: str, line: int) -> None:
    with pytest.raises(ScriptError) as caught:
        check_script(lang, source)
    assert caught.value.line == line


def test_what_is_no_script_at_all_is_refused() -> None:
    with pytest.raises(ScriptError, match="unknown language 'basic'"):
        check_script("basic", "PRINT 1")
    for lang in ("lua", "js"):
        with pytest.raises(ScriptError, match="longer than"):
            check_script(lang, " " * 300_000)
        with pytest.raises(ScriptError, match="more than 10000 lines"):
            check_script(lang, "\n" * 10_000)
        with pytest.raises(ScriptError, match="Unicode"):
            check_script(lang, "return '\ud800'")


@pytest.mark.spec("TB-46", "G-23")
def test_the_printed_time_scripts_run() -> None:
    lua = 'return {msg = {time = os.date("%Y %m %d %H:%M:%S")}, metadata = metadata, msgType = msgType}'
    js = "return {msg: {time:String(new Date())}, metadata: metadata, msgType: msgType};"
    for found in (run("lua", lua), run("js", js)):
        assert found["metadata"] == {"k": "v"}
        assert found["msgType"] == "T"
        assert "2023" in found["msg"]["time"]


def test_the_clock_of_a_script_is_its_messages() -> None:
    assert run("lua", "return {now(), os.time()}") == [NOW_MS, NOW_MS // 1000]
    assert run("js", "return [now(), Date.now(), new Date().getTime(), new Date(5).getTime()]") == [NOW_MS] * 3 + [5]


@pytest.mark.parametrize(
    ("lang", "source"),
    [
        ("lua", "if msg == 1 then return 1 end retry(2.5, 'busy')"),
        ("lua", "if msg == 1 then return 1 end pcall(retry, 2.5, 'busy') return 2"),
        ("js", "if (msg === 1) return 1; retry(2.5, 'busy')"),
        ("js", "if (msg === 1) return 1; try { retry(2.5, 'busy') } catch (e) {} return 2"),
    ],
)
def test_retry_is_asked_for_one_message(lang: str, source: str) -> None:
    first, asked, last = run_all(lang, source, [1, 0, 1])
    assert (first, last) == (1, 1)
    assert isinstance(asked, Retry)
    assert (asked.reason, asked.after_s) == ("busy", 2.5)


@pytest.mark.parametrize("lang", ["lua", "js"])
@pytest.mark.parametrize("seconds", ["-1", "'soon'", "1 / 0"])
def test_retry_takes_seconds(lang: str, seconds: str) -> None:
    result = run(lang, f"retry({seconds}, 'busy')")
    assert isinstance(result, ScriptError)
    assert "retry takes seconds" in result.reason


def test_a_message_leaves_nothing_behind() -> None:
    lua = "local before = seen; seen = msg; return before == nil"
    assert run_all("lua", lua, [1, 2, 3]) == [True, True, True]
    js = "try { globalThis.seen = msg } catch (e) {} return typeof seen === 'undefined'"
    assert run_all("js", js, [1, 2, 3]) == [True, True, True]


PATTERNS = st.text(st.sampled_from("ab.%d*+-?()[]^$"), max_size=8)


@settings(deadline=None, max_examples=200)
@given(st.text(st.sampled_from("ab1-"), max_size=12), PATTERNS)
def test_bounding_a_pattern_does_not_change_what_it_finds(subject: str, pattern: str) -> None:
    """The bounded find is compared with what `lupa` alone gives."""
    from lupa import lua54

    plain = lua54.LuaRuntime(register_eval=False, register_builtins=False)
    find = plain.eval("function(s, p) local ok, a, b = pcall(string.find, s, p) return {ok, a, b} end")
    expected = find(subject, pattern)
    got = run(
        "lua",
        "local ok, a, b = pcall(string.find, msg.s, msg.p) return {ok, ok and a or null, ok and b or null}",
        {"s": subject, "p": pattern},
    )
    assert got == ([True, expected[2], expected[3]] if expected[1] else [False, None, None])


def test_patterns_for_times_and_lists_are_not_too_costly() -> None:
    source = """
    local y, m, d = msg.t:match("^(%d+)-(%d+)-(%d+)T(%d+):(%d+):(%d+)%.?%d*Z$")
    local n = 0
    for _ in msg.csv:gmatch("[^,]+") do n = n + 1 end
    return {y, m, d, n, (msg.t:gsub("%s+$", "")), msg.long:match("^%s*(.-)%s*$") == msg.long}
    """
    msg = {"t": "2026-01-02T03:04:05.678Z", "csv": ",".join(["12.5"] * 400), "long": "x" * 200}
    assert run("lua", source, msg) == ["2026", "01", "02", 400, msg["t"], True]


def test_not_a_number_is_not_passed_as_an_answer() -> None:
    for lang, source in (("lua", "return {a = {b = 0 / 0}}"), ("js", "return {a: {b: 0 / 0}}")):
        result = run(lang, source)
        assert isinstance(result, ScriptError)
        assert "a.b is" in result.reason
    assert run("js", "return {a: null}") == {"a": None}
    assert math.isclose(run("js", "return 0.1 + 0.2"), 0.3)


@pytest.mark.spec("G-23")
@pytest.mark.parametrize(
    ("lang", "source"),
    [
        ("lua", "if msg == 1 then return 1 end local t = {} while true do t[#t + 1] = {} end"),
        ("js", "if (msg === 1) return 1; const a = []; for (;;) a.push('x'.repeat(100) + a.length);"),
    ],
)
def test_memory_is_a_budget_of_its_own(lang: str, source: str) -> None:
    results = run_all(lang, source, [1, 0, 1], budget_s=20)
    assert results[::2] == [1, 1]
    assert isinstance(results[1], ScriptError)
    assert results[1].reason == "memory budget of 16 MiB exceeded"
