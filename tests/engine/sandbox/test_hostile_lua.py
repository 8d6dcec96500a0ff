"""Hostile Lua: each script fails alone, its neighbours get their results, the process lives on."""

from __future__ import annotations

import pytest

from engine.errors import ScriptError
from tests.engine.sandbox.calling import among_neighbours

TIME = "time budget"
MEMORY = "budget of"  # on a slow machine the time is over before the memory

LIMITS = {
    "endless loop": ("while true do end", TIME),
    "endless repeat": ("repeat until false", TIME),
    "endless goto": ("::again:: goto again", TIME),
    "numeric for": ("for i = 1, math.maxinteger do end", TIME),
    "loop in pcall": ("while true do pcall(function() while true do end end) end", TIME),
    "pcall that ignores the limit": ("pcall(function() while true do end end) return 'got away'", TIME),
    "pcall of pcall": ("while true do pcall(pcall, pcall, function() while true do end end) end", TIME),
    "tail calls": ("local function f() return f() end return f()", TIME),
    "mutual recursion in pcall": ("local f f = function() pcall(f) pcall(f) end f()", ""),
    "loop in a sort comparison": ("table.sort({3, 2, 1}, function() while true do end end)", TIME),
    "loop in a gsub callback": ("return ('abc'):gsub('.', function() while true do end end)", TIME),
    "loop around an iterator": ("for _ in function() return 1 end do end", TIME),
    "many small patterns": ("while true do ('abc'):find('b') end", TIME),
    "many sorts": (
        "local t = {} for i = 1, 2000 do t[i] = -i end while true do table.sort(t, math.ult) end",
        TIME,
    ),
    "shifting a long table": (
        "local t = {} for i = 1, 50000 do t[i] = i end while true do table.insert(t, 1, 0) end",
        "",
    ),
    "moving nothing for ever": ("while true do table.move({}, 1, 1e6, 2) end", TIME),
    "long searches": ("local s = ('a'):rep(1e6) while true do s:find('b', 1, true) end", TIME),
    "growing table": ("local t = {} while true do t[#t + 1] = {} end", MEMORY),
    "doubling text": ("local s = 'x' while true do s = s .. s end", MEMORY),
    "concat bomb": (
        "local t = {} for i = 1, 1000 do t[i] = ('x'):rep(100000) end while true do t[1] = table.concat(t) end",
        "",
    ),
    "gsub bomb": ("return ('x'):rep(1e6):gsub('.', ('y'):rep(1000))", MEMORY),
    "format bomb": ("local s = ('x'):rep(1e6) while true do s = string.format('%s%s', s, s) end", MEMORY),
    "padding by pack": ("return #string.pack('c1000000000', 'x')", MEMORY),
    "closures without end": ("local f while true do local g = f f = function() return g end end", MEMORY),
    "deep recursion": ("local function f() return 1 + f() end return f()", ""),
    "deep recursion of a local with arguments": ("local function f(...) return f(1, ...) + 1 end return f()", ""),
    "rep bomb": ("return ('x'):rep(1e9)", "rep makes at most"),
    "rep of nothing": ("return ('').rep('', 1e15):find('a') == nil and error('survived')", "survived"),
    "rep with separator": ("return ('x'):rep(1e6, ('y'):rep(1e6))", "rep makes at most"),
    "optional pattern": ("local r = ('a'):rep(28):match(('a?'):rep(28) .. ('a'):rep(28)) return r", "too costly"),
    "stars in a row": ("local r = ('a'):rep(5000):find(('.-'):rep(6) .. 'b') return r", "too costly"),
    "gmatch that backtracks": ("for _ in ('a'):rep(5000):gmatch('.*.*.*b') do end", "too costly"),
    "gsub that backtracks": ("local r = ('a'):rep(5000):gsub('.*.*.*b', '') return r", "too costly"),
    "captures that backtrack": ("local r = ('a'):rep(9000):match('(.*)(.*)(.*)%1b') return r", "too costly"),
    "plain search of the worst kind": (
        "local r = ('a'):rep(2e5):find(('a'):rep(1e5) .. 'b', 1, true) return r",
        "too costly",
    ),
    "long pattern": ("local r = ('a'):find(('[a]'):rep(1000)) return r", "longer than 1024"),
    "length of a sparse table": (
        "local t = {} for i = 0, 62 do t[1 << i] = 1 end table.insert(t, 1, 0) error('survived')",
        "",
    ),
    "unpack without end": ("return table.unpack({}, 1, 1e8)", "at most 65536"),
    "bytes without end": ("local s = ('x'):rep(1e6) local a = {s:byte(1, -1)} return #a", "at most 65536"),
    "bytes counted from behind": (
        "local s = ('x'):rep(1e6) local a = {s:byte(-1000000, -1)} return #a",
        "at most 65536",
    ),
    "codepoints without end": ("local s = ('x'):rep(1e6) return #{utf8.codepoint(s, 1, -1)}", "at most 65536"),
    "table.move without end": ("table.move({1}, 1, 1e15, 2)", "at most 1000000"),
    "long date format": ("return os.date(('%c'):rep(1e5))", "date format"),
    "long number format": ("return string.format(('%d'):rep(1e5), 1)", "longer than 4096"),
    "width of a format": ("return string.format('%999999999d', 1)", "invalid"),
}

