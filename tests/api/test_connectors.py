"""Connectors: found when named, refused when they collide, and a whole one from its package to a point."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.connectors import ENTRY_POINTS, OWNED_ROOTS, Connector, Context, Route, load, named
from engine.errors import BadInput, Conflict
from engine.stores.registry import Device
from tests.api.test_up import COMMAND, environment, latest, running

EXAMPLE = Path(__file__).parents[2] / "examples" / "connector"


class One(Connector):
    pass


class Two(Connector):
    root = "One"


class OfTheServer(Connector):
    root = "v1"


class Crooked(Connector):
    root = "a/b"


def point(name: str, value: str = "One") -> EntryPoint:
    return EntryPoint(name, f"{__name__}:{value}", ENTRY_POINTS)


def context(name: str) -> Context:
    # Nothing of these is touched before a connector asks for it.
    return Context(name, registry=None, auth=None, intake=None, client=None)  # type: ignore[arg-type]


def test_only_named_connectors_are_found_and_nothing_is_imported() -> None:
    broken = EntryPoint("broken", "no_such_module:X", ENTRY_POINTS)
    assert named(["One"], [point("One"), broken]) == [point("One")]
    assert named([], [broken]) == []
    assert named(["broken"], [broken]) == [broken]


@pytest.mark.parametrize(
    ("names", "points", "error", "said"),
    [
        (["acmee"], [point("acme")], BadInput, "did you mean acme?"),
        (["acme"], [], BadInput, "no connector among the installed packages"),
        (["acme"], [point("acme"), point("acme", "Two")], Conflict, "two packages offer connector 'acme'"),
        (["acme", "acme"], [point("acme")], Conflict, "named twice"),
    ],
)
def test_a_name_that_is_not_offered_once(names: list[str], points: list[EntryPoint], error: Any, said: str) -> None:
    with pytest.raises(error) as raised:
        named(names, points)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("points", "error", "said"),
    [
        (
            [point("One"), point("other", "Two")],
            Conflict,
            "connectors 'One' and 'other' both want the paths under /One",
        ),
        ([point("x", "OfTheServer")], Conflict, "paths under /v1 belong to the server"),
        ([point("flow")], Conflict, "paths under /flow belong to the server"),
        ([point("x", "Crooked")], BadInput, "no path segment"),
        ([point("x", "EXAMPLE")], BadInput, "no subclass of Connector"),
        ([EntryPoint("x", "no_such_module:X", ENTRY_POINTS)], BadInput, "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_what_cannot_be_loaded_is_refused_by_name(points: list[EntryPoint], error: Any, said: str) -> None:
    with pytest.raises(error) as raised:
        load(points, context)
    assert said in str(raised.value)


def test_paths_lie_under_the_root() -> None:
    async def handler(request: Any, names: Any) -> Any:
        raise AssertionError

    class Some(Connector):
        routes = (Route("POST", "/{id}/x", handler), Route("GET", "/", handler))

    globals()["Some"] = Some
    [paths] = load([point("some", "Some")], context)
    assert [route.pattern for route in paths.routes] == ["/some/{id}/x", "/some"]


def test_every_root_of_a_dialect_is_reserved() -> None:
    from api.dialects.cloudthing.http import _ROOTS

    assert _ROOTS <= OWNED_ROOTS


def test_a_disabled_device_says_nothing() -> None:
    with pytest.raises(BadInput, match="disabled"):
        context("x").message(Device(id="1", tenant="t", name="d", enabled=False), {"a": 1})


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the example as a release of it would be installed."""
    folder: Path = tmp_path_factory.mktemp("connectors")
    # Built from a copy, so that nothing is left in the checkout.
    source = folder / "source"
    for path in ("pyproject.toml", "acme_rulemill/__init__.py"):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes((EXAMPLE / path).read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
         "--disable-pip-version-check", "--target", str(folder / "site"), str(source)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


@pytest.mark.spec("CT-63")
def test_the_example_turns_a_post_into_telemetry_of_a_known_device(tmp_path: Path, installed: Path) -> None:
    path = os.pathsep.join([str(installed), *filter(None, [os.environ.get("PYTHONPATH")])])
    more = {"RULEMILL_CONNECTORS": "acme", "PYTHONPATH": path}
    with running(tmp_path / "data", "--demo", **more) as (_, facts):
        device = facts["devices"]["thingsboard"]
        url = f"{facts['http']}/acme/readings"
        login = {"Authorization": f"Bearer {device['token']}"}
        body = '{"serial": "A-17", "readings": [{"at": 1700000000, "kind": "temp", "value": 21.5}]}'
        sent = httpx.post(url, content=body, headers=login)
        assert (sent.status_code, sent.content) == (204, b"")
        assert latest(facts, device["id"], "temp") == 21.5
        for status, answer in (
            (400, httpx.post(url, content="{", headers=login)),
            (400, httpx.post(url, content='{"readings": [{"at": NaN, "kind": "t", "value": 1}]}', headers=login)),
            (401, httpx.post(url, content=body)),
            (404, httpx.post(f"{facts['http']}/acme", content=body, headers=login)),
            (405, httpx.get(url, headers=login)),
            (413, httpx.post(url, content=b" " * 70_000, headers=login)),
        ):
            assert answer.status_code == status
            assert answer.json()["message"]


def test_it_stays_out_unless_it_is_named(tmp_path: Path, installed: Path) -> None:
    path = os.pathsep.join([str(installed), *filter(None, [os.environ.get("PYTHONPATH")])])
    with running(tmp_path / "data", PYTHONPATH=path) as (_, facts):
        assert httpx.post(f"{facts['http']}/acme/readings").status_code == 404


def test_a_name_that_nobody_offers_ends_the_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "up"], env=environment(tmp_path / "data", RULEMILL_CONNECTORS="no-such"),
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "connector 'no-such'" in done.stderr
    assert "Traceback" not in done.stderr
