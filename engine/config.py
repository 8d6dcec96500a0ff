"""Settings: flags over environment over a TOML file over defaults. Unknown keys are refused with the nearest name."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec

from engine.errors import Finding, InvalidDocument, Unfit
from engine.stores.influx_access import access


class Listener(NamedTuple):
    """A door of spec G-1: its development port, what speaks there, whether over TLS and asking for a certificate."""

    port: int
    family: Literal["http", "mqtt", "coap"]
    tls: bool = False
    client_certificates: bool = False


LISTENERS: Final[Mapping[str, Listener]] = {
    "http": Listener(8080, "http"),
    "https": Listener(8443, "http", tls=True),
    "ct_http": Listener(8081, "http"),
    "ct_https": Listener(8444, "http", tls=True),
    "ct_sigfox": Listener(8082, "http"),
    "mqtt": Listener(1883, "mqtt"),
    "mqtts_ct": Listener(1884, "mqtt", tls=True),
    "mqtts": Listener(8883, "mqtt", tls=True, client_certificates=True),
    "coap": Listener(5683, "coap"),
}

_IGNORED: Final = ("RULEMILL_TEST_",)
OTHER_VARIABLES: Final[Mapping[str, str]] = {
    "RULEMILL_CONFIG": "TOML file of settings; without it, rulemill.toml where there is one",
    "RULEMILL_OUTWARD_ALLOW": "Private networks that nodes may call, as 10.0.0.0/8,127.0.0.0/8; else only public ones",
    "RULEMILL_URL": "Server that the command line talks to; else the one of ready.json in the data folder",
    "RULEMILL_TOKEN": "Operator token of the command line",
    "RULEMILL_TENANT": "Tenant of the command line",
    "RULEMILL_FAILPOINTS": "For tests: where the process is to die or stand still (engine/failpoints.py)",
    "RULEMILL_WATCH_FD": "Set by the parent for its children",
}
"""Variables that others than Settings read."""


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Certificate chain and key as PEM files."""

    certificate: Annotated[str, msgspec.Meta(description="PEM file of the certificate and its chain")] = ""
    key: Annotated[str, msgspec.Meta(description="PEM file of the private key")] = ""