FORBIDDEN = {
    "io": "return io.open('/etc/passwd')",
    "os.execute": "return os.execute('true')",
    "os.getenv": "return os.getenv('HOME')",
    "os.exit": "return os.exit(1)",
    "os.remove": "return os.remove('/tmp/none')",
    "os.setlocale": "return os.setlocale('C')",
    "require": "return require('os')",
    "package": "return package.loadlib('x', 'y')",
    "debug": "return debug.getregistry()",
    "load": "return load('return 1')()",
    "load of bytecode": "return load('\\27Lua', 'x', 'b')",
    "loadstring": "return loadstring('return 1')()",
    "dofile": "return dofile('/etc/passwd')",
    "loadfile": "return loadfile('/etc/passwd')",
    "string.dump": "return string.dump(function() end)",
    "dump by a text": "return ('').dump(function() end)",
    "collectgarbage": "return collectgarbage('stop')",
    "coroutine": "return coroutine.wrap(function() while true do end end)()",
    "python": "return python.eval('1')",
    "python.builtins": "return python.builtins.open('/etc/passwd')",
    "setmetatable with __gc": "setmetatable({}, {__gc = function() while true do end end})",
    "setmetatable with __close": "local x <close> = setmetatable({}, {__close = function() while true do end end})",
    "getmetatable of texts": "getmetatable('').__index = nil",
    "rawset": "rawset(string, 'rep', nil)",
    "setting string": "string.rep = nil",
    "setting math": "math.huge = 1",
    "setting by table.insert": "table.insert(string, 1)",
    "listing a library": "list(string)",
    "setting null": "null.x = 1",
    "xpcall": "xpcall(error, function() while true do end end)",
    "warn": "warn('@on')",
    "randomseed": "math.randomseed(1)",
    "close without metatable": "local x <close> = {}",
    "close in a for": "for _ in next, {}, nil, {} do end",
    "_G": "_G.string = nil",
    "global environment of the host": "return _ENV._G.os",
}

ODD_ERRORS = {
    "error with a table": ("error({code = 1})", "without a message"),
    "error with a message": ("error({message = 'told'})", "told"),
    "error with nil": ("error()", "nil"),
    "error with null": ("error(null)", ""),
    "error with a function": ("error(print)", ""),
    "error with a boolean": ("error(false)", "false"),
    "error with an endless text": ("error(('x'):rep(1e6))", "xxx"),
    "error that is not UTF-8": ("error('\\xff\\xfe')", ""),
    "error that names a limit": ("error('not enough memory', 0)", ""),
    "error that looks like ours": ("error({refused = 'x'})", ""),
    "error in an error": ("error(error(error))", ""),
}

RETURNS = {
    "cyclic table": ("local t = {} t.t = t return t", "contains itself"),
    "cyclic list": ("local t = {} t[1] = t return t", "contains itself"),
    "deep table": ("local t = {} for _ = 1, 200 do t = {t} end return t", "deeper than 64"),
    "very deep table": ("local t = {} for _ = 1, 50000 do t = {t} end return t", "deeper than 64"),
    "shared tables": ("local t = {1} for _ = 1, 40 do t = {t, t} end return t", ""),
    "huge text": ("return ('x'):rep(3000000)", "larger than 1048576"),
    "huge list": ("local t = {} for i = 1, 300000 do t[i] = 1.5 end return t", ""),
    "function": ("return {msg = {f = error}}", "msg.f is a function"),
    "hole": ("return {msg = {1, nil, 3}}", "msg[2] is nil"),
    "mixed keys": ("return {msg = {1, 2, a = 3}}", "msg is a list with"),
    "numbers as keys": ("return {msg = {[5] = 1}}", "msg has the key 5"),
    "booleans as keys": ("return {[true] = 1}", "the key true"),
    "tables as keys": ("return {[{}] = 1}", "the key table"),
    "not UTF-8": ("return {msg = {s = '\\xff'}}", "msg.s is not UTF-8"),
    "key not UTF-8": ("return {['\\xff'] = 1}", "is not UTF-8"),
    "not a number": ("return {msg = {t = {1, 0 / 0}}}", "nan"),
    "infinity": ("return {msg = {t = 1 / 0}}", "msg.t is inf"),
    "minus infinity": ("return -1 / 0", "result is -inf"),
    "sparse": ("local t = {} t[1 << 62] = 1 return t", "the key"),
    "powers of two": ("local t = {} for i = 0, 62 do t[1 << i] = 1 end return t", ""),
    "library": ("return {a = string, f = string.rep}", "f is a function"),
}


@pytest.mark.spec("G-23")
@pytest.mark.parametrize(("source", "reason"), LIMITS.values(), ids=LIMITS.keys())
def test_a_script_that_breaks_a_limit_fails_alone(source: str, reason: str) -> None:
    result = among_neighbours("lua", source)
    assert isinstance(result, ScriptError)
    assert reason in str(result)


@pytest.mark.spec("G-23")
@pytest.mark.parametrize("source", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_a_script_reaches_nothing_outside(source: str) -> None:
    assert isinstance(among_neighbours("lua", source), ScriptError)


@pytest.mark.parametrize(("source", "reason"), ODD_ERRORS.values(), ids=ODD_ERRORS.keys())
def test_any_error_value_fails_its_own_message(source: str, reason: str) -> None:
    result = among_neighbours("lua", source)
    assert isinstance(result, ScriptError)
    assert reason in result.reason
    assert len(result.reason) <= 1000


@pytest.mark.parametrize(("source", "reason"), RETURNS.values(), ids=RETURNS.keys())
def test_a_result_that_is_no_json_is_told_with_its_place(source: str, reason: str) -> None:
    result = among_neighbours("lua", source)
    assert isinstance(result, ScriptError)
    assert reason in str(result)
