"""A device that provisions itself while the process that answers it dies."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.test_up import running

pytestmark = [pytest.mark.slow, pytest.mark.spec("TB-55", "TB-S30", "TB-S32")]

ASK = {"deviceName": "thermostat 7", "provisionDeviceKey": "key", "provisionDeviceSecret": "secret"}


def document(strategy: str) -> dict[str, Any]:
    """A product whose devices provision themselves, and where they are made first, the device."""
    device = {
        "id": "t7", "tenant": "faults", "name": "thermostat 7", "product": "thermostat",
        "credentials": [{"kind": "ACCESS_TOKEN", "value": "chosen"}],
    }  # fmt: skip
    return {
        "tenants": [{"name": "faults"}],
        "products": [
            {
                "id": "thermostat", "tenant": "faults",
                "provision": {"strategy": strategy, "key": "key", "secret": "secret"},
            }
        ],
        "devices": [device] if strategy == "check_pre_provisioned" else [],
    }  # fmt: skip


@pytest.mark.parametrize("strategy", ["allow_new", "check_pre_provisioned"])
def test_an_answer_that_was_lost_with_its_process_is_given_to_the_device_that_asks_again(
    tmp_path: Path, strategy: str
) -> None:
    (tmp_path / "bootstrap.json").write_text(json.dumps(document(strategy)))
    with running(
        tmp_path / "data", "--bootstrap", str(tmp_path / "bootstrap.json"), RULEMILL_FAILPOINTS="before-answer=kill"
    ) as (_, facts):
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.post(f"{facts['http']}/api/v1/provision", json=ASK)
        told: Any = {}
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                told = httpx.post(f"{facts['http']}/api/v1/provision", json=ASK).json()
            except httpx.TransportError:
                continue  # another process is being started
            if told["status"] == "SUCCESS":
                break
            time.sleep(0.5)
        assert told["status"] == "SUCCESS"
        token = told["credentialsValue"]
        assert (token == "chosen") == (strategy == "check_pre_provisioned")
        assert httpx.get(f"{facts['http']}/api/v1/{token}/attributes").status_code == 200
