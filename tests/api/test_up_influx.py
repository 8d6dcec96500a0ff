"""A whole server whose points are kept in InfluxDB, from a start while that is away."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx

from tests.api.test_up import running
from tests.services import free_port, start_influx


def test_a_server_starts_without_its_influxdb_and_has_every_point_when_it_comes(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://joe:s3cret@127.0.0.1:{port}"
    (tmp_path / "influx").mkdir()
    with running(tmp_path / "data", "--demo", RULEMILL_INFLUX_URL=url, RULEMILL_WORKERS="1") as (process, ready):
        thermometer = ready["devices"]["thingsboard"]
        headers = {"Authorization": f"Bearer {ready['operator_token']}"}
        points = f"{ready['http']}/flow/v1/tenants/demo/points"
        asked = {"device": "demo-thermometer", "key": "temperature", "start_ms": 0, "end_ms": 10_000}
        with httpx.Client(headers=headers, timeout=10) as client:

            def send(ts_ms: int, value: Any) -> None:
                body = {"ts": ts_ms, "values": {"temperature": value}}
                client.post(f"{ready['http']}/api/v1/{thermometer['token']}/telemetry", json=body).raise_for_status()

            send(1000, 20)
            answer = client.get(f"{points}/latest", params={"device": "demo-thermometer"})
            assert answer.status_code == 503
            assert f"InfluxDB at http://127.0.0.1:{port}: no connection" in answer.json()["detail"]
            assert int(answer.headers["Retry-After"]) >= 1
            influx, _ = start_influx(tmp_path / "influx", port=port)
            try:
                send(2000, 21.5)
                deadline = time.monotonic() + 20
                found: list[Any] = []
                while len(found) < 2 and time.monotonic() < deadline:
                    time.sleep(0.1)
                    answer = client.get(points, params=asked)
                    found = answer.json()["points"] if answer.status_code == 200 else []
                assert [(point["ts_ms"], point["value"]) for point in found] == [(1000, 20), (2000, 21.5)]
                answer = client.get(f"{points}/aggregates", params={**asked, "function": ["mean", "first"]})
                [series] = answer.raise_for_status().json()["series"]
                assert [window["values"] for window in series["windows"]] == [{"mean": 20.75, "first": 20}]
            finally:
                influx.terminate()
                influx.wait(10)
        process.terminate()
        said = process.communicate(timeout=20)[0]
    assert "rulemill is away, and points wait until it is there" in said
    assert "s3cret" not in said
