"""Packages with title and version, what is assigned to whom, and what devices say of it."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from engine.message import Point
from engine.node import Product
from tests.api.flow.serving import FlowStack, T
from tests.api.stack import TENANT

pytestmark = pytest.mark.asyncio

PRODUCT = f"{T}/products/p1"
BODY = b"\x00\xffbytes"


async def upload(stack: FlowStack, id: str, body: bytes = BODY, **query: str) -> Any:
    return await stack.flow.put(f"{PRODUCT}/firmware/{id}", content=body, params=query)


async def product(stack: FlowStack) -> None:
    await stack.registry.put_product(Product(id="p1", tenant=TENANT))


@pytest.mark.spec("TB-S37", "G-26")
async def test_what_is_said_of_an_image_is_kept_and_its_checksum_made(stack: FlowStack) -> None:
    await product(stack)
    made = (await upload(stack, "v2")).json()
    assert (made["kind"], made["title"], made["version"], made["tag"]) == ("FIRMWARE", "p1", "v2", "")
    assert (made["algorithm"], made["checksum"]) == ("SHA256", hashlib.sha256(BODY).hexdigest())
    assert (made["file_name"], made["content_type"]) == ("v2", "application/octet-stream")
    said = {
        "kind": "SOFTWARE", "title": "app", "version": "1.0 ü", "tag": "t", "algorithm": "SHA512",
        "checksum": hashlib.sha512(BODY).hexdigest().upper(), "file_name": "app 1.bin", "content_type": "text/plain",
    }  # fmt: skip
    made = (await upload(stack, "s1", **said)).json()
    assert {key: made[key] for key in said} == {**said, "checksum": said["checksum"].lower()}
    away = await upload(stack, "v3", b"", url="https://example.com/v3", checksum="abc0", algorithm="MD5", size="77")
    assert away.status_code == 201
    shown = {"size": 77, "md5": "abc0", "sha256": "", "checksum": "abc0", "url": "https://example.com/v3"}
    assert shown.items() <= away.json().items()


@pytest.mark.spec("TB-S37")
@pytest.mark.parametrize(
    ("body", "query", "pointer"),
    [
        (BODY, {"checksum": "00"}, "?checksum"),
        (BODY, {"checksum": "xyz"}, "?checksum"),
        (BODY, {"algorithm": "CRC64"}, "?algorithm"),
        (BODY, {"kind": "OTHER"}, "?kind"),
        (BODY, {"title": "t" * 256}, "?title"),
        (BODY, {"version": "a\nb"}, "?version"),
        (BODY, {"file_name": 'a"b'}, "?file_name"),
        (BODY, {"file_name": "a\r\nb"}, "?file_name"),
        (BODY, {"content_type": "text/plain\r\nx: y"}, "?content_type"),
        (BODY, {"url": "https://example.com"}, "?url"),
        (b"", {"url": "example"}, "?url"),
        (b"", {"url": "https://example.com/ x"}, "?url"),
        (b"", {"size": "-1"}, "?size"),
        (b"", {}, ""),
    ],
)
async def test_what_does_not_hold_is_told(stack: FlowStack, body: bytes, query: Any, pointer: str) -> None:
    await product(stack)
    answer = await upload(stack, "v1", body, **query)
    assert answer.status_code == 400, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert (await stack.get(f"{PRODUCT}/firmware"))["firmware"] == []


@pytest.mark.spec("TB-60", "G-26")
async def test_an_image_is_assigned_and_its_progress_shown(stack: FlowStack) -> None:
    await product(stack)
    await upload(stack, "v1")
    await upload(stack, "s1", kind="SOFTWARE")
    assert await stack.get(f"{PRODUCT}/rollouts") == {"rollouts": []}
    made = await stack.put(f"{PRODUCT}/rollouts/firmware", {"firmware": "v1"}, 202)
    assert (made["product"], made["kind"], made["image"], made["finished_ms"]) == ("p1", "FIRMWARE", "v1", 0)
    assert (await stack.get(f"{PRODUCT}/rollouts"))["rollouts"] == [made]
    assert await stack.rollouts.of_product("p1") == {"FIRMWARE": "v1"}
    for body, kind, status in (
        ({"firmware": "nothing"}, "firmware", 404), ({"firmware": "s1"}, "firmware", 400),
        ({"firmware": "v1"}, "hardware", 404), ({}, "firmware", 400), ({"firmware": 1}, "firmware", 400),
    ):  # fmt: skip
        await stack.put(f"{PRODUCT}/rollouts/{kind}", body, status)
    await stack.put(f"{T}/products/other/rollouts/firmware", {"firmware": "v1"}, 404)
    gone = await stack.ask("DELETE", f"{PRODUCT}/rollouts/firmware", None, 202)
    assert gone["image"] == ""
    assert await stack.rollouts.of_product("p1") == {}


@pytest.mark.spec("TB-60")
async def test_an_image_that_is_assigned_stays_as_it_is(stack: FlowStack) -> None:
    await product(stack)
    device = await stack.device("d1", product="p1")
    await upload(stack, "v1")
    await upload(stack, "v2")
    await stack.put(f"{PRODUCT}/rollouts/firmware", {"firmware": "v1"}, 202)
    await stack.put(f"{T}/devices/d1/rollouts/firmware", {"firmware": "v2"}, 204)
    for id in ("v1", "v2"):
        assert (await upload(stack, id)).status_code == 200
        assert (await upload(stack, id, b"other")).status_code == 409
        assert (await upload(stack, id, tag="t")).status_code == 409
        await stack.delete(f"{PRODUCT}/firmware/{id}", 409)
    await stack.delete(f"{T}/devices/{device.id}/rollouts/firmware")
    await stack.delete(f"{PRODUCT}/firmware/v2")


@pytest.mark.spec("TB-S37", "G-18")
async def test_what_devices_say_of_their_updates(stack: FlowStack) -> None:
    await product(stack)
    devices = [await stack.device(name, product="p1") for name in ("a", "b")]
    await stack.device("stranger")
    await stack.put(f"{T}/devices/stranger/rollouts/firmware", {"firmware": "v1"}, 400)
    await upload(stack, "v1")
    assert await stack.get(f"{T}/devices/a/updates") == {"updates": [], "after": ""}
    await stack.put(f"{PRODUCT}/rollouts/firmware", {"firmware": "v1"}, 202)
    said = {"fw_state": "FAILED", "fw_error": "no room", "current_fw_version": "v0", "target_fw_version": "v1"}
    await stack.store.write([Point(TENANT, devices[0].id, key, 7, value) for key, value in said.items()])
    (update,) = (await stack.get(f"{T}/devices/a/updates"))["updates"]
    assert update == {
        "device": devices[0].id, "device_name": "a", "kind": "FIRMWARE", "firmware": "v1", "own": False,
        "state": "FAILED", "state_ms": 7, "error": "no room", "current_title": "", "current_version": "v0",
        "target_title": "", "target_version": "v1",
    }  # fmt: skip
    first = await stack.get(f"{PRODUCT}/updates?limit=1")
    assert ([each["device_name"] for each in first["updates"]], first["after"]) == (["a"], "a")
    rest = await stack.get(f"{PRODUCT}/updates?after=a")
    assert ([each["state"] for each in rest["updates"]], rest["after"]) == ([""], "")
