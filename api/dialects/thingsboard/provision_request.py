"""What a device says when it asks for its credential (`TB-55`, `TB-S31`, `TB-S32`)."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from engine.errors import BadInput
from engine.stores.certificates import X509_CERTIFICATE
from engine.stores.registry import ACCESS_TOKEN, MQTT_BASIC, Credential
from nodes.codecs.lenient_json import decode_lenient

_SECRETS: Final = frozenset({"provisionDeviceSecret", "token", "password"})


class Asked(NamedTuple):
    """A request: `name` is None where the device leaves it to the server, `credential` where it takes any."""

    key: str
    secret: str
    name: str | None
    credential: Credential | None
    gateway: bool
    shown: dict[str, Any]
    """The request as the chain may see it."""


def read_request(body: bytes) -> Asked:
    """The request in a body. Raises BadInput."""
    value = decode_lenient(body)
    if type(value) is not dict:
        raise BadInput("a provision request is an object")
    gateway = value.get("gateway")
    if gateway is not None and type(gateway) is not bool:
        raise BadInput("gateway is not a boolean", "/gateway")
    return Asked(
        key=_needed(value, "provisionDeviceKey"),
        secret=_needed(value, "provisionDeviceSecret"),
        name=None if value.get("deviceName") is None else _text(value, "deviceName").strip(),
        credential=_credential(value),
        gateway=gateway or False,
        shown={name: each for name, each in value.items() if name not in _SECRETS},
    )


def _credential(value: dict[str, Any]) -> Credential | None:
    """The credential that a device asks for; None where any will do."""
    kind = value.get("credentialsType")
    if kind is None or kind == ACCESS_TOKEN:
        token = _text(value, "token")
        return Credential(kind=ACCESS_TOKEN, value=token) if token else None
    if kind == MQTT_BASIC:
        password, username, client_id = (_text(value, each) for each in ("password", "username", "clientId"))
        return Credential(kind=MQTT_BASIC, value=password, username=username, client_id=client_id)
    if kind == X509_CERTIFICATE:
        return Credential(kind=X509_CERTIFICATE, value=_needed(value, "hash"))
    raise BadInput(f"unknown credentialsType {str(kind)[:40]!r}", "/credentialsType")


def _needed(value: dict[str, Any], name: str) -> str:
    found = _text(value, name)
    if not found:
        raise BadInput("must be a text that is not empty", f"/{name}")
    return found


def _text(value: dict[str, Any], name: str) -> str:
    """A member that is a text; empty where it is missing. A word without quotes may look like a number."""
    found = value.get(name)
    if type(found) is int:
        return str(found)
    if found is not None and type(found) is not str:
        raise BadInput("must be a text", f"/{name}")
    return found or ""
