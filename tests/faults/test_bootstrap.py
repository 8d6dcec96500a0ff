"""A server whose bootstrap file was applied, and an API process that dies later: what people have changed stays."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.test_up import running

pytestmark = [pytest.mark.slow, pytest.mark.spec("TB-60", "G-26")]

DOCUMENT = {
    "tenants": [{"name": "faults"}],
    "products": [
        {"id": "meter", "tenant": "faults", "provision": {"strategy": "allow_new", "key": "key", "secret": "secret"}}
    ],
    "firmware": [{"tenant": "faults", "product": "meter", "id": "v1", "data_b64": "AAH/", "assigned": True}],
}
FATAL = {"deviceName": "any", "provisionDeviceKey": "key", "provisionDeviceSecret": "secret"}


def test_a_process_that_follows_one_that_died_takes_no_firmware_back_a_version(tmp_path: Path) -> None:
    (tmp_path / "bootstrap.json").write_text(json.dumps(DOCUMENT))
    more = {"RULEMILL_FAILPOINTS": "before-answer=kill"}
    with running(tmp_path / "data", "--bootstrap", str(tmp_path / "bootstrap.json"), **more) as (_, facts):
        product = f"{facts['http']}/flow/v1/tenants/faults/products/meter"
        headers = {"Authorization": f"Bearer {facts['operator_token']}"}

        def assigned() -> list[str]:
            """The images that the product's devices shall have."""
            found: dict[str, Any] = httpx.get(f"{product}/rollouts", headers=headers).json()
            return [each["image"] for each in found["rollouts"]]

        assert assigned() == ["v1"]
        assert httpx.put(f"{product}/firmware/v2", headers=headers, content=b"newer").status_code == 201
        answer = httpx.put(f"{product}/rollouts/firmware", headers=headers, json={"firmware": "v2"})
        assert answer.status_code == 202
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.post(f"{facts['http']}/api/v1/provision", json=FATAL)
        deadline = time.monotonic() + 30
        while True:
            try:
                assert assigned() == ["v2"]
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline, "no process follows"
                time.sleep(0.1)
