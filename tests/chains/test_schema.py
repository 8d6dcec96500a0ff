from __future__ import annotations

from jsonschema import Draft202012Validator

from chains.schema import chain_schema, validate
from engine.errors import Finding
from tests.chains.documents import chain
from tests.chains.kinds import CATALOGUE


def test_the_published_schema_is_a_schema_and_refers_only_to_itself() -> None:
    schema = chain_schema(CATALOGUE)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)
    references = list(_references(schema))
    assert references
    for reference in references:
        assert reference.removeprefix("#/$defs/") in schema["$defs"]


def test_each_kind_brings_its_configuration_and_relations_into_the_schema() -> None:
    schema = chain_schema(CATALOGUE)
    assert schema["$defs"]["node"]["properties"]["kind"]["enum"] == [
        "call",
        "chain",
        "delay",
        "output",
        "script",
        "state",
        "step",
    ]
    cases = {case["if"]["properties"]["kind"]["const"]: case["then"] for case in schema["$defs"]["node"]["allOf"]}
    assert cases["step"]["properties"]["config"] == {"$ref": "#/$defs/config.StepConfig"}
    assert list(cases["step"]["properties"]["to"]["properties"]) == ["Failure", "Success"]
    assert cases["script"]["required"] == ["config"]
    assert cases["chain"]["properties"]["config"] == {"$ref": "#/$defs/config.nodes.chain.Config"}
    assert schema["$defs"]["config.StepConfig"]["additionalProperties"] is False


def test_validating_names_every_fault() -> None:
    document = chain("root/x", "a", a={"kind": "step", "config": {"key": "", "times": 11}})
    assert list(validate(document, CATALOGUE)) == [
        Finding("/chain", "must be 1 to 64 letters, digits, blanks and '_', '.', '-', without a blank at the ends"),
        Finding("/nodes/a/config/key", "must have at least 1 character"),
        Finding("/nodes/a/config/times", "must be at most 10, but is 11"),
    ]


def _references(value: object) -> list[str]:
    if isinstance(value, list):
        return [found for part in value for found in _references(part)]
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for part in value.values() for found in _references(part)]
    return []