def _about(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set. A name here is the TOML key; in capitals behind RULEMILL_ it is the variable."""

    data: Annotated[str, _about("Folder of everything that is kept")] = "./rulemill-data"
    listeners: Annotated[dict[str, str], _about("Which doors are open, as key = host:port")] = {}
    workers: Annotated[int, _about("Worker processes; 0 takes one less than there are cores, at least 1")] = 0
    api_processes: Annotated[int, _about("API processes")] = 1
    redis_url: Annotated[str, _about("Redis to use instead of the embedded one")] = ""
    redis_max_memory: Annotated[str, _about("Memory limit of the embedded Redis")] = "2gb"
    durability: Annotated[
        Literal["durable", "fast"],
        _about("durable: fsync before every acknowledgement; fast: up to a second is at risk"),
    ] = "durable"
    partitions: Annotated[int, _about("Ordered streams; fixed at the first start on a Redis")] = 16
    operator_token: Annotated[str, _about("Token of the management API; empty: made at the first start")] = ""
    backlog_entries: Annotated[int, _about("Entries a stream may hold before messages are refused")] = 20_000
    influx_url: Annotated[
        str, _about("InfluxDB that keeps the points instead of SQLite, as http://host:8086 (docs/influxdb.md)")
    ] = ""
    influx_token: Annotated[str, _about("Token for InfluxDB 2 and 3")] = ""
    influx_org: Annotated[str, _about("Organization in InfluxDB 2; empty: the only one that the token sees")] = ""
    influx_bucket: Annotated[str, _about("Bucket or database, which is made if it is missing")] = "rulemill"
    influx_username: Annotated[str, _about("User of InfluxDB 1; may also stand in influx_url")] = ""
    influx_password: Annotated[str, _about("Password of that user")] = ""
    influx_ca: Annotated[
        str, _about("PEM file of the authority behind InfluxDB's certificate; empty: the system's")
    ] = ""
    spool_bytes: Annotated[int, _about("Bytes of points that may wait for the store before messages are refused")] = (
        1 << 30
    )
    retention_days: Annotated[
        int, _about("Days that points are kept, unless their device's product says otherwise; 0: for ever")
    ] = 0
    tls: Annotated[Tls, _about("Certificate for the listeners that speak TLS")] = Tls()
    trusted_proxies: Annotated[list[str], _about("Addresses whose X-Forwarded-Proto is believed")] = []
    cors_origins: Annotated[list[str], _about("Web origins that may call device paths; empty: any")] = []
    smtp_url: Annotated[str, _about("Mail server, smtp://user:password@host:587; without one, mails become files")] = ""
    mail_from: Annotated[str, _about("Sender of mails")] = "rulemill@localhost"
    thingsboard: Annotated[dict[str, Any], _about("How the ThingsBoard dialect behaves: a table, see below")] = {}
    thethingsio: Annotated[dict[str, Any], _about("How the thethings.iO dialect behaves: a table, see below")] = {}
    plugins: Annotated[list[str], _about("Names of installed node plug-ins to load")] = []
    connectors: Annotated[list[str], _about("Names of installed connectors to load")] = []
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _about("How much is logged")] = "info"

    def worker_count(self) -> int:
        """Worker processes to start."""
        return self.workers or max(1, (os.cpu_count() or 2) - 1)

    def folder(self) -> Path:
        """The data folder as an absolute path."""
        return Path(self.data).absolute()


class Loaded(NamedTuple):
    """Settings, and which listeners somebody named (the others may fall back to another port under --demo)."""

    settings: Settings
    named: frozenset[str]


def load(
    flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None, file: str | None = None
) -> Loaded:
    """Read settings from all places; InvalidDocument names every one that does not hold."""
    environment = os.environ if environment is None else environment
    findings: list[Finding] = []
    merged: dict[str, Any] = {}
    path = file or environment.get("RULEMILL_CONFIG") or ("rulemill.toml" if Path("rulemill.toml").exists() else "")
    if path:
        merged.update(_from_file(path, findings))
    listeners = dict(merged.pop("listeners", {}))
    _from_environment(environment, merged, listeners, findings)
    for name, value in (flags or {}).items():
        if value is None:
            continue
        if name in ("http", "mqtt"):
            listeners[name] = value
        else:
            merged[name] = value
    for key, address in listeners.items():
        _check_listener(key, address, findings)
    try:
        settings = msgspec.convert({**merged, "listeners": listeners}, Settings, strict=False)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$.")
        findings.append(Finding(where.rstrip("`") or "settings", reason))
        raise InvalidDocument(findings) from error
    findings += _check(settings)
    if findings:
        raise InvalidDocument(findings)
    return Loaded(settings, frozenset(listeners))


def _from_file(path: str, findings: list[Finding]) -> dict[str, Any]:
    try:
        values = tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        findings.append(Finding(path, str(error)))
        return {}
    known = {field.name for field in msgspec.structs.fields(Settings)}
    for name in list(values):
        if name not in known:
            findings.append(Finding(f"{path}: {name}", unknown("setting", name, known)))
            del values[name]
    if not isinstance(values.get("listeners", {}), dict):
        findings.append(Finding(f"{path}: listeners", 'is a table of key = "host:port"'))
        del values["listeners"]
    return values


def _from_environment(
    environment: Mapping[str, str], merged: dict[str, Any], listeners: dict[str, str], findings: list[Finding]
) -> None:
    known = {f"RULEMILL_{field.name.upper()}": field.name for field in msgspec.structs.fields(Settings)}
    short = {"RULEMILL_HTTP": "http", "RULEMILL_MQTT": "mqtt"}
    doors = {f"RULEMILL_LISTEN_{key.upper()}": key for key in LISTENERS}
    given: dict[str, str] = {}
    for name, value in environment.items():
        if not name.startswith("RULEMILL_") or name in OTHER_VARIABLES or name.startswith(_IGNORED):
            continue
        if name in short or name in doors:
            key = short.get(name) or doors[name]
            if value and given.setdefault(key, value) != value:
                findings.append(Finding(name, f"says {value}, and another variable for the same listener {given[key]}"))
            elif value:
                listeners[key] = value
        elif name in known and known[name] not in ("listeners", "tls"):
            field = known[name]
            merged[field] = _from_variable(field, value, name, findings)
        elif name in ("RULEMILL_TLS_CERTIFICATE", "RULEMILL_TLS_KEY"):
            merged.setdefault("tls", {})[name.removeprefix("RULEMILL_TLS_").lower()] = value
        else:
            findings.append(Finding(name, unknown("variable", name, [*known, *short, *doors, *OTHER_VARIABLES])))


_LISTS: Final = ("plugins", "connectors", "trusted_proxies", "cors_origins")
_TABLES: Final = ("thingsboard", "thethingsio")


def _from_variable(field: str, text: str, name: str, findings: list[Finding]) -> Any:
    """A setting as the environment has it: lists with commas, tables as JSON."""
    if field in _LISTS:
        return [part for part in text.split(",") if part]
    if field in _TABLES:
        try:
            return msgspec.json.decode(text or b"{}", type=dict[str, Any])
        except ValueError as error:  # of msgspec, and of text that is not UTF-8
            findings.append(Finding(name, f"is a table as JSON: {error}"))
            return {}
    return text


def as_variable(value: Any) -> str:
    """A setting as the environment has it; what `load` reads back."""
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    return ",".join(value) if isinstance(value, list) else str(value)


def unknown(what: str, name: str, known: Any) -> str:
    """ "There is no such thing", with the nearest name if one is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"there is no {what} of that name" + (f"; did you mean {near[0]}?" if near else "")


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[v6]:port` or `:port` (all interfaces); ValueError otherwise."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not host:port")
    return host.strip("[]") or "0.0.0.0", int(port)


def _check_listener(key: str, address: Any, findings: list[Finding]) -> None:
    if key not in LISTENERS:
        findings.append(Finding(f"listeners.{key}", unknown("listener", key, LISTENERS)))
        return
    try:
        split_address(str(address))
    except ValueError as error:
        findings.append(Finding(f"listeners.{key}", f"{error}; for example 127.0.0.1:{LISTENERS[key].port}"))


def _check(settings: Settings) -> list[Finding]:
    findings = []
    if not 1 <= settings.partitions <= 1024:
        findings.append(Finding("partitions", "is a number from 1 to 1024"))
    if settings.workers < 0 or settings.api_processes < 1:
        findings.append(Finding("workers", "workers is 0 or more, api_processes is 1 or more"))
    if not 0 <= settings.retention_days <= 36_500:
        findings.append(Finding("retention_days", "is a number of days from 0 (for ever) to 36500"))
    if settings.influx_url:
        try:
            access(settings.influx_url, bucket=settings.influx_bucket, ca=settings.influx_ca)
        except Unfit as error:
            findings.append(Finding("influx_url", error.reason))
    else:
        # Points that silently go elsewhere than somebody thinks are found again by nobody.
        findings += [
            Finding(name, "is set, and influx_url is not")
            for name in ("influx_token", "influx_org", "influx_username", "influx_password", "influx_ca")
            if getattr(settings, name)
        ]
    seen: dict[str, str] = {}
    for key, address in settings.listeners.items():
        if address in seen and not address.endswith(":0"):
            findings.append(Finding(f"listeners.{key}", f"has the same address as listeners.{seen[address]}"))
        seen[address] = key
        if key in LISTENERS and LISTENERS[key].tls and not (settings.tls.certificate and settings.tls.key):
            findings.append(Finding(f"listeners.{key}", "speaks TLS: set tls.certificate and tls.key to PEM files"))
    return findings
