from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes import BadInput
from nodes.templates import Template, in_json, in_url
from tests.nodes.context import message

MESSAGE = message(
    {"t": 42.0, "n": 73, "on": True, "none": None, "deep": {"list": [1, {"x": "y"}]}, "a.b": "dotted", "s": 'q"\n/'},
    metadata={"name": "dev 1", "odd key": "v", "trick": "${name}"},
)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("plain $ text { } [x] $5", "plain $ text { } [x] $5"),
        ("${name}/${odd key}", "dev 1/v"),
        ("$[t] $[n] $[on] $[none]", "42.0 73 true null"),
        ("$[deep.list.1.x]", "y"),
        ("$[deep]", '{"list":[1,{"x":"y"}]}'),
        ("$[a.b]", "dotted"),
        ("${trick}", "${name}"),
        ("$${name} $$[t] $$ 5", "${name} $[t] $$ 5"),
        ("{${name}}", "{dev 1}"),
        ("", ""),
    ],
)
def test_render(text: str, rendered: str) -> None:
    assert Template(text).render(MESSAGE) == rendered


def test_everything() -> None:
    some = message({"a": 1}, metadata={"k": "v"})
    assert Template("$[*]|${*}").render(some) == '{"a":1}|{"k":"v"}'
    assert Template("$[*]").render(message("text")) == "text"


@pytest.mark.parametrize("text", ["${nobody}", "$[nothing]", "$[deep.list.7]", "$[deep.list.x]", "$[t.x]", "$[deep.]"])
def test_a_missing_key_is_an_error_that_names_it(text: str) -> None:
    with pytest.raises(BadInput, match=r"nobody|nothing|deep|t\.x"):
        Template(text).render(MESSAGE)


@pytest.mark.parametrize("text", ["${open", "$[open", "a ${x} ${", "${}", "$[]", "${a{b}"])
def test_a_broken_template_is_refused_when_it_is_compiled(text: str) -> None:
    with pytest.raises(BadInput, match="template"):
        Template(text)


@pytest.mark.parametrize("data", [b"\x00", [1], None, 5])
def test_data_without_keys(data: Any) -> None:
    with pytest.raises(BadInput, match="no 'x'"):
        Template("$[x]").render(message(data))


def test_bytes_have_no_text() -> None:
    with pytest.raises(BadInput, match="bytes"):
        Template("$[*]").render(message(b"\x00"))


def test_secrets_stand_only_where_they_may() -> None:
    with pytest.raises(BadInput, match="secret"):
        Template("${secret:KEY}")
    template = Template("Bearer ${secret:KEY}", secrets=True)
    assert template.secret_names == ["KEY"]
    assert template.render(MESSAGE, {"KEY": "${name}"}.get) == "Bearer ${name}"
    with pytest.raises(BadInput, match="KEY"):
        template.render(MESSAGE, {}.get)
    with pytest.raises(BadInput, match="KEY"):
        template.render(MESSAGE)


def test_no_metadata_key_reaches_a_secret() -> None:
    with pytest.raises(BadInput):
        Template("${secret:KEY}", secrets=True).render(message({}, metadata={"secret:KEY": "mine"}), {}.get)


def test_values_stay_in_their_place() -> None:
    assert Template("http://h/${name}/$[s]", escape=in_url).render(MESSAGE) == "http://h/dev%201/q%22%0A%2F"
    assert Template('{"s":"$[s]","t":$[t],"d":$[deep]}', escape=in_json).render(MESSAGE) == (
        '{"s":"q\\"\\n/","t":42.0,"d":{"list":[1,{"x":"y"}]}}'
    )


def test_constant() -> None:
    assert Template("x").constant
    assert not Template("${x}").constant


@given(st.text())
def test_text_without_a_dollar_is_itself(text: str) -> None:
    text = text.replace("$", "")
    assert Template(text).render(MESSAGE) == text


@given(st.text(alphabet="ab${}[]:*.", max_size=30))
def test_any_text_compiles_or_is_refused(text: str) -> None:
    try:
        template = Template(text)
    except BadInput:
        return
    with suppress(BadInput):  # any other error fails the test
        template.render(MESSAGE)
