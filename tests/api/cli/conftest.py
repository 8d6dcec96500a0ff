from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.cli.serving import Demo
from tests.api.test_up import running


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One demo server for all tests of verbs; each makes devices and tenants of its own."""
    folder: Path = tmp_path_factory.mktemp("demo") / "data"
    with running(folder, "--demo", RULEMILL_WORKERS="1") as (_, facts):
        yield Demo(folder, facts)
