from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import jsonschema
import msgspec
import pytest

from engine.errors import Conflict, NotFound
from nodes import BadInput, CallNode, Node, NodeSpec
from nodes.catalogue import BUILTIN, ENTRY_POINTS, Catalogue
from nodes.log import Log
from nodes.save_timeseries import SaveTimeseries
from tests.nodes.context import DictBuild

CATEGORIES = {"filter", "transform", "action", "external", "flow"}
SECRETS = {"ALERTS_TOKEN": "t", "MQTT_PASSWORD": "p"}

every_kind = pytest.mark.parametrize("kind", BUILTIN, ids=lambda kind: kind.spec.kind)


def spec_closed(kind: type[Node]) -> bool:
    return not kind.spec.open_relations


@every_kind
def test_the_spec_says_everything(kind: type[Node]) -> None:
    spec = kind.spec
    assert kind.__module__ == f"nodes.{spec.kind}"
    assert kind.__name__.removesuffix("Node") == spec.kind.title().replace("_", "")
    assert spec.category in CATEGORIES
    assert spec.summary.endswith(".")
    assert len(spec.description) > 40
    assert spec.examples
    assert all(example.title for example in spec.examples)
    assert all(relation.name and relation.when.endswith(".") for relation in spec.relations)
    assert len({relation.name for relation in spec.relations}) == len(spec.relations)
    assert spec.config.__struct_config__.forbid_unknown_fields


@every_kind
def test_every_setting_is_described(kind: type[Node]) -> None:
    schema = Catalogue().json_schema(kind.spec.kind)
    tables = [schema, *schema.get("$defs", {}).values()]
    for table in tables:
        for name, field in table.get("properties", {}).items():
            assert field.get("description"), f"{kind.spec.kind}.{name}"


@every_kind
def test_every_example_builds_and_fits_its_schema(kind: type[Node]) -> None:
    schema = Catalogue().json_schema(kind.spec.kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    for example in kind.spec.examples:
        jsonschema.validate(example.config, schema)
        config = msgspec.convert(example.config, kind.spec.config)
        build = DictBuild(secrets=SECRETS)
        assert kind.check(config, build) == []
        node = kind(config, build)
        if spec_closed(kind):
            assert node.relations() == {relation.name for relation in kind.spec.relations}
        else:
            assert node.relations() != frozenset()


@every_kind
def test_an_unknown_setting_is_refused(kind: type[Node]) -> None:
    config: dict[str, Any] = {**kind.spec.examples[0].config, "noSuchSetting": 1}
    with pytest.raises(msgspec.ValidationError, match="noSuchSetting"):
        msgspec.convert(config, kind.spec.config)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, Catalogue().json_schema(kind.spec.kind))


@every_kind
def test_only_kinds_that_park_come_back(kind: type[Node]) -> None:
    comes_back = kind.resume is not Node.resume or issubclass(kind, CallNode)
    assert kind.spec.parks == comes_back


def test_lookup() -> None:
    catalogue = Catalogue()
    assert catalogue.lookup("log") is Log
    assert "log" in catalogue
    assert "lag" not in catalogue
    assert len(catalogue) == len(BUILTIN)
    with pytest.raises(NotFound, match="lag"):
        catalogue.lookup("lag")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("save_timeserie", "save_timeseries"), ("save time series", "save_timeseries"), ("Create-Alarm", "create_alarm")],
)
def test_did_you_mean(wrong: str, right: str) -> None:
    assert Catalogue().did_you_mean(wrong) == right


def test_nothing_is_near_to_nonsense() -> None:
    assert Catalogue().did_you_mean("zzzzqqqq") is None


def test_duplicates_are_refused() -> None:
    with pytest.raises(Conflict, match=r"nodes\.log\.Log"):
        Catalogue((Log, SaveTimeseries, Log))
    with pytest.raises(Conflict, match="log"):
        Catalogue().extended([Log])


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    x: int = 0


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner = msgspec.field(default_factory=Inner)


class Third(Node):
    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="third", category="action", summary="", description="", config=Outer, relations=()
    )


def test_inner_structs_keep_their_names_in_the_schema() -> None:
    schema = Catalogue((Third,)).json_schema("third")
    assert list(schema["$defs"]) == ["Inner"]
    jsonschema.validate({"inner": {"x": 1}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"inner": {"x": "1"}}, schema)


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    module = types.ModuleType("third_party_nodes")
    module.Third = Third  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "third_party_nodes", module)
    return [
        EntryPoint("third", "third_party_nodes:Third", ENTRY_POINTS),
        EntryPoint("misnamed", "third_party_nodes:Third", ENTRY_POINTS),
        EntryPoint("nonsense", "json:dumps", ENTRY_POINTS),
        EntryPoint("unlisted", "no_such_module:Nothing", ENTRY_POINTS),
    ]


def test_only_listed_entry_points_are_loaded(offered: list[EntryPoint]) -> None:
    assert Catalogue().with_plugins(["third"], offered).lookup("third") is Third
    assert "third" not in Catalogue().with_plugins([], offered)


def test_wrong_entry_points_are_named(offered: list[EntryPoint]) -> None:
    with pytest.raises(NotFound, match="missing"):
        Catalogue().with_plugins(["missing"], offered)
    with pytest.raises(BadInput, match="misnamed"):
        Catalogue().with_plugins(["misnamed"], offered)
    with pytest.raises(BadInput, match="json:dumps"):
        Catalogue().with_plugins(["nonsense"], offered)
    with pytest.raises(Conflict, match="third"):
        Catalogue().with_plugins(["third"], [offered[0], offered[0]])
