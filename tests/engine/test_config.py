"""Settings: where they come from, what overrules what, and how mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import LISTENERS, load, split_address
from engine.errors import InvalidDocument


def test_defaults_need_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load({}, {})
    assert loaded.settings.data == "./rulemill-data"
    assert loaded.named == frozenset()
    assert loaded.settings.worker_count() >= 1


def test_flags_overrule_the_environment_which_overrules_the_file(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('workers = 1\nbacklog_entries = 5\nlog_level = "debug"\n[listeners]\nhttp = "127.0.0.1:1"\n')
    loaded = load(
        {"workers": 3, "http": None}, {"RULEMILL_WORKERS": "2", "RULEMILL_BACKLOG_ENTRIES": "6"}, file=str(file)
    )
    settings = loaded.settings
    assert (settings.workers, settings.backlog_entries, settings.log_level) == (3, 6, "debug")
    assert settings.listeners == {"http": "127.0.0.1:1"}


@pytest.mark.spec("G-1")
@pytest.mark.parametrize("key", sorted(LISTENERS))
def test_every_listener_has_a_variable(key: str) -> None:
    tls = {"RULEMILL_TLS_CERTIFICATE": "c.pem", "RULEMILL_TLS_KEY": "k.pem"}
    loaded = load({}, {f"RULEMILL_LISTEN_{key.upper()}": "127.0.0.1:0", **tls})
    assert loaded.settings.listeners == {key: "127.0.0.1:0"}
    assert loaded.named == {key}


@pytest.mark.parametrize(
    ("environment", "where", "what"),
    [
        ({"RULEMILL_WORKRES": "2"}, "RULEMILL_WORKRES", "did you mean RULEMILL_WORKERS?"),
        ({"RULEMILL_WORKERS": "many"}, "workers", "Expected `int`"),
        ({"RULEMILL_HTTP": "8080"}, "listeners.http", "is not host:port"),
        ({"RULEMILL_LISTEN_HTPP": "127.0.0.1:1"}, "RULEMILL_LISTEN_HTPP", "did you mean RULEMILL_LISTEN_HTTP?"),
        ({"RULEMILL_LISTEN_HTTPS": "127.0.0.1:1"}, "listeners.https", "tls.certificate"),
        ({"RULEMILL_HTTP": "127.0.0.1:1", "RULEMILL_MQTT": "127.0.0.1:1"}, "listeners.", "same address"),
        (
            {"RULEMILL_HTTP": "127.0.0.1:1", "RULEMILL_LISTEN_HTTP": "127.0.0.1:2"},
            "HTTP",
            "another variable for the same listener",
        ),
        ({"RULEMILL_PARTITIONS": "0"}, "partitions", "from 1 to 1024"),
        ({"RULEMILL_DURABILITY": "perhaps"}, "durability", "perhaps"),
        ({"RULEMILL_INFLUX_URL": "influx:8086"}, "influx_url", "http://host:port"),
        ({"RULEMILL_INFLUX_URL": "http://h", "RULEMILL_INFLUX_BUCKET": ""}, "influx_url", "not a name"),
        ({"RULEMILL_INFLUX_TOKEN": "T"}, "influx_token", "influx_url is not"),
    ],
)
def test_mistakes_are_named(environment: dict[str, str], where: str, what: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        load({}, environment)
    assert any(where in pointer and what in message for pointer, message in caught.value.findings)


def test_unknown_keys_of_a_file_are_refused_with_the_nearest_name(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text("worker = 1\n[listeners]\nhtttp = '127.0.0.1:1'\n")
    with pytest.raises(InvalidDocument) as caught:
        load({}, {}, file=str(file))
    told = " ".join(str(finding) for finding in caught.value.findings)
    assert "did you mean workers?" in told
    assert "did you mean http?" in told


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:80", ("::1", 80)), (":0", ("0.0.0.0", 0))],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address
