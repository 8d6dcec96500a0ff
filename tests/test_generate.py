from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest

from engine.config import LISTENERS, load
from engine.errors import InvalidDocument

ROOT = Path(__file__).parent.parent


def _known(variable: str) -> bool:
    try:
        load({}, {variable: "1"})
    except InvalidDocument as error:  # that a value does not hold is another matter
        return "of that name" not in str(error)
    return True


@pytest.fixture
def generate(tmp_path: Path) -> SimpleNamespace:
    """The script, writing into an empty folder."""
    script = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts/generate.py"), run_name="generate"))
    script.docs = tmp_path / "docs"
    script.main.__globals__["DOCS"] = script.docs
    return script


def test_what_is_stale_is_told_and_mended(generate: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 1
    assert "stale: docs/nodes.md" in capsys.readouterr().err
    assert not generate.docs.exists()
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0

    changed, left_over = generate.docs / "nodes.md", generate.docs / "schemas" / "node-gone.schema.json"
    text = changed.read_text()
    changed.write_text(text + "by hand")
    left_over.write_text("{}")
    capsys.readouterr()
    assert generate.main(["--check"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert generate.main([]) == 0
    assert changed.read_text() == text
    assert not left_over.exists()


def test_other_words_are_refused(generate: SimpleNamespace) -> None:
    assert generate.main(["--chekc"]) == 2
    assert not generate.docs.exists()


def test_the_settings_page_names_what_there_is(generate: SimpleNamespace) -> None:
    variables = set(re.findall(r"`(RULEMILL_[A-Z_]+)`", generate.settings_page())) - {"RULEMILL_CONFIG"}
    assert {"RULEMILL_DATA", "RULEMILL_TLS_KEY", "RULEMILL_HTTP", "RULEMILL_LISTEN_MQTTS"} <= variables
    assert [variable for variable in variables if not _known(variable)] == []


def test_the_settings_schema_knows_the_listeners(generate: SimpleNamespace) -> None:
    schema = generate.settings_schema()
    jsonschema.validate({"listeners": dict.fromkeys(LISTENERS, "127.0.0.1:0"), "tls": {"key": "k.pem"}}, schema)
    for wrong in ({"listeners": {"htp": ":80"}}, {"wrokers": 1}, {"workers": "four"}, {"tls": {"cert": ""}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
