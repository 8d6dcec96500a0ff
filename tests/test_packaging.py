"""What is published: built as a release would be, looked into, and run from a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a wheel and an sdist."""
    folder: Path = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), "-t", "wheel", "-t", "sdist"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    [wheel] = built.glob("*.whl")
    return wheel


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"engine", "nodes", "chains", "api"}
    assert not [name for name in names if name.endswith((".pyc", ".pyo"))]
    assert {"engine/py.typed", "nodes/py.typed", "chains/py.typed", "api/py.typed"} <= set(names)
    assert [name for name in names if name.endswith("licenses/LICENSE")]


def test_the_wheel_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    code = (
        "import sys, importlib.resources as r, api, chains, engine\n"
        "assert all(p.__file__.startswith(sys.argv[1]) for p in (api, chains, engine)), api.__file__\n"
        "import json; json.loads((r.files(chains) / 'library/root.json').read_text())\n"
        "assert list((r.files(engine) / 'redis_scripts').iterdir())\n"
        "import engine.commit, engine.ingress, engine.sandbox.lua, engine.sandbox.js\n"
        "sys.argv[1:] = ['node', 'list', '--json']\n"
        "from api.cli import main; main()\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RULEMILL_")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "installed")],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"save_timeseries"' in done.stdout


def test_the_source_archive_holds_documents_and_examples(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files", "docs", "examples", "chains"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("not a git checkout")
    assert "docs/nodes.md" in names
    assert set(tracked.stdout.splitlines()) <= names
    assert not [name for name in names if name.startswith(("tests/", ".venv/", "rulemill-data/"))]
