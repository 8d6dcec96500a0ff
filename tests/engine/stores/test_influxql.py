"""InfluxQL: names stay inside their strings, and lists of them in statements of bounded length."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from engine.stores.influxql import (
    NAMES_AT_ONCE,
    Scope,
    by_time,
    deletion,
    devices_there,
    identifier,
    keys_of,
    literal,
    newest,
    scopes,
    source,
)  # fmt: skip
from engine.stores.line_protocol import stored_name
from engine.stores.values import INT64_MAX, INT64_MIN, MAX_NAME_BYTES, MAX_TS_MS

STRING = re.compile(r"'(?:[^'\\\n]|\\['\\n])*'")
"""A string as the scanner of InfluxQL takes it: it ends at the first quote that has no backslash before it."""

names = st.text(min_size=1, max_size=20) | st.text(alphabet="'\\\n\"; -/*()=~%", min_size=1, max_size=12)
some_names = st.lists(names, min_size=1, max_size=3, unique=True)


@given(names)
def test_a_literal_is_one_string_that_says_the_name(name: str) -> None:
    text = literal(name)
    assert STRING.fullmatch(text)
    unescaped = re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], text[1:-1])
    assert unescaped == stored_name(name)
    assert not re.search(r"[\x00-\x1f]", text)


@given(
    names, st.lists(names, min_size=1, max_size=3, unique=True), st.lists(names, min_size=1, max_size=3, unique=True)
)
def test_no_name_reaches_a_statement_outside_of_a_string(tenant: str, devices: list[str], keys: list[str]) -> None:
    scope = Scope(tenant, devices, keys)
    plain = Scope("t", [f"d{i}" for i in range(len(devices))], [f"k{i}" for i in range(len(keys))])
    for make in (
        lambda scope: newest(scope, 0, 9, 1),
        lambda scope: by_time(scope, 0, 9, newest_first=True, limit=None),
        lambda scope: deletion(scope, 0, 9),
        keys_of,
        lambda scope: devices_there(1, scope.tenant),
    ):
        assert STRING.sub("''", make(scope)) == STRING.sub("''", make(plain))


def test_a_source_has_both_ends_whatever_was_asked() -> None:
    scope = Scope("t", ["d"], None)
    assert source(scope, INT64_MIN, INT64_MAX) == (
        f"FROM ts_kv WHERE tenant='t' AND device='d' AND time>={-MAX_TS_MS}ms AND time<{MAX_TS_MS + 1}ms"
    )
    assert "(device='d' OR device='e') AND \"key\"='k' AND time>=-5ms" in source(Scope("t", ["d", "e"], ["k"]), -5, 5)


def test_names_come_in_parts() -> None:
    devices = [f"d{i:04}" for i in range(2 * NAMES_AT_ONCE + 1)]
    found = list(scopes("t", [*devices, "d0000"], None))
    assert [len(scope.devices) for scope in found] == [NAMES_AT_ONCE, NAMES_AT_ONCE, 1]
    assert [device for scope in found for device in scope.devices] == devices
    assert len(list(scopes("t", devices, devices))) == 9


def test_names_that_nobody_can_have_are_not_asked_for() -> None:
    for bad in ("", "\ud800", "x" * (MAX_NAME_BYTES + 1)):
        assert list(scopes(bad, ["d"], None)) == []
        assert list(scopes("t", [bad], None)) == []
        assert list(scopes("t", ["d"], [bad])) == []
        assert list(scopes("t", ["d", bad], ["k", bad])) == [Scope("t", ["d"], ["k"])]


def test_identifiers_are_quoted() -> None:
    assert identifier('a"b\\c\nd') == '"a\\"b\\\\c\\nd"'
