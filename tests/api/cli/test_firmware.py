"""`rulemill firmware`, on a served demo."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import httpx
import pytest

from tests.api.cli.serving import Demo

PRODUCT = "demo-sensor"
IMAGE = b"\x00\xff" * 1000


@pytest.mark.spec("G-26", "TB-60", "TB-61")
def test_from_a_file_to_a_device_and_back(demo: Demo, tmp_path: Path) -> None:
    token = demo.new_device("ota", "--product", PRODUCT)
    file = tmp_path / 'image "1".bin'
    file.write_bytes(IMAGE)
    assert f"firmware upload {PRODUCT} FILE" in demo("firmware", "list", PRODUCT).out
    ran = demo("firmware", "upload", PRODUCT, str(file), "--version", "1.0", "--title", "sensor", "--algorithm", "MD5")
    told, then = ran.out.splitlines()
    assert told == f"sensor 1.0 is there, id 1.0, MD5 {hashlib.md5(IMAGE).hexdigest()}."
    assert then == f"Let devices have it: rulemill firmware assign {PRODUCT} 1.0"
    (row,) = demo("firmware", "list", PRODUCT).rows
    assert row[:6] == ["1.0", "FIRMWARE", "sensor", "1.0", "2.0", "KiB"]
    assert "firmware assign" in demo("firmware", "status", PRODUCT).out
    assert demo("firmware", "assign", PRODUCT, "1.0").code == 0
    status = demo.until(lambda ran: "INITIATED" in ran.out, "firmware", "status", PRODUCT)
    assert re.search(r"^told +\d+ devices$", status.out, re.MULTILINE)
    devices = demo("firmware", "status", PRODUCT, "--devices").out
    assert re.search(r"^ota +FIRMWARE +1\.0 +INITIATED", devices, re.MULTILINE)
    answer = httpx.get(f"{demo.facts['http']}/api/v1/{token}/firmware", params={"title": "sensor", "version": "1.0"})
    assert (answer.content, answer.headers["x-filename"]) == (IMAGE, "image _1_.bin")
    assert "is assigned" in demo("firmware", "delete", PRODUCT, "1.0", "--yes").err
    away = ("--from-url", "https://example.com/app.img", "--version", "2.0", "--software")
    assert demo("firmware", "upload", PRODUCT, *away).code == 0
    assert demo("firmware", "assign", PRODUCT, "2.0", "--software", "--device", "ota").code == 0
    assert "2.0 (own)" in demo("firmware", "status", PRODUCT, "--devices").out
    assert demo("firmware", "unassign", PRODUCT, "--software", "--device", "ota", "--yes").code == 0
    assert demo("firmware", "unassign", PRODUCT, "--yes").code == 0
    for id in ("1.0", "2.0"):
        assert demo("firmware", "delete", PRODUCT, id, "--yes").out == f"Deleted {id}.\n"
    rollouts = demo("firmware", "status", PRODUCT, "--json").json["rollouts"]
    assert [each["image"] for each in rollouts] == [""]


def test_what_does_not_fit_is_told(demo: Demo, tmp_path: Path) -> None:
    file = tmp_path / "image"
    file.write_bytes(IMAGE)
    for given, code, reason in (
        ((PRODUCT,), 2, "a FILE or a --from-url"),
        ((PRODUCT, str(file), "--from-url", "https://example.com"), 2, "a FILE or a --from-url"),
        ((PRODUCT, str(file)), 2, "a --version"),
        ((PRODUCT, str(tmp_path / "none"), "--version", "1"), 2, "No such file"),
        ((PRODUCT, str(file), "--version", "1", "--checksum", "00"), 1, "SHA256 is"),
        (("nothing", str(file), "--version", "1"), 1, "no product 'nothing'"),
    ):
        ran = demo("firmware", "upload", *given)
        assert (ran.code, reason in ran.err) == (code, True), ran
    assert demo("firmware", "assign", PRODUCT, "nothing").err == "rulemill: no firmware 'nothing'\n"
    assert demo("firmware", "assign", PRODUCT, "nothing", "--device", "nobody").code == 1
