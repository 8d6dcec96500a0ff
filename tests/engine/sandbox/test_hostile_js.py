"""Hostile JavaScript: each script fails alone or does no harm, its neighbours get their results."""

from __future__ import annotations

import pytest

from engine.errors import ScriptError
from tests.engine.sandbox.calling import among_neighbours, run_all

TIME = "time budget"
MEMORY = "budget of"  # on a slow machine the time is over before the memory

LIMITS = {
    "endless loop": ("while (true) {}", TIME),
    "endless for": ("for (;;);", TIME),
    "try in a loop": ("for (;;) { try { while (true) {} } catch (e) {} }", TIME),
    "finally": ("try { while (true) {} } finally { return 'got away' }", TIME),
    "loop in a callback": ("[1].map(() => { while (true) {} })", TIME),
    "loop in a getter": ("return { get msg() { while (true) {} } }", TIME),
    "loop in toJSON": ("return { toJSON() { while (true) {} } }", TIME),
    "loop in an error's message": (
        "const e = new Error(); Object.defineProperty(e, 'message', { get() { for (;;); } }); throw e",
        TIME,
    ),
    "loop in a thrown toString": ("throw { toString() { for (;;); }, toJSON() { for (;;); } }", TIME),
    "loop in a sort comparison": ("[3, 2, 1].sort(() => { for (;;); })", TIME),
    "loop in a replacement": ("'abc'.replace(/b/, () => { for (;;); })", TIME),
    "endless generator": ("return [...(function* () { for (;;) {} })()]", TIME),
    "nested quantifiers": ("return /^(a+)+$/.test('a'.repeat(40) + 'b')", TIME),
    "alternatives": ("return /^(a|aa)+$/.test('a'.repeat(60) + 'b')", TIME),
    "back-references": (r"return /^(.*)*\1*\1*\1*z$/.test('a'.repeat(400))", TIME),
    "holes": ("new Array(4294967295).forEach(() => 1)", TIME),
    "array-like without end": ("return [].indexOf.call({ length: 9007199254740991 }, 1)", TIME),
    "growing array": ("const a = []; for (;;) a.push('x'.repeat(100) + a.length)", MEMORY),
    "growing array in try": ("const a = []; for (;;) { try { a.push(new Array(1000).fill(0)) } catch (e) {} }", ""),
    "doubling text": ("let s = 'x'; for (;;) s += s", ""),
    "repeat": ("return 'x'.repeat(5e8)", ""),
    "padding": ("return 'x'.padStart(1e9)", ""),
    "typed array": ("return new Uint8Array(1e9).length", ""),
    "growing map": ("const m = new Map(); for (let i = 0; ; i++) m.set(i, {})", ""),
    "endless spread": ("return [...(function* () { for (;;) yield 1 })()]", ""),
    "growing BigInt": ("let x = 3n; for (;;) x = x * x", ""),
    "deep recursion": ("const f = () => f() + 1; return f()", "call stack"),
    "reversing holes": ("return new Array(4e9).reverse()", "at most 1000000"),
    "joining holes": ("return new Array(1e9).join()", "at most 1000000"),
    "sum of holes": ("return [].concat(new Array(1e9)).length", "at most 1000000"),
    "flat holes": ("return [new Array(1e9)].flat()", "at most 1000000"),
    "length by a getter": ("return [].reverse.call({ get length() { return 1e15 } })", "at most 1000000"),
    "search of the worst kind": ("return 'a'.repeat(1e5).indexOf('a'.repeat(5e4) + 'b')", "too costly"),
    "split of the worst kind": ("return 'a'.repeat(1e5).split('a'.repeat(5e4) + 'b')", "too costly"),
    "deep JSON text": ("return JSON.parse('['.repeat(1e5))", ""),
    "cyclic result": ("const a = {}; a.a = a; return a", "circular"),
    "deep result": ("let a = []; for (let i = 0; i < 200; i++) a = [a]; return a", "deeper than 64"),
    "very deep result": ("let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return a", ""),
    "huge result": ("return 'x'.repeat(3e6)", "larger than 1048576"),
    "not a number": ("return { msg: { a: [1, NaN] } }", "msg.a[1] is NaN"),
    "infinity": ("return { msg: { a: 1 / 0 } }", "msg.a is Infinity"),
    "BigInt result": ("return { msg: 1n }", "BigInt"),
    "half a character": (r"return '\ud800'", "not valid Unicode"),
    "thrown null": ("throw null", ""),
    "thrown undefined": ("throw undefined", "undefined"),
    "thrown symbol": ("throw Symbol('x')", ""),
    "thrown revolting object": ("throw { get message() { throw 1 } }", "cannot be shown"),
    "error that names a limit": ("throw new InternalError('interrupted')", "interrupted"),
}

