"""Every example is sound, passes its own cases, and says nothing in its README that is not so."""

from __future__ import annotations

import json
import re
import shlex
import time
from pathlib import Path
from typing import Any

import pytest

from api.bootstrap_schema import check_shape
from api.cli.chain_files import run_cases
from api.cli.chain_reading import CASES, CHAIN
from chains.compiler import check_chain
from chains.lint import lint_chain
from nodes.catalogue import Catalogue
from tests.examples.folders import EXAMPLES, FOLDERS, ROOT, bootstrap, chains

SCHEMA = ROOT / "docs/schemas/chain.schema.json"


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_the_index_names_all_of_them() -> None:
    # Those without a chain are dialects that the default chain serves; their scripts are tested with the dialect.
    every = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
    assert {path.name for path in FOLDERS} < set(every)
    linked = re.findall(r"^\| \[([^]]+)\]\(\1/\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(linked) == every


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
class TestExample:
    def test_chains_are_sound_and_need_no_advice(self, folder: Path) -> None:
        found = chains(folder)
        for name, document in found.items():
            others = {other: text for other, text in found.items() if other != name}
            assert check_chain(document, Catalogue(), others) == []
            assert lint_chain(document, Catalogue()) == []
            assert (folder / document["$schema"]).resolve() == SCHEMA

    @pytest.mark.usefixtures("utc")
    def test_cases_pass_and_go_everywhere(self, folder: Path) -> None:
        reports = run_cases(folder / CHAIN, folder / CASES, Catalogue())
        assert {report.case: report.findings for report in reports if report.findings} == {}
        seen = {node.rpartition("/")[2] for report in reports for node, _ in report.outcome.trace}
        nodes = {name: node for document in chains(folder).values() for name, node in document["nodes"].items()}
        assert seen == {name for name, node in nodes.items() if node["kind"] not in ("chain", "output")}

    def test_the_bootstrap_file_has_the_same_chains(self, folder: Path) -> None:
        document = bootstrap(folder)
        assert check_shape(document) == []
        own = {one["chain"]: one for one in document["chains"]}
        tenant = folder.name
        assert {one.pop("tenant") for one in own.values()} == {tenant}
        assert own == {
            name: {key: value for key, value in chain.items() if key != "$schema"}
            for name, chain in chains(folder).items()
        }
        root = json.loads((folder / CHAIN).read_text())["chain"]
        assert document["tenants"] == [{"name": tenant, "root_chain": root}]

    def test_the_readme_mentions_only_what_there_is(self, folder: Path) -> None:
        text = (folder / "README.md").read_text()
        links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
        for link in links:
            assert (folder / link).exists(), link
        commands = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        lines = "".join(commands).replace("\\\n", " ").splitlines()
        words = [word for line in lines for word in shlex.split(line, comments=True)]
        paths = [word for word in words if word.startswith("examples/")]
        assert f"examples/{folder.name}/bootstrap.json" in paths
        for path in paths:
            assert (ROOT / path).exists(), path
        secrets = [one["value"] for device in bootstrap(folder)["devices"] for one in device["credentials"]]
        for secret in secrets:
            assert secret in text

    def test_the_readme_names_nodes_of_the_chain(self, folder: Path) -> None:
        text = (folder / "README.md").read_text()
        (drawing,) = (block for block in re.findall(r"^```\n(.*?)^```", text, re.M | re.S) if "─►" in block)
        drawn = {re.sub(r"\(.*?\)", "", part).strip() for part in re.findall(r"─► ([\w? ]+(?: \(\w+\))?)", drawing)}
        nodes = {name for document in chains(folder).values() for name in document["nodes"]}
        assert drawn <= nodes


def test_the_product_of_the_frames_has_the_function_of_the_node() -> None:
    document = bootstrap(EXAMPLES / "sigfox-like")
    config = document["chains"][0]["nodes"]["decode"]["config"]
    assert document["products"][0]["transform"] == {"lang": config["lang"], "source": config["source"]}


@pytest.mark.spec("TB-46")
def test_the_clock_has_the_documented_script_as_it_stands() -> None:
    config = chains(EXAMPLES / "clock")["clock"]["nodes"]["time"]["config"]
    assert config["source"] == "return {msg: {time:String(new Date())}, metadata: metadata, msgType: msgType};"
