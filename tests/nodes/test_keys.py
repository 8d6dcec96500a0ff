from __future__ import annotations

from typing import Any

import pytest

from nodes.copy_keys import CopyKeys
from nodes.delete_keys import DeleteKeys
from nodes.key_patterns import KeyPatterns
from nodes.rename_keys import RenameKeys
from tests.nodes.context import build, emitted, message, run

pytestmark = pytest.mark.asyncio


async def changed(node: Any, data: Any, metadata: dict[str, str] | None = None) -> Any:
    given = message(data, metadata=metadata or {})
    before = repr(given)
    (sent,) = emitted(await run(node, given))["Success"]
    assert repr(given) == before, "the message that came in was changed"
    return sent


async def test_rename_keeps_the_order_and_leaves_the_rest() -> None:
    sent = await changed(build(RenameKeys, keys={"t": "temperature", "x": "y"}), {"a": 1, "t": 2, "b": 3})
    assert list(sent.data.items()) == [("a", 1), ("temperature", 2), ("b", 3)]


async def test_renaming_happens_at_once() -> None:
    assert (await changed(build(RenameKeys, keys={"a": "b", "b": "a"}), {"a": 1, "b": 2})).data == {"b": 1, "a": 2}
    assert (await changed(build(RenameKeys, keys={"a": "b"}), {"a": 1, "b": 2})).data == {"b": 1}
    assert (await changed(build(RenameKeys, keys={"a": "b"}), {"b": 2, "a": 1})).data == {"b": 1}


async def test_rename_in_metadata() -> None:
    sent = await changed(build(RenameKeys, keys={"k": "l"}, where="metadata"), [1], {"k": "v"})
    assert (sent.data, sent.metadata) == ([1], {"l": "v"})


async def test_copy_to_metadata_makes_text() -> None:
    data = {"s": "x", "n": 42.0, "b": True, "o": {"a": [1]}, "other": 1}
    sent = await changed(build(CopyKeys, keys=["s", "n", "b", "o", "missing"]), data, {"s": "old", "k": "v"})
    assert sent.metadata == {"s": "x", "k": "v", "n": "42.0", "b": "true", "o": '{"a":[1]}'}
    assert sent.data == data


async def test_copy_to_data() -> None:
    node = build(CopyKeys, keys=["lora*"], copy_from="metadata")
    sent = await changed(node, {"loraA": 0}, {"loraA": "1", "loraB": "2", "other": "3"})
    assert sent.data == {"loraA": "1", "loraB": "2"}


async def test_delete() -> None:
    assert (await changed(build(DeleteKeys, keys=["a", "deb*"]), {"a": 1, "debug": 2, "de": 3})).data == {"de": 3}
    sent = await changed(build(DeleteKeys, keys=["*"], where="metadata"), {"a": 1}, {"k": "v"})
    assert (sent.data, sent.metadata) == ({"a": 1}, {})


@pytest.mark.parametrize(
    "node",
    [
        build(RenameKeys, keys={"a": "b"}),
        build(CopyKeys, keys=["a"]),
        build(CopyKeys, keys=["a"], copy_from="metadata"),
        build(DeleteKeys, keys=["a"]),
    ],
)
async def test_data_without_keys_fails_alone(node: Any) -> None:
    out = await run(node, message([1]), message({"a": 1}), message(b""), message(None))
    assert list(out.failed) == [0, 2, 3]
    assert len(emitted(out)["Success"]) == 1


async def test_a_star_counts_at_the_end_only() -> None:
    some = KeyPatterns(["a*b", "c*"])
    assert [key for key in ("a*b", "axb", "c", "cx", "xc") if key in some] == ["a*b", "c", "cx"]