FORBIDDEN = {
    "Function": "return Function('return 1')()",
    "Function by constructor": "return (() => 1).constructor('return 1')()",
    "Function by a built-in's constructor": "return [].map.constructor('return 1')()",
    "GeneratorFunction": "return (function* () {}).constructor('yield 1')().next()",
    "AsyncFunction": "return (async () => 1).constructor('return 1')()",
    "eval": "return eval('1')",
    "indirect eval": "return (0, eval)('1')",
    "globals by mistake": "leak = 1",
    "globals on purpose": "globalThis.leak = 1",
    "this": "return this.leak",
    "Object.prototype": "Object.prototype.leak = 1",
    "Array.prototype": "Array.prototype.leak = 1",
    "__proto__": "({}).__proto__.leak = 1",
    "prototype by setPrototypeOf": "Object.setPrototypeOf(Object.prototype, { leak: 1 })",
    "changing a built-in": "JSON.stringify = () => '1'",
    "changing map": "Array.prototype.map = 1",
    "changing Date": "Date.now = () => 1",
    "changing an iterator": "Object.getPrototypeOf([].values()).next = () => ({ done: true })",
    "changing a generator": "Object.getPrototypeOf(function* () {}).prototype.next = 1",
    "changing a shared function": "retry.leak = 1",
    "Proxy": "return new Proxy({}, {})",
    "Promise": "return Promise.resolve(1)",
    "SharedArrayBuffer": "return new SharedArrayBuffer(8)",
    "Atomics": "return Atomics.wait(new Int32Array(8), 0, 0)",
    "require": "return require('fs')",
    "std": "return std.open('/etc/passwd', 'r')",
    "os": "return os.exec(['true'])",
    "fetch": "return fetch('http://127.0.0.1')",
    "setTimeout": "setTimeout(() => 1, 0)",
    "WeakRef": "return new WeakRef({})",
}

HARMLESS = {
    "import": ("return import('os')", {}),
    "jobs that never run": ("(async () => { await 0; for (;;); })(); return 7", 7),
    "member named __proto__": ('return JSON.parse(\'{"__proto__": {"leak": 1}}\').leak === undefined', True),
    "own toString": ("msg.toString = 5; return msg.toString", 5),
    "own error class": (
        "class E extends Error { constructor(m) { super(m); this.name = 'E' } } return new E('x').name",
        "E",
    ),
}


@pytest.mark.spec("G-23")
@pytest.mark.parametrize(("source", "reason"), LIMITS.values(), ids=LIMITS.keys())
def test_a_script_that_breaks_a_limit_fails_alone(source: str, reason: str) -> None:
    result = among_neighbours("js", source)
    assert isinstance(result, ScriptError)
    assert reason in str(result)
    assert len(result.reason) <= 1000


@pytest.mark.spec("G-23")
@pytest.mark.parametrize("source", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_a_script_reaches_nothing_outside(source: str) -> None:
    assert isinstance(among_neighbours("js", source), ScriptError)


@pytest.mark.parametrize(("source", "value"), HARMLESS.values(), ids=HARMLESS.keys())
def test_what_looks_bad_does_no_harm(source: str, value: object) -> None:
    assert among_neighbours("js", source) == value


@pytest.mark.parametrize(
    "source",
    [
        "}, function () { return 1",
        "}); let leak = 1; (function () {",
        "}(0), function () { return 1",
        "} } globalThis.leak = 1; { {",
        "*/ return 1 /*",
        "`",
    ],
)
def test_a_source_cannot_leave_its_function(source: str) -> None:
    try:
        results = run_all("js", source, [1, 2])
    except ScriptError:
        return
    assert all(isinstance(result, ScriptError) or result == 1 for result in results)


def test_what_piles_up_over_messages_fails_none_of_them() -> None:
    source = "(async () => { const held = 'x'.repeat(20000) + msg; await 0; return held; })(); return msg"
    assert run_all("js", source, list(range(3000))) == list(range(3000))
