from __future__ import annotations

import json
import re
from typing import Annotated, ClassVar

import msgspec
import pytest

from nodes import Node, NodeSpec, Relation
from nodes.catalogue import BUILTIN, Catalogue
from nodes.fields import Field, fields
from nodes.pages import by_category, catalogue_page, kind_section, table


class Inner(msgspec.Struct):
    x: Annotated[float, msgspec.Meta(gt=0, le=1.5, description="A share.")]


class Config(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(description="A name.", min_length=1, max_length=9)]
    inner: Annotated[Inner | None, msgspec.Meta(description="More.")] = None
    many: Annotated[dict[str, int], msgspec.Meta(description="By name.")] = {}
    parts: Annotated[list[str | bool], msgspec.Meta(description="Parts.", min_length=2)] = msgspec.field(
        default_factory=list
    )
    wait_s: Annotated[float, msgspec.Meta(description="Seconds.", ge=0)] = 60.0


class Odd(Node):
    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="odd",
        category="astrology",
        summary="Does a | b.",
        description="Long.",
        config=Config,
        relations=tuple(Relation(f"R{i}", "Now and then.") for i in range(20)),
        open_relations=True,
        parks=True,
    )


def test_settings_in_plain_words() -> None:
    assert list(fields(Catalogue((Odd,)).json_schema("odd"))) == [
        Field("name", "text, not empty, at most 9 long", "", "A name."),
        Field("inner", "object or null", "null", "More."),
        Field("inner.x", "number, > 0, ≤ 1.5", "", "A share."),
        Field("many", "object of whole number", "{}", "By name."),
        Field("parts", "list of text or true or false, at least 2 long", "[]", "Parts."),
        Field("wait_s", "number, ≥ 0", "60", "Seconds."),
    ]


def test_a_choice_lists_its_values() -> None:
    schema = {"properties": {"lang": {"enum": ["js", "lua", None], "default": "lua"}, "one": {"enum": [1]}, "any": {}}}
    assert [field.type for field in fields(schema)] == ['"js", "lua" or null', "1", "any JSON"]


def test_cells_keep_the_table_whole() -> None:
    assert table(("a", "b"), [("1|2", "3")]) == "| a | b |\n| --- | --- |\n| 1\\|2 | 3 |\n"


def test_a_section_tells_all() -> None:
    section = kind_section(Odd.spec, Catalogue((Odd,)).json_schema("odd"))
    assert "in a circle" in section
    assert "<summary>21 relations</summary>" in section
    assert "| any other |" in section
    assert "| `name` | text, not empty, at most 9 long | must be given | A name. |" in section


def test_no_kind_is_left_out() -> None:
    catalogue = Catalogue((*BUILTIN, Odd))
    groups = by_category(catalogue)
    assert sorted(spec.kind for specs in groups.values() for spec in specs) == sorted(catalogue.kinds)
    assert list(groups)[-1] == "astrology"


@pytest.fixture(scope="module")
def page() -> str:
    return catalogue_page(Catalogue())


def test_links_of_the_page_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(#(\w+)\)", page)
    sections = re.findall(r"^## (\w+)$", page, re.MULTILINE)
    assert sorted(targets) == sorted(sections) == sorted(Catalogue().kinds)


def test_json_on_the_page_is_json(page: str) -> None:
    blocks = re.findall(r"^```json\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) > len(BUILTIN)
    for block in blocks:
        assert json.loads(block)["kind"] in Catalogue()
