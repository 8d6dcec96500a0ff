"""Every command of docs/telemetry.md that stands in a block of `sh` does what the page says, in its order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.test_up import environment, running
from tests.examples.folders import ROOT
from tests.services import require

BLOCKS = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/telemetry.md").read_text(), re.MULTILINE | re.DOTALL)
MARK = "---- end of block"


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What each block has printed; one shell ran them all, as a reader would."""
    require("curl")
    folder: Path = tmp_path_factory.mktemp("page")
    with running(folder / "rulemill-data", "--demo", RULEMILL_WORKERS="1") as (_, facts):
        script = f"\necho '{MARK}'\n".join(BLOCKS).replace("http://127.0.0.1:8080", facts["http"])
        # Points are in the store some milliseconds after the answer.
        script = script.replace(MARK + "'\n", MARK + "'; sleep 0.5\n", 1)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        ran = subprocess.run(
            [require("bash"), "-euo", "pipefail", "-c", script], cwd=folder, text=True, capture_output=True,
            env=environment(folder / "rulemill-data", PATH=path, TZ="UTC"), timeout=120, check=False,
        )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    return [*ran.stdout.split(MARK), ran.stderr]


def test_what_the_page_promises(said: list[str]) -> None:
    _, cli, api, deleted, product, files, errors = said
    assert "demo-thermometer" not in cli.splitlines()[1]  # the first table is of one device
    assert "2026-01-31T12:04:00.000+00:00  temperature  24.5" in cli
    assert re.search(r"^2026-01-31T12:00:00\+00:00 +temperature +21\.0 +21\.5$", cli, re.MULTILINE)
    assert "━━ temperature  min 20.5  max 24.5  last 24.5" in cli
    newest, page, *_ = api.strip().splitlines()
    assert newest.endswith('"cursor":""}')
    assert re.search(r'"cursor":"[\w-]+"}$', page)
    assert ",demo-thermometer,temperature,1769860800000,2026-01-31T12:00:00.000Z,double,20.5,," in api
    assert '"name":"demo-thermometer","key":"open","ts_ms":1769860800000,"value":true}' in api
    assert '"values":{"mean":22.5,"p95":24.5}' in api
    assert api.count('{"mean":null,"p95":null}') >= 2
    assert "Forgot all points of open of demo-thermometer" in deleted
    assert '"retention_days":400' in product
    assert files.strip() == ""
    assert "Exported 3 points" in errors
    assert "Imported 3 points" in errors


def test_the_page_names_what_there_is() -> None:
    text = (ROOT / "docs/telemetry.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / "docs" / link).exists(), link
    assert len(BLOCKS) == 6
