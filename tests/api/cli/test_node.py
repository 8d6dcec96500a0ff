from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from api.cli import rulemill
from nodes.catalogue import BUILTIN, Catalogue


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the folder or the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RULEMILL_CONFIG", raising=False)
    monkeypatch.delenv("RULEMILL_PLUGINS", raising=False)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(rulemill, ["node", *arguments])


def test_list_names_every_kind() -> None:
    result = run("list")
    assert result.exit_code == 0, result.output
    first_words = [line.split()[0] for line in result.output.splitlines() if line.startswith("  ")]
    assert set(Catalogue().kinds) <= set(first_words)


def test_list_as_json() -> None:
    kinds = json.loads(run("list", "--json").stdout)
    assert [kind["kind"] for kind in kinds] == [kind.spec.kind for kind in BUILTIN]
    assert all(kind["summary"] and kind["category"] for kind in kinds)


@pytest.mark.parametrize("kind", Catalogue().kinds)
def test_show_teaches(kind: str) -> None:
    spec, schema = Catalogue().spec(kind), Catalogue().json_schema(kind)
    result = run("show", kind)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[0] == kind
    words = " ".join(result.output.split())
    for part in (spec.summary, *(relation.when for relation in spec.relations)):
        assert part in words
    for name, field in schema["properties"].items():
        assert name in words
        assert " ".join(field["description"].split()) in words
    for example in spec.examples:
        assert example.title in words


@pytest.mark.parametrize("kind", Catalogue().kinds)
def test_show_as_json(kind: str) -> None:
    shown = json.loads(run("show", kind, "--json").stdout)
    assert shown["config"] == Catalogue().json_schema(kind)
    assert shown["relations"] == [{"name": name, "when": when} for name, when in Catalogue().spec(kind).relations]
    assert [example["config"] for example in shown["examples"]] == [e.config for e in Catalogue().spec(kind).examples]


def test_a_wrong_name_gets_the_nearest() -> None:
    result = run("show", "save time series")
    assert result.exit_code == 1
    assert "did you mean save_timeseries?" in result.output


def test_nonsense_gets_the_way_on() -> None:
    result = run("show", "zzzz")
    assert result.exit_code == 1
    assert "rulemill node list" in result.output


def test_kinds_of_plugins_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RULEMILL_PLUGINS", "not_installed")
    result = run("list")
    assert result.exit_code == 1
    assert "not_installed" in str(result.exception)
