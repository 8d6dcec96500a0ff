from __future__ import annotations

import pytest

from api.dialect_settings import dialect_settings
from engine.config import as_variable, load
from engine.errors import InvalidDocument


def test_tables_are_read_from_the_environment_and_given_on() -> None:
    table = '{"type_cast": false, "attribute_update_format": "seed"}'
    settings = load({}, {"RULEMILL_THINGSBOARD": table}).settings
    chosen = dialect_settings(settings)
    assert (chosen.thingsboard.type_cast, chosen.thingsboard.attribute_update_format) == (False, "seed")
    assert chosen.thethingsio.require_tls
    given_on = {"RULEMILL_THINGSBOARD": as_variable(settings.thingsboard)}
    assert load({}, given_on).settings.thingsboard == settings.thingsboard


@pytest.mark.parametrize(
    ("variable", "table", "where", "why"),
    [
        ("RULEMILL_THINGSBOARD", '{"type_kast": 1}', "thingsboard", "type_kast"),
        ("RULEMILL_THINGSBOARD", '{"type_kast": 1}', "thingsboard", "did you mean type_cast?"),
        ("RULEMILL_THINGSBOARD", '{"poll_s": "long"}', "thingsboard.poll_s", "float"),
        ("RULEMILL_THINGSBOARD", '{"rate_limit": "10/s"}', "thingsboard.rate_limit", "regex"),
        ("RULEMILL_THETHINGSIO", '{"require_tls": 3}', "thethingsio.require_tls", "bool"),
    ],
)
def test_what_does_not_hold_is_named(variable: str, table: str, where: str, why: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        dialect_settings(load({}, {variable: table}).settings)
    [finding] = caught.value.findings
    assert finding.pointer == where
    assert why in finding.message


@pytest.mark.parametrize("text", ["[1]", "type_cast=false", '"x"'])
def test_a_table_is_an_object_of_json(text: str) -> None:
    with pytest.raises(InvalidDocument, match="RULEMILL_THINGSBOARD: is a table as JSON"):
        load({}, {"RULEMILL_THINGSBOARD": text})
